"""Whether several metrics say the same of the generators, so that one that stands alone is noticed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from leafiqa.evaluation.measures import kendall, spearman
from leafiqa.generators.comparing import MetricResult

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MetricAgreement:
    """Two metrics on the same pictures.

    Attributes:
        first: one metric.
        second: the other.
        srcc: of their scores over the pictures that both scored; NaN where one is constant.
        tau: Kendall's, of the generators' means; NaN below three generators.
        same: pairs of generators of which both say that the same one is better.
        opposed: pairs of which they say the opposite.
    """

    first: str
    second: str
    srcc: float
    tau: float
    same: int
    opposed: int


def agreements(results: Sequence[MetricResult], scores: Mapping[str, Array]) -> list[MetricAgreement]:
    """Compare each two metrics.

    Args:
        results: what each metric says of the generators.
        scores: `(n,)` by metric, of the same pictures, NaN where there is none.
    """
    found = []
    for one, other in combinations(results, 2):
        a, b = scores[one.metric], scores[other.metric]
        both = np.isfinite(a) & np.isfinite(b)
        srcc = spearman(a[both], b[both]) if both.sum() > 2 else math.nan
        means = {g.name: g.mean for g in other.generators if math.isfinite(g.mean)}
        shared = [(g.mean, means[g.name]) for g in one.generators if math.isfinite(g.mean) and g.name in means]
        columns = np.array(shared, dtype=np.float64)
        tau = kendall(columns[:, 0], columns[:, 1]) if len(shared) > 2 else math.nan
        same, opposed = _verdicts(one, other)
        found.append(MetricAgreement(one.metric, other.metric, srcc, tau, same, opposed))
    return found


def _verdicts(one: MetricResult, other: MetricResult) -> tuple[int, int]:
    same = opposed = 0
    for pair in one.pairs:
        again = other.pair(pair.first, pair.second)
        if again is None or pair.better is None or again.better is None:
            continue
        same, opposed = same + (pair.better == again.better), opposed + (pair.better != again.better)
    return same, opposed


def standing_alone(found: Sequence[MetricAgreement]) -> list[str]:
    """Return remarks on metrics that contradict others, or agree with them far less than those do among themselves."""
    remarks = [
        f"{of.first} and {of.second} call opposite generators better in {of.opposed} pair(s): trust neither blindly"
        for of in found
        if of.opposed
    ]
    metrics = list(dict.fromkeys(name for of in found for name in (of.first, of.second)))
    for metric in metrics if len(metrics) > 2 else []:
        own = [of.srcc for of in found if metric in (of.first, of.second) and math.isfinite(of.srcc)]
        others = [of.srcc for of in found if metric not in (of.first, of.second) and math.isfinite(of.srcc)]
        if own and others and np.mean(own) < np.mean(others) / 2:
            remarks.append(
                f"{metric} stands alone: its mean SRCC with the other metrics is {np.mean(own):.2f}, theirs among "
                f"themselves {np.mean(others):.2f}"
            )
    return remarks
