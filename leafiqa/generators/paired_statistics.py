"""Statistics of prompts: means with intervals, exact p by sign flips, correction for many pairs, prompts still needed.

The prompt is the unit: pictures of one prompt are alike, so that counting them as independent gives intervals that
are far too narrow (nominal 95 % intervals then cover 69 to 89 %; `benchmarks/coverage.py`). Each prompt's pictures
are averaged, and the difference of two generators is taken prompt by prompt.

Miller 2024 (arXiv 2411.00640): clustered errors, paired differences, power. Hall 1988, "On symmetric bootstrap
confidence intervals". Holm 1979: correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.05
# Below this many prompts Student's t; from then on the bootstrap, which follows the shape of the differences.
BOOTSTRAP_FROM = 30
# Above this many prompts both, and permutations as well, equal the normal theory to the third digit.
LARGE = 5000
_DRAWS = 2000
# Fewer usable resamples than this share, and the bootstrap says nothing: Student's t then.
_USABLE = 0.99
# Sign patterns that are drawn; more of them where p is so small that corrections for many pairs need its digits, as
# long as prompts are few; with many the normal theory has them.
_FLIPS, _MORE_FLIPS = 9999, 199_999
_SMALL, _FEW = 0.005, 500
_POWER = 0.8
# Numbers held at a time.
_HELD = 2_000_000


def mean_interval(values: Array, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean of independent values, one a prompt.

    Student's t below `BOOTSTRAP_FROM` values and above `LARGE`, the symmetric studentised bootstrap between: with
    skewed differences the equal-tailed one, BCa and percentiles hold the true mean in 92 to 94 % at 30 prompts.

    Args:
        values: `(n,)`.
        seed: seeds the bootstrap.

    Returns:
        Low and high; NaN for fewer than two values.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    if not BOOTSTRAP_FROM <= n <= LARGE:
        half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
        return mean - half, mean + half
    rng = np.random.default_rng(seed)
    centred = values - mean
    # Of values of which only a few are odd, resamples without those are constant, but for rounding.
    tiny = 1e-6 * float(values.std())
    ratios = []
    batch = max(1, _HELD // n)
    for start in range(0, _DRAWS, batch):
        drawn = centred[rng.integers(0, n, (min(batch, _DRAWS - start), n))]
        deviation = drawn.std(axis=1, ddof=1)
        good = deviation > tiny
        ratios.append(drawn.mean(axis=1)[good] / deviation[good] * math.sqrt(n))
    found = np.concatenate(ratios)
    if len(found) < _USABLE * _DRAWS:
        factor = float(stats.t.ppf(1 - LEVEL / 2, n - 1))
    else:
        factor = float(np.quantile(np.abs(found), 1 - LEVEL))
    half = factor * error
    return mean - half, mean + half


def sign_flip_p(differences: Array, seed: int = 0) -> float:
    """Return the two-sided p of a mean difference of zero: under it each prompt's difference may have either sign.

    All sign patterns are looked at where they are few (up to 13 prompts), else 9,999 random ones, which is exact as
    well (the pattern that was seen counts among them). A p below .005 is found again from 199,999 patterns, so that a
    correction for hundreds of pairs still has digits to multiply; with more than 500 prompts such a small p, and above
    `LARGE` any, is Student's t.

    Args:
        differences: `(n,)`, one a prompt.
        seed: seeds the draw.
    """
    n = len(differences)
    if n == 0:
        return math.nan
    if np.ptp(differences) == 0 and differences[0] == 0:
        return 1.0
    if n > LARGE:
        return float(stats.ttest_1samp(differences, 0).pvalue)
    p = _flipped(differences, _FLIPS, seed)
    if p >= _SMALL or 2**n <= _FLIPS:
        return p
    return _flipped(differences, _MORE_FLIPS, seed) if n <= _FEW else float(stats.ttest_1samp(differences, 0).pvalue)


def _flipped(differences: Array, flips: int, seed: int) -> float:
    found = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=flips,
        batch=max(1, _HELD // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def least_p(n: int) -> float:
    """Return the smallest two-sided p that `n` prompts can give: each of 2**n sign patterns is equally likely."""
    return min(1.0, 2.0 ** (1 - n))


def least_prompts(pairs: int) -> int:
    """Return how many prompts it takes before p, corrected for so many pairs, can fall below 5 %."""
    return math.ceil(1 + math.log2(pairs / LEVEL))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the order given; NaN stays NaN and is not counted."""
    corrected = [math.nan] * len(ps)
    order = sorted((p, place) for place, p in enumerate(ps) if math.isfinite(p))
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[place] = highest
    return corrected


def prompts_to_detect(difference: float, deviation: float, level: float = LEVEL) -> int | None:
    """Return with how many prompts a difference of this size is found with 80 % power; None for no difference.

    Args:
        difference: of means.
        deviation: standard deviation of the differences over prompts.
        level: two-sided.
    """
    if difference == 0:
        return None
    z = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(_POWER))
    return max(2, math.ceil((z * deviation / difference) ** 2))


def prompts_to_bound(difference: float, deviation: float, margin: float) -> int | None:
    """Return with how many prompts the 95 % interval lies within a margin; None where the difference is not within it.

    Args:
        difference: of means, taken to stay as it is.
        deviation: standard deviation of the differences over prompts.
        margin: the largest difference that does not matter.
    """
    room = margin - abs(difference)
    if room <= 0:
        return None
    return max(2, math.ceil((float(stats.norm.ppf(1 - LEVEL / 2)) * deviation / room) ** 2))


def noise_floor(variances: Array, counts: Array) -> float:
    """Return the difference of two runs of one generator, over the same prompts with other seeds, that 95 % stay below.

    Args:
        variances: `(n,)` unbiased variance of the scores within each prompt; prompts of one picture are left out.
        counts: `(n,)` pictures of each prompt.

    Returns:
        In units of the score; NaN where no prompt has two pictures.
    """
    if not len(variances):
        return math.nan
    of_mean = float(np.sum(variances / counts)) / len(variances) ** 2
    return float(stats.norm.ppf(1 - LEVEL / 2)) * math.sqrt(2 * of_mean)
