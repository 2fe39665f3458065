"""The rater model against simulation, choix and hand-made cases; what is said of raters."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from leafiqa.errors import InputError
from leafiqa.rating.answers import Answer, Answers
from leafiqa.rating.panel import as_answers, summarise
from leafiqa.rating.rater_model import estimate


def simulated(seed, raters=5, careless=1, pictures=120):
    """Return true qualities, and answers of a panel of which the last raters answer at random."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(3, 0.9, pictures).clip(1, 5)
    bias, noise = rng.normal(0, 0.3, raters), rng.uniform(0.5, 0.9, raters)
    rows = []
    for r in range(raters):
        scores = np.clip(np.round(quality + bias[r] + noise[r] * rng.normal(size=pictures)), 1, 5)
        if r >= raters - careless:
            scores = rng.integers(1, 6, pictures)
        rows += [(f"r{r}", f"{i:03}", float(score)) for i, score in enumerate(scores)]
    return quality, bias, noise, rows


@pytest.mark.parametrize(("raters", "careless", "gain"), [(3, 1, 0.06), (5, 1, 0.02), (5, 0, -0.01)])
def test_it_beats_the_mean_where_a_rater_is_careless_and_costs_nothing_where_none_is(raters, careless, gain):
    gains = []
    for seed in range(8):
        quality, *_, rows = simulated(seed, raters, careless)
        panel = summarise(Answers(as_answers(rows)))
        by_mean = spearmanr([of.mean for of in panel.pictures], quality).statistic
        gains.append(spearmanr([of.mos for of in panel.pictures], quality).statistic - by_mean)
    assert np.mean(gains) > gain


def test_biases_inconsistencies_and_errors_are_found():
    quality, bias, noise, rows = simulated(3, raters=6, careless=0, pictures=400)
    panel = summarise(Answers(as_answers(rows)))
    found = {of.name: of for of in panel.raters}
    for r in range(6):
        assert found[f"r{r}"].bias == pytest.approx(bias[r] - bias.mean(), abs=0.12)
        # Rounding to levels adds a twelfth to the variance.
        assert found[f"r{r}"].inconsistency == pytest.approx(math.hypot(noise[r], 12**-0.5), abs=0.12)
    away = np.array([of.mos for of in panel.pictures]) - quality
    error = np.array([of.mos_se for of in panel.pictures])
    covered = np.mean(np.abs(away - away.mean()) < 1.96 * error)
    assert 0.9 < covered < 0.99


def test_a_careless_rater_is_reported_and_counts_little_and_honest_ones_are_not():
    *_, rows = simulated(1)
    panel = summarise(Answers(as_answers(rows)))
    assert [of.name for of in panel.raters if of.remarks] == ["r4"]
    assert "perhaps careless" in str(panel)
    same = [("lazy", f"{i}", 3.0) for i in range(20)] + [("eager", f"{i}", float(1 + i % 5)) for i in range(20)]
    told = {of.name: of.remarks for of in summarise(Answers(as_answers(same))).raters}
    assert any("the same rating for every picture" in remark for remark in told["lazy"])


def test_one_rater_alone_and_one_picture():
    panel = summarise(Answers(as_answers([("a", "x", 5.0), ("a", "y", 1.0), ("a", "z", 3.0)])))
    assert [of.image for of in sorted(panel.pictures, key=lambda of: of.mos)] == ["y", "z", "x"]
    assert math.isnan(panel.raters[0].agreement) and panel.pictures[0].n == 1
    assert math.isnan(panel.pictures[0].interval[0])
    (one,) = summarise(Answers(as_answers([("a", "x", 4.0)]))).pictures
    assert 3 < one.mos <= 4.01
    with pytest.raises(InputError, match="no answer counts"):
        summarise(Answers([Answer(1, "a", "rating", "x", value="3", phase="warm-up")]))


def test_estimates_stay_on_the_scale_and_a_repeat_is_no_second_rater():
    rows = [(f"low{r}", "best", 5.0) for r in range(3)]
    rows += [(f"low{r}", f"{i}", float(max(1, i % 4))) for r in range(3) for i in range(30)]
    rows += [(f"high{r}", f"{i}", float(max(1, i % 4) + 1)) for r in range(3) for i in range(30)]
    found = {of.image: of for of in summarise(Answers(as_answers(rows))).pictures}
    assert 4.5 < found["best"].mos <= 5
    twice = [Answer(1, "a", "rating", "x", value="4"), Answer(2, "a", "rating", "x", value="2", phase="repeat")]
    (one,) = summarise(Answers(twice)).pictures
    assert (one.n, one.mean) == (1, 3.0) and math.isnan(one.std)


def comparisons(quality, count, seed=0, step=0.5):
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        i, j = rng.choice(len(quality), 2, replace=False)
        won = rng.random() < 1 / (1 + math.exp(-(quality[i] - quality[j]) / step))
        found.append(Answer(number + 1, "a", "comparison", f"{i:03}", f"{j:03}", "first" if won else "second"))
    return found


def test_comparisons_alone_give_the_order_that_choix_gives():
    choix = pytest.importorskip("choix")
    quality = np.random.default_rng(0).normal(3, 0.9, 25)
    answers = comparisons(quality, 600)
    found = estimate([f"{i:03}" for i in range(25)], [], answers)
    pairs = [(int(a.image), int(a.other)) if a.value == "first" else (int(a.other), int(a.image)) for a in answers]
    theirs = choix.ilsr_pairwise(25, pairs, alpha=0.01)
    assert spearmanr(found.quality, theirs).statistic > 0.99
    assert np.corrcoef(found.quality, theirs)[0, 1] > 0.99
    assert spearmanr(found.quality, quality).statistic > 0.9


def test_ratings_and_comparisons_are_on_one_scale_and_help_each_other():
    rng = np.random.default_rng(2)
    quality = rng.normal(3, 0.8, 60).clip(1, 5)
    # Two raters: of one alone nothing tells how much of the spread is noise.
    rows = [
        (rater, f"{i:03}", float(np.clip(round(q + 0.8 * rng.normal()), 1, 5)))
        for rater in "ab"
        for i, q in enumerate(quality)
    ]
    answers = comparisons(quality, 400, seed=1)
    names = [f"{i:03}" for i in range(60)]
    alone = estimate(names, as_answers(rows))
    both = estimate(names, as_answers(rows), answers)
    assert spearmanr(both.quality, quality).statistic > spearmanr(alone.quality, quality).statistic + 0.03
    assert np.median(both.error) < 0.8 * np.median(alone.error)
    assert np.corrcoef(both.quality, quality)[0, 1] > 0.85
    assert both.quality.mean() == pytest.approx(quality.mean(), abs=0.25)
    assert both.step == pytest.approx(0.5, abs=0.25)
    # A picture that was only compared gets its place on the scale of the ratings.
    some = estimate(names, [a for a in as_answers(rows) if a.image != "007"], answers)
    assert some.quality[7] == pytest.approx(quality[7], abs=0.7)


def test_it_agrees_with_sureal():
    reader = pytest.importorskip("sureal.dataset_reader")
    from types import SimpleNamespace

    from sureal.subjective_model import MaximumLikelihoodEstimationModelContentOblivious as Model

    _, _, noise, rows = simulated(5, raters=12, careless=2)
    videos = {}
    for rater, image, score in rows:
        videos.setdefault(image, {})[rater] = score
    dataset = SimpleNamespace(
        dataset_name="x",
        ref_videos=[{"content_id": 0, "path": "r", "content_name": "r"}],
        dis_videos=[
            {"content_id": 0, "asset_id": i, "path": name, "os": os} for i, (name, os) in enumerate(videos.items())
        ],
    )
    theirs = np.array(Model(reader.RawDatasetReader(dataset)).run_modeling()["quality_scores"])
    ours = np.array([of.mos for of in summarise(Answers(as_answers(rows))).pictures])
    assert np.corrcoef(ours, theirs)[0, 1] > 0.995
    assert len(noise) == 12
