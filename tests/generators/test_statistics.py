"""Statistics against scipy, against counting, and against simulation."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from leafiqa.generators.best_of import best_of_curve, choose_best, expected_best
from leafiqa.generators.paired_statistics import (
    BOOTSTRAP_FROM,
    LARGE,
    holm,
    least_p,
    least_prompts,
    mean_interval,
    noise_floor,
    prompts_to_bound,
    prompts_to_detect,
    sign_flip_p,
)
from leafiqa.generators.ranking import groups_alike, rank_ranges, standings


def test_a_few_prompts_get_students_interval():
    values = np.random.default_rng(0).normal(1, 2, BOOTSTRAP_FROM - 1)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((wanted.low, wanted.high))
    assert all(map(math.isnan, mean_interval(np.array([1.0]))))
    assert mean_interval(np.full(5, 0.3)) == (pytest.approx(0.3), pytest.approx(0.3))


def test_many_prompts_get_the_bootstrap_which_meets_the_normal_theory_where_it_stops():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, LARGE)
    low, high = mean_interval(values)
    half = 1.96 / math.sqrt(LARGE) * values.std()
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    below, above = mean_interval(np.append(values, 0.0))
    assert (above - below) == pytest.approx(high - low, rel=0.05)
    assert mean_interval(values) == (low, high)


@pytest.mark.parametrize(("n", "skewed"), [(10, False), (30, False), (30, True)])
def test_intervals_hold_the_true_mean_as_often_as_they_say(n, skewed):
    rng = np.random.default_rng(n + skewed)
    held = 0
    for _ in range(1000):
        values = rng.normal(0, 1, n) if not skewed else -np.exp(rng.normal(0, 0.5, n)) + math.exp(0.125)
        low, high = mean_interval(values)
        held += low <= 0 <= high
    assert 915 <= held <= 975


def test_p_is_that_of_all_sign_patterns():
    differences = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.2])
    seen = abs(differences.mean())
    all_signs = [abs(np.mean(differences * signs)) for signs in product((1, -1), repeat=6)]
    assert sign_flip_p(differences) == pytest.approx(np.mean(np.array(all_signs) >= seen - 1e-12))
    assert sign_flip_p(np.full(6, 0.1)) == pytest.approx(least_p(6)) == pytest.approx(2 / 64)
    assert sign_flip_p(np.full(5, 0.1)) == pytest.approx(0.0625)
    assert sign_flip_p(np.zeros(10)) == 1.0
    many = np.random.default_rng(0).normal(0.2, 1, 200)
    assert sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.01)
    assert sign_flip_p(np.random.default_rng(0).normal(0, 1, LARGE + 1)) > 0.01


def test_holm():
    assert holm([0.01, 0.04, 0.03, math.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([0.01, 0.01, 0.011]) == pytest.approx([0.03, 0.03, 0.03])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_never_below_p_nor_above_bonferroni_and_keeps_the_order(ps):
    corrected = holm(ps)
    assert all(p <= c + 1e-12 <= min(1, p * len(ps)) + 2e-12 for p, c in zip(ps, corrected))
    order = np.argsort(ps, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= -1e-12)


def test_prompts_needed():
    assert prompts_to_detect(0.5, 1.0) == 32
    assert prompts_to_detect(0.0, 1.0) is None
    assert prompts_to_bound(0.1, 1.0, 0.3) == 97
    assert prompts_to_bound(0.4, 1.0, 0.3) is None
    assert least_prompts(1) == 6 and least_p(6) < 0.05 <= least_p(5)
    assert least_p(least_prompts(10)) * 10 < 0.05


def test_the_noise_floor_is_what_two_runs_differ_by():
    rng = np.random.default_rng(3)
    prompts = rng.normal(0, 1, 40)
    below = 0
    for _ in range(500):
        one, two = (prompts[:, None] + rng.normal(0, 0.5, (40, 3)) for _ in range(2))
        floor = noise_floor(one.var(axis=1, ddof=1), np.full(40, 3))
        below += abs(one.mean() - two.mean()) < floor
    assert 455 <= below <= 490
    assert math.isnan(noise_floor(np.array([]), np.array([])))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_the_expected_best_is_the_mean_over_all_subsets(scores, data):
    n = data.draw(st.integers(1, len(scores)))
    wanted = np.mean([max(some) for some in combinations(scores, n)])
    assert expected_best(np.array(scores), n) == pytest.approx(wanted)


def test_curves_rise_and_stop_at_the_fewest_pictures():
    curve = best_of_curve([np.array([0.1, 0.5, 0.3]), np.array([0.2, 0.9])])
    assert curve == pytest.approx([(0.3 + 0.55) / 2, ((0.5 + 0.5 + 0.3) / 3 + 0.9) / 2])
    assert best_of_curve([]) == []


def test_the_best_of_each_group_and_never_one_without_a_score():
    scores = np.array([0.1, math.nan, 0.3, 0.3, math.nan])
    assert choose_best(scores, ["a", "a", "a", "a", "b"], 2) == {"a": [2, 3], "b": []}


def test_ranks_and_groups():
    names = ["a", "b", "c", "d"]
    beats = {("a", "c"), ("a", "d"), ("b", "d")}
    assert rank_ranges(names, beats) == {"a": (1, 2), "b": (1, 3), "c": (2, 4), "d": (3, 4)}
    assert groups_alike(names, beats) == [["a", "b"], ["b", "c"], ["c", "d"]]
    assert groups_alike(names, set()) == [names]
    assert groups_alike(["a", "b"], {("a", "b")}) == [["a"], ["b"]]
    # Of generators with other prompts the differences order, not the means.
    found = standings(names[:3], {("a", "b"): 0.1, ("a", "c"): math.nan, ("b", "c"): 0.2})
    assert found == pytest.approx({"a": 0.1, "b": 0.05, "c": -0.2})
