"""Do the intervals of `leafiqa compare` cover, and what does it find: `python -m benchmarks.coverage --json FILE`.

Simulated generators whose true difference is known. Quality of a picture = prompt + prompt by generator + seed, with
the shares that AGIQA-3K's human scores have (within-prompt correlation .29, little correlation between generators),
squeezed into 0 to 1 by a logistic, which makes it skewed and uneven. For each number of prompts and seeds: how often a
nominal 95 % interval of the mean difference holds the true one, by leafiqa's way and by others in use; how often
"better" is said of two equal generators, and of two that differ; how often any of six equal pairs is called different;
how often two runs of one generator differ by less than the noise floor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from leafiqa.generators.paired_statistics import holm, mean_interval, noise_floor, sign_flip_p

Array = NDArray[np.float64]
PROMPTS, SEEDS = (10, 30, 100), (1, 4, 16)
# Variances: prompts alike in all generators, prompts in one generator, seeds.
SHARED, OWN, NOISE = 0.08, 0.21, 0.71
# Means before the logistic: high scores are squeezed, so that they are skewed.
LEVELS = {"middle": 0.3, "near the top": 1.8}
APART = 0.35


def draw(rng: np.random.Generator, prompts: int, seeds: int, level: float, apart: float, generators: int = 2) -> Array:
    """Return scores `(generators, prompts, seeds)`; the first generator is better by `apart` before the logistic."""
    prompt = rng.normal(0, SHARED**0.5, (1, prompts, 1))
    own = rng.normal(0, OWN**0.5, (generators, prompts, 1))
    noise = rng.normal(0, NOISE**0.5, (generators, prompts, seeds))
    shift = np.zeros((generators, 1, 1))
    shift[0] = apart
    return 1 / (1 + np.exp(-(level + shift + prompt + own + noise)))


def true_difference(level: float, apart: float) -> float:
    """Return the expected difference of the first two generators, by quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    spread = (SHARED + OWN + NOISE) ** 0.5
    mean = [float(weights @ (1 / (1 + np.exp(-(level + shift + spread * points))))) for shift in (apart, 0.0)]
    return mean[0] - mean[1]


def t_interval(values: Array) -> tuple[float, float]:
    """Return Student's interval of a mean."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def of_images(scores: Array) -> tuple[float, float]:
    """All pictures as independent, generators unpaired: what a mean and its standard error of images say."""
    first, second = scores[0].ravel(), scores[1].ravel()
    found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def of_image_pairs(scores: Array) -> tuple[float, float]:
    """Pictures of one prompt and number as pairs, prompts ignored."""
    return t_interval((scores[0] - scores[1]).ravel())


def of_percentiles(scores: Array) -> tuple[float, float]:
    """The percentile bootstrap over prompts."""
    differences = (scores[0] - scores[1]).mean(axis=1)
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (1000, len(differences)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def of_bca(scores: Array) -> tuple[float, float]:
    """The BCa bootstrap over prompts (scipy)."""
    differences = (scores[0] - scores[1]).mean(axis=1)
    found = stats.bootstrap((differences,), np.mean, n_resamples=1000, method="BCa", rng=0).confidence_interval
    return float(found.low), float(found.high)


def of_leafiqa(scores: Array) -> tuple[float, float]:
    """Prompt means, Student's t below 30 prompts, the symmetric studentised bootstrap from there on."""
    return mean_interval((scores[0] - scores[1]).mean(axis=1))


WAYS: dict[str, Callable[[Array], tuple[float, float]]] = {
    "images as independent": of_images,
    "image pairs, prompts ignored": of_image_pairs,
    "percentile bootstrap over prompts": of_percentiles,
    "BCa bootstrap over prompts": of_bca,
    "leafiqa": of_leafiqa,
}


def coverage(trials: int, slow: int) -> list[dict]:
    """Return for each level, number of prompts and seeds the share of intervals that hold the true difference."""
    rows = []
    for name, level in LEVELS.items():
        true = true_difference(level, APART)
        for prompts in PROMPTS:
            for seeds in SEEDS:
                held = dict.fromkeys(WAYS, 0)
                counts = {way: slow if way.startswith("BCa") else trials for way in WAYS}
                rng = np.random.default_rng([prompts, seeds, int(10 * level)])
                for trial in range(trials):
                    scores = draw(rng, prompts, seeds, level, APART)
                    for way, interval in WAYS.items():
                        if trial < counts[way]:
                            low, high = interval(scores)
                            held[way] += low <= true <= high
                row = {way: held[way] / counts[way] for way in WAYS}
                rows.append({"level": name, "prompts": prompts, "seeds": seeds, "trials": trials, **row})
                print({key: value if isinstance(value, str) else round(value, 3) for key, value in rows[-1].items()})
    return rows


def errors_and_power(trials: int) -> list[dict]:
    """Return how often two generators are called different: equal ones, and ones that differ."""
    rows = []
    for prompts in PROMPTS:
        for seeds in SEEDS:
            row: dict = {"prompts": prompts, "seeds": seeds, "trials": trials}
            for name, apart in (("equal", 0.0), ("different", APART)):
                rng = np.random.default_rng([prompts, seeds, int(100 * apart)])
                ours = naive = unpaired = 0
                for _ in range(trials):
                    scores = draw(rng, prompts, seeds, LEVELS["middle"], apart)
                    means = scores.mean(axis=2)
                    ours += sign_flip_p(means[0] - means[1]) < 0.05
                    naive += stats.ttest_ind(scores[0].ravel(), scores[1].ravel(), equal_var=False).pvalue < 0.05
                    unpaired += stats.ttest_ind(means[0], means[1], equal_var=False).pvalue < 0.05
                found = {"leafiqa": ours, "images as independent": naive, "prompt means, unpaired": unpaired}
                row[name] = {way: count / trials for way, count in found.items()}
            rows.append(row)
            print(row)
    return rows


def family_and_floor(trials: int) -> dict:
    """Return how often any of six pairs of equal generators is called different, and what the noise floor holds."""
    rng = np.random.default_rng(5)
    any_raw = any_holm = below = 0
    for _ in range(trials):
        scores = draw(rng, 50, 4, LEVELS["middle"], 0.0, generators=4)
        means = scores.mean(axis=2)
        ps = [sign_flip_p(means[a] - means[b]) for a in range(4) for b in range(a + 1, 4)]
        any_raw += min(ps) < 0.05
        any_holm += min(holm(ps)) < 0.05
        # One generator run twice: the same prompts, other seeds.
        once = draw(rng, 50, 8, LEVELS["middle"], 0.0, generators=1)[0]
        first, second = once[:, :4], once[:, 4:]
        floor = noise_floor(first.var(axis=1, ddof=1), np.full(50, 4))
        below += abs(first.mean() - second.mean()) < floor
    return {
        "trials": trials,
        "any of six equal pairs called different, corrected": any_holm / trials,
        "any of six equal pairs called different, not corrected": any_raw / trials,
        "two runs of one generator differ by less than the noise floor": below / trials,
    }


def main() -> None:
    """Simulate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help="few trials, to see that it runs")
    arguments = parser.parse_args()
    trials, slow, fewer = (200, 50, 100) if arguments.quick else (4000, 1000, 1000)
    found = {
        "coverage": coverage(trials, slow),
        "errors_and_power": errors_and_power(fewer),
        "family_and_floor": family_and_floor(fewer),
    }
    print(found["family_and_floor"])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
