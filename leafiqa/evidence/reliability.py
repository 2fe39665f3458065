"""How far each judgment can be trusted, computed from the evidence alone. The definitions are ours.

Points. A single judgment's reliability is its stated confidence, or for levels `mass * (1 - entropy)`, else 1. An image
judged several times by a teacher gets the mean of its judgments' reliabilities, shrunk by how much their scores differ:
one mind that contradicts itself is unsure.

Ratings by people differ without anybody being unsure, and their mean is the better the more people rated: its
reliability is `1 / (1 + (e / 0.15)^2)` with `e` its standard error, from the ratings' standard deviation (that of the
image, drawn towards that of all images as four ratings would) over the square root of their number.

Pairs. All judgments of the same two images, in either order, become one preference `p`, the mean over the two orders,
so that a liking for the first place cancels out. Its reliability is the product of

* decisiveness, `|2 p - 1|`;
* order consistency, `1 - |p(a over b, a shown first) - p(a over b, b shown first)|`; where only one order was asked,
  the teacher's mean over the pairs asked in both (1 if there are none);
* agreement with the points, where both images have one: `1 - |p - Phi(gap / (sqrt(2) sigma))|`;
* the probability that fell on the words asked for, where it was recorded;
* freedom from cycles: `1 - cyclic / all` of the triangles that the pair is a side of;
* for pairs out of rankings, how well the view's rankings agree with the scores given in that view, `(1 + tau) / 2`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau

from leafiqa.evidence.files import Evidence
from leafiqa.evidence.records import Pair, Point

# Repeated scores that differ by this much of the scale halve an image's reliability.
_REPEAT_SPREAD = 0.15
# Standard deviation between people's ratings of one image, as a share of the scale, where nothing tells it; and how
# many ratings the standard deviation over all images is worth beside an image's own.
_RATERS_APART = 0.2
_PRIOR_RATINGS = 4
# Standard deviation of one point-wise judgment.
SIGMA = 0.1


@dataclass(frozen=True)
class Target:
    """What a teacher holds of one image: `score` and `reliability`, both in [0, 1]."""

    score: float
    reliability: float


@dataclass(frozen=True)
class Preference:
    """What a teacher holds of two images.

    Attributes:
        first: one image; the smaller name.
        second: the other one.
        preference: probability that the first is the better.
        reliability: in [0, 1].
    """

    first: str
    second: str
    preference: float
    reliability: float


def of_point(point: Point) -> float:
    """Return the reliability of one point-wise judgment, in [0, 1]."""
    if point.mass is not None and point.entropy is not None:
        return point.mass * (1 - point.entropy)
    return 1.0 if point.confidence is None else point.confidence


def target(points: Sequence[Point], raters_apart: float = _RATERS_APART) -> Target:
    """Put an image's judgments together: their mean weighted by reliability.

    Args:
        points: the judgments, at least one.
        raters_apart: the usual standard deviation between people's ratings of one image; see `rater_deviation`.
    """
    rated = [point for point in points if point.rater is not None]
    if rated and len(rated) == len(points):
        return _of_ratings(rated, raters_apart)
    weights = [of_point(point) for point in points]
    scores = [point.score for point in points]
    total = sum(weights)
    if total == 0:
        return Target(sum(scores) / len(scores), 0.0)
    mean = sum(w * s for w, s in zip(weights, scores)) / total
    spread = math.sqrt(sum(w * (s - mean) ** 2 for w, s in zip(weights, scores)) / total)
    return Target(mean, total / len(weights) / (1 + (spread / _REPEAT_SPREAD) ** 2))


def _of_ratings(points: Sequence[Point], raters_apart: float) -> Target:
    """Put people's ratings together: the mean over raters, as reliable as its standard error is small."""
    by_rater: dict[str | None, list[float]] = defaultdict(list)
    for point in points:
        by_rater[point.rater].append(point.score)
    scores = [sum(ratings) / len(ratings) for ratings in by_rater.values()]
    count, mean = len(scores), sum(scores) / len(scores)
    squares = sum((score - mean) ** 2 for score in scores)
    variance = (_PRIOR_RATINGS * raters_apart**2 + squares) / (_PRIOR_RATINGS + count - 1)
    return Target(mean, 1 / (1 + variance / count / _REPEAT_SPREAD**2))


def rater_deviation(evidence: Evidence) -> float:
    """Return the standard deviation between people's ratings of one image, pooled over all images."""
    squares, free = _PRIOR_RATINGS * _RATERS_APART**2, float(_PRIOR_RATINGS)
    for points in evidence.points.values():
        scores = [point.score for point in points if point.rater is not None]
        if len(scores) > 1:
            mean = sum(scores) / len(scores)
            squares += sum((score - mean) ** 2 for score in scores)
            free += len(scores) - 1
    return math.sqrt(squares / free)


def targets(evidence: Evidence) -> dict[str, Target]:
    """Return each image's target, for images with point-wise judgments."""
    apart = rater_deviation(evidence)
    return {image: target(points, apart) for image, points in evidence.points.items() if points}


def severities(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Return for each image that was judged for defects their severities in [0, 3], means weighted by reliability.

    Of several judgments those count that were asked for the defect; judgments of no reliability do not.
    """
    found = {}
    for image, points in evidence.points.items():
        sums: dict[str, tuple[float, float]] = {}
        for point in points:
            weight = of_point(point)
            for name, severity in (point.defects or {}).items():
                total, weights = sums.get(name, (0.0, 0.0))
                sums[name] = (total + weight * severity, weights + weight)
        if known := {name: total / weights for name, (total, weights) in sums.items() if weights > 0}:
            found[image] = known
    return found


def order_consistency(pairs: Sequence[Pair]) -> tuple[dict[tuple[str, str], float], float | None]:
    """Return the order consistency of the directly compared pairs that were asked in both orders, and its mean."""
    asked: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for pair in pairs:
        if not pair.ranked:
            swapped = pair.second < pair.first
            key = (pair.second, pair.first) if swapped else (pair.first, pair.second)
            asked[key][swapped].append(1 - pair.preference if swapped else pair.preference)
    found = {
        key: 1 - abs(sum(straight) / len(straight) - sum(swapped) / len(swapped))
        for key, (straight, swapped) in asked.items()
        if straight and swapped
    }
    return found, (sum(found.values()) / len(found) if found else None)


def view_agreement(evidence: Evidence) -> dict[str, float]:
    """Return for each view with rankings and scores `(1 + tau) / 2` between them, ties counting as agreement.

    A view's ranking is compared with the scores given in that same view, which share its context; where an image has
    none there, with its score by all judgments of it.
    """
    known = targets(evidence)
    within: dict[tuple[str | None, str], list[Point]] = defaultdict(list)
    for name, points in evidence.points.items():
        for point in points:
            within[point.view, name].append(point)

    def score(view: str, name: str) -> float:
        return target(within[view, name]).score if (view, name) in within else known[name].score

    gaps: dict[str, list[float]] = defaultdict(list)
    for pair in evidence.pairs:
        if pair.ranked and pair.view is not None and pair.first in known and pair.second in known:
            gaps[pair.view].append(score(pair.view, pair.first) - score(pair.view, pair.second))
    return {view: sum(gap >= 0 for gap in of) / len(of) for view, of in gaps.items()}


def preferences(evidence: Evidence) -> list[Preference]:
    """Put all judgments of the same two images together, with their reliability."""
    consistency, usual = order_consistency(evidence.pairs)
    known, views = targets(evidence), view_agreement(evidence)
    by_pair: dict[tuple[str, str], tuple[list[float], list[float], list[float]]] = defaultdict(lambda: ([], [], []))
    for pair in evidence.pairs:
        swapped = pair.second < pair.first
        key = (pair.second, pair.first) if swapped else (pair.first, pair.second)
        straight, turned, trust = by_pair[key]
        (turned if swapped else straight).append(1 - pair.preference if swapped else pair.preference)
        in_both = consistency.get(key, 1.0 if usual is None else usual)
        trust.append(views.get(pair.view or "", 1.0) if pair.ranked else pair.mass * in_both)
    mean = {
        key: sum(sum(order) / len(order) for order in (straight, turned) if order) / (bool(straight) + bool(turned))
        for key, (straight, turned, _) in by_pair.items()
    }
    acyclic = cycle_freedom(mean)
    result = []
    for key, (_, _, trust) in by_pair.items():
        p = mean[key]
        reliability = abs(2 * p - 1) * acyclic[key] * sum(trust) / len(trust)
        if key[0] in known and key[1] in known:
            gap = known[key[0]].score - known[key[1]].score
            reliability *= 1 - abs(p - 0.5 * math.erfc(-gap / (2 * SIGMA)))
        result.append(Preference(*key, p, reliability))
    return result


def cycle_freedom(mean: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Return for each pair the share of the triangles through it that are no cycle; 1 where there are none."""
    beats: dict[str, set[str]] = defaultdict(set)
    loses: dict[str, set[str]] = defaultdict(set)
    for (a, b), p in mean.items():
        better, worse = (a, b) if p >= 0.5 else (b, a)
        beats[better].add(worse)
        loses[worse].add(better)
    result = {}
    for (a, b), p in mean.items():
        better, worse = (a, b) if p >= 0.5 else (b, a)
        # A cycle goes better > worse > third > better.
        cyclic = len(beats[worse] & loses[better])
        around = len((beats[worse] | loses[worse]) & (beats[better] | loses[better]))
        result[(a, b)] = 1 - cyclic / around if around else 1.0
    return result


def repeat_correlation(evidence: Evidence) -> float:
    """Return Kendall's tau between the first and the last judgment of images judged more than once; NaN below three."""
    twice = [points for points in evidence.points.values() if len(points) > 1]
    if len(twice) < 3:
        return float("nan")
    return float(kendalltau([p[0].score for p in twice], [p[-1].score for p in twice]).statistic)
