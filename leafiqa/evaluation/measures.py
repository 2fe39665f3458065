"""How well scores agree with human opinion: SRCC, PLCC, KRCC, RMSE, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import kendalltau, rankdata

from leafiqa.errors import InputError

Array = NDArray[np.float64]
Interval = tuple[float, float]
_LEAST = 3
# Resampling fewer independent images, or groups of them, than this gives intervals that are too narrow, down to no
# width at all, and p values that mean nothing: none are given then.
LEAST_UNITS = 10


@dataclass(frozen=True)
class Agreement:
    """Agreement of one metric with human opinion.

    Attributes:
        n: number of images with both a score and a MOS.
        srcc: Spearman's rank correlation.
        srcc_interval: its 95 % interval, percentile bootstrap over images, or over groups of them; NaN, like all
            intervals, where there are fewer than `LEAST_UNITS` of these.
        plcc: Pearson's correlation of the raw scores, without any mapping.
        plcc_interval: its 95 % interval.
        plcc_mapped: Pearson's correlation after a four-parameter logistic that was fitted on these same images;
            flatters the metric, and is given because papers give it. NaN where the fit fails.
        krcc: Kendall's tau-b.
        krcc_interval: its 95 % interval.
        rmse: root mean square error of the raw scores, in units of MOS; says something only for calibrated scores.
        rmse_interval: its 95 % interval.
        rmse_mapped: the same after the logistic, fitted on these same images.
    """

    n: int
    srcc: float
    srcc_interval: Interval
    plcc: float
    plcc_interval: Interval
    plcc_mapped: float
    krcc: float
    krcc_interval: Interval
    rmse: float
    rmse_interval: Interval
    rmse_mapped: float

    def __str__(self) -> str:
        return (
            f"n={self.n}, SRCC {with_interval(self.srcc, self.srcc_interval)}, "
            f"PLCC {with_interval(self.plcc, self.plcc_interval)}, "
            f"KRCC {with_interval(self.krcc, self.krcc_interval)}, RMSE {self.rmse:.3g}"
        )


def with_interval(value: float, ends: Interval) -> str:
    """Return a figure with its interval, to three decimals; without one where there is none."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]" if math.isfinite(ends[0]) else f"{value:.3f}"


def no_interval(units: int, what: str) -> str | None:
    """Say why there is no interval, None if there are units enough for one.

    Args:
        units: independent images, or groups of them.
        what: what they are: "images", "groups of images".
    """
    if units >= LEAST_UNITS:
        return None
    return f"no intervals and no p: they take at least {LEAST_UNITS} independent {what}, and there are {units}"


def pearson(a: Array, b: Array, weights: Array | None = None) -> float:
    """Return Pearson's correlation of two vectors; NaN if one of them is constant.

    Args:
        a: `(n,)`.
        b: `(n,)`.
        weights: `(n,)` how many images each stands for; None means one.
    """
    w = np.ones(len(a)) if weights is None else weights
    a, b = a - np.average(a, weights=w), b - np.average(b, weights=w)
    # A constant vector leaves rounding dust, not zeros, after its mean is taken off.
    scale = np.sqrt((w * a * a).sum() * (w * b * b).sum())
    tiny = 1e-12 * max(1.0, float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return float((w * a * b).sum() / scale) if scale > tiny * tiny and np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")


def spearman(a: Array, b: Array, weights: Array | None = None) -> float:
    """Return Spearman's rank correlation of two vectors, ties at their mean rank; NaN if one is constant.

    With weights it is that of a population in which each image stands `weights` times.
    """
    if weights is None:
        return pearson(rankdata(a), rankdata(b))
    return pearson(_weighted_ranks(a, weights), _weighted_ranks(b, weights), weights)


def _weighted_ranks(values: Array, weights: Array) -> Array:
    different, member = np.unique(values, return_inverse=True)
    mass = np.bincount(member, weights, len(different))
    return (np.cumsum(mass) - mass / 2)[member]


def kendall(a: Array, b: Array, weights: Array | None = None) -> float:
    """Return Kendall's tau-b of two vectors; NaN if one is constant. A pair weighs the product of its two weights."""
    if weights is None:
        return float(kendalltau(a, b).statistic)
    of_a, of_b = (np.sign(values[:, None] - values[None, :]) for values in (a, b))
    pairs = weights[:, None] * weights[None, :]
    scale = np.sqrt((pairs * of_a**2).sum() * (pairs * of_b**2).sum())
    return float((pairs * of_a * of_b).sum() / scale) if scale > 0 else float("nan")


def root_mean_square(a: Array, b: Array, weights: Array | None = None) -> float:
    """Return the root mean square difference of two vectors."""
    return float(np.sqrt(np.average((a - b) ** 2, weights=weights)))


def logistic(scores: Array, high: float, low: float, middle: float, width: float) -> Array:
    """Return the four-parameter logistic of VQEG: `low` to `high`, halfway at `middle`."""
    return low + (high - low) / (1 + np.exp(-np.clip((scores - middle) / abs(width), -60, 60)))


def fit_logistic(scores: Array, mos: Array) -> Array | None:
    """Fit the four-parameter logistic by least squares and return the mapped scores, None if there is no fit."""
    spread = float(scores.std())
    if spread == 0 or len(scores) < 5:
        return None
    standard = (scores - scores.mean()) / spread
    sign = 1.0 if pearson(standard, mos) >= 0 else -1.0
    start = [mos.max(), mos.min(), 0.0, 1.0] if sign > 0 else [mos.min(), mos.max(), 0.0, 1.0]
    fitted = least_squares(
        lambda p: logistic(standard, *p) - mos,
        start,
        # A width of nearly nothing or of many spreads is a step or a line: no logistic.
        bounds=([-np.inf, -np.inf, -10.0, 1e-2], [np.inf, np.inf, 10.0, 1e2]),
        max_nfev=2000,
    )
    return logistic(standard, *fitted.x) if fitted.success else None


def bootstrap_rows(n: int, draws: int, seed: int, groups: Sequence[str] | None = None) -> list[NDArray[np.intp]]:
    """Return row numbers drawn with replacement, `draws` times; the same for the same arguments.

    Args:
        n: number of images.
        draws: how often to draw.
        seed: seeds it.
        groups: `n` names; images of one name, which are not independent, are drawn together, as many groups as there
            are. Draws then differ in length. None draws single images.
    """
    rng = np.random.default_rng(seed)
    if groups is None or len(set(groups)) == n:
        return list(rng.integers(0, n, (draws, n)))
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(member == number) for number in range(member.max() + 1)]
    return [np.concatenate([rows[i] for i in chosen]) for chosen in rng.integers(0, len(rows), (draws, len(rows)))]


def interval(values: Array) -> Interval:
    """Return the central 95 % of bootstrap values, leaving out undefined ones."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def checked(scores: Array, mos: Array) -> tuple[Array, Array]:
    """Return both as float64 vectors.

    Raises:
        InputError: different lengths, fewer than three images, or values that are no finite numbers.
    """
    scores, mos = np.asarray(scores, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != mos.shape:
        raise InputError(f"scores and mos must be vectors of one length, got {scores.shape} and {mos.shape}")
    if len(scores) < _LEAST:
        raise InputError(f"agreement needs at least {_LEAST} images, got {len(scores)}")
    for name, values in (("scores", scores), ("mos", mos)):
        if not np.isfinite(values).all():
            raise InputError(f"{name} must be finite, got {int((~np.isfinite(values)).sum())} NaN or infinite values")
    return scores, mos


def units_of(n: int, groups: Sequence[str] | None) -> int:
    """Return how many independent units `n` images are: the number of their groups, or all of them."""
    return n if groups is None else len(set(groups))


def agreement(
    scores: Array,
    mos: Array,
    *,
    draws: int = 2000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    weights: Array | None = None,
) -> Agreement:
    """Compare scores with MOS.

    Args:
        scores: `(n,)`, higher meaning better.
        mos: `(n,)` mean opinion scores, higher meaning better.
        draws: bootstrap samples for the intervals.
        seed: seeds them.
        groups: `n` names of what images have in common, such as a scene: the bootstrap draws whole groups, since
            images of one say less than as many independent ones. None draws images. Below `LEAST_UNITS` of what is
            drawn there are no intervals.
        weights: `(n,)` how many images each stands for, where some were chosen more readily than others; all measures
            are then those of the population that was chosen from. None means that all count alike.

    Returns:
        The agreement. Correlations with a constant vector are NaN.

    Raises:
        InputError: different lengths, fewer than three images, or values that are no finite numbers.
    """
    scores, mos = checked(scores, mos)
    if weights is not None and np.ptp(weights) == 0:
        weights = None
    enough = units_of(len(mos), groups) >= LEAST_UNITS
    rows = bootstrap_rows(len(mos), draws, seed, groups) if enough else []

    def of_draws(measure: Callable[[Array, Array, Array | None], float]) -> Interval:
        drawn = [measure(scores[r], mos[r], None if weights is None else weights[r]) for r in rows]
        return interval(np.array(drawn))

    mapped = fit_logistic(scores, mos)
    return Agreement(
        n=len(mos),
        srcc=spearman(scores, mos, weights),
        srcc_interval=of_draws(spearman),
        plcc=pearson(scores, mos, weights),
        plcc_interval=of_draws(pearson),
        plcc_mapped=float("nan") if mapped is None else pearson(mapped, mos),
        krcc=kendall(scores, mos, weights),
        krcc_interval=of_draws(kendall),
        rmse=root_mean_square(scores, mos, weights),
        rmse_interval=of_draws(root_mean_square),
        rmse_mapped=float("nan") if mapped is None else root_mean_square(mapped, mos),
    )


def srcc_difference(
    first: Array,
    second: Array,
    mos: Array,
    *,
    draws: int = 2000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Compare two metrics on the same images by a paired bootstrap.

    Args:
        first: `(n,)` scores of one metric.
        second: `(n,)` scores of the other.
        mos: `(n,)` mean opinion scores.
        draws: bootstrap samples.
        seed: seeds them.
        groups: as for `agreement`.

    Returns:
        `difference` in SRCC (first minus second), `low` and `high` of its 95 % interval, and `p`, two-sided: twice the
        share of samples, at least one in `draws + 1`, in which the difference has the other sign or none. The last
        three are NaN where fewer than `LEAST_UNITS` images, or groups, are drawn from.

    Raises:
        InputError: as for `agreement`.
    """
    first, mos = checked(first, mos)
    second, _ = checked(second, mos)
    apart = spearman(first, mos) - spearman(second, mos)
    if units_of(len(mos), groups) < LEAST_UNITS:
        return {"difference": apart, "low": math.nan, "high": math.nan, "p": math.nan}
    rows = bootstrap_rows(len(mos), draws, seed, groups)
    sampled = np.array([spearman(first[r], mos[r]) - spearman(second[r], mos[r]) for r in rows])
    sampled = sampled[np.isfinite(sampled)]
    low, high = interval(sampled)
    tail = min(int((sampled <= 0).sum()), int((sampled >= 0).sum()))
    return {
        "difference": apart,
        "low": low,
        "high": high,
        "p": min(1.0, 2 * (tail + 1) / (len(sampled) + 1)),
    }
