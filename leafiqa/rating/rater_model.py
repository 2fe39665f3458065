"""Quality of pictures out of ratings and comparisons by several people, each with a bias and an inconsistency.

A rating is the picture's quality plus the rater's bias plus noise as large as the rater is inconsistent (arXiv
2004.02067, the model of SUREAL); a comparison is won with the probability that Bradley and Terry's model gives the
difference in quality, so that both are on one scale. Qualities have a normal prior whose mean and spread are learned,
and the uncertainty of qualities enters the raters' inconsistency: without it, the likelihood has no maximum where
panels are small (a rater is then believed without end). Expectation-maximisation; with comparisons, whose posterior is
not normal, Laplace's approximation of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from leafiqa.rating.answers import HIGH, LOW, Answer

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# What is believed of a rater before any answer: inconsistent by .7 of a level, as if seen on this many ratings; and
# the standard deviation of biases.
_USUAL_NOISE, _NOISE_COUNTS, _BIAS = 0.7, 4.0, 0.5
# Levels of difference at which three of four people prefer the better picture, where nothing tells it.
_USUAL_STEP = 0.5
_ROUNDS, _CLOSE = 200, 1e-5


@dataclass(frozen=True)
class RaterEstimate:
    """One rater as the model sees them.

    Attributes:
        name: the rater.
        ratings: how many ratings of theirs count.
        bias: how much higher than others they rate, in levels.
        inconsistency: standard deviation of their ratings around quality plus bias, in levels.
    """

    name: str
    ratings: int
    bias: float
    inconsistency: float


@dataclass(frozen=True)
class PanelEstimate:
    """Qualities and raters.

    Attributes:
        images: names, in the order of the arrays.
        quality: `(n,)` on the scale of the ratings.
        error: `(n,)` standard errors.
        raters: one each.
        spread: standard deviation of the qualities.
        step: difference in quality that wins a comparison with the probability `sigmoid(1)`, .73.
        covariance: `(n, n)` of the qualities where comparisons bind them, else None: they are independent.
    """

    images: list[str]
    quality: Array
    error: Array
    raters: list[RaterEstimate]
    spread: float
    step: float
    covariance: Array | None = field(default=None, repr=False)


@dataclass
class _Data:
    image: Index
    rater: Index
    value: Array
    first: Index
    second: Index
    won: Array


def estimate(
    images: Sequence[str],
    ratings: Sequence[Answer],
    comparisons: Sequence[Answer] = (),
    *,
    prior: Array | None = None,
) -> PanelEstimate:
    """Estimate qualities and raters.

    Args:
        images: pictures to estimate; answers about others are left out.
        ratings: answers of the kind "rating".
        comparisons: answers of the kind "comparison".
        prior: `(n,)` what is believed of each picture beforehand, on the scale of the ratings; None means that all
            pictures are alike beforehand.
    """
    place = {image: number for number, image in enumerate(images)}
    used = [answer for answer in ratings if answer.image in place]
    pairs = [answer for answer in comparisons if answer.image in place and answer.other in place]
    names = list(dict.fromkeys(answer.rater for answer in used))
    number = {name: index for index, name in enumerate(names)}
    data = _Data(
        np.array([place[answer.image] for answer in used], dtype=np.intp),
        np.array([number[answer.rater] for answer in used], dtype=np.intp),
        np.array([answer.score for answer in used], dtype=np.float64),
        np.array([place[answer.image] for answer in pairs], dtype=np.intp),
        np.array([place[answer.other] for answer in pairs], dtype=np.intp),
        np.array([{"first": 1.0, "second": 0.0, "tie": 0.5}[answer.value] for answer in pairs], dtype=np.float64),
    )
    return _fit(list(images), names, data, prior)


def _fit(images: list[str], names: list[str], data: _Data, prior: Array | None) -> PanelEstimate:
    n, raters = len(images), len(names)
    counts = np.bincount(data.rater, minlength=raters).astype(np.float64)
    centre = np.full(n, (LOW + HIGH) / 2) if prior is None else prior.astype(np.float64)
    if len(data.value):
        centre = centre + (data.value.mean() - centre[data.image].mean())
    bias, noise = np.zeros(raters), np.full(raters, _USUAL_NOISE**2)
    spread, step = 1.0, _USUAL_STEP
    quality = centre.copy()
    variance = np.full(n, spread)
    covariance: Array | None = None
    for _ in range(_ROUNDS):
        before = quality
        quality, variance, covariance = _qualities(data, centre, spread, bias, noise, step, quality)
        if len(data.value):
            away = data.value - quality[data.image]
            bias = np.bincount(data.rater, away, raters) / (counts + noise / _BIAS**2)
            # Biases add up to nothing: what all raters share is no bias.
            bias = bias - bias.mean()
            square = (away - bias[data.rater]) ** 2 + variance[data.image]
            total = np.bincount(data.rater, square, raters) + _NOISE_COUNTS * _USUAL_NOISE**2
            noise = total / (counts + _NOISE_COUNTS)
        seen = np.unique(np.concatenate([data.image, data.first, data.second]))
        if len(seen) > 2:
            if prior is None and len(data.value):
                centre = np.full(n, quality[seen].mean())
            # As if four pictures of the usual spread had been seen before: a few answers do not make it vanish.
            apart = float(((quality[seen] - centre[seen]) ** 2 + variance[seen]).sum())
            spread = (apart + 4.0) / (len(seen) + 4.0)
        if len(data.won) and len(data.value):
            # From the ratings alone: qualities that were drawn to the comparisons would explain them too well.
            alone = replace(data, first=data.first[:0], second=data.second[:0], won=data.won[:0])
            by_ratings, uncertain, _ = _qualities(alone, centre, spread, bias, noise, step, quality)
            step = _step(data, by_ratings, uncertain)
        if np.abs(quality - before).max(initial=0) < _CLOSE:
            break
    estimates = [
        RaterEstimate(name, int(count), float(b), float(math.sqrt(v)))
        for name, count, b, v in zip(names, counts, bias, noise)
    ]
    return PanelEstimate(images, quality, np.sqrt(variance), estimates, math.sqrt(spread), step, covariance)


def _qualities(
    data: _Data, centre: Array, spread: float, bias: Array, noise: Array, step: float, start: Array
) -> tuple[Array, Array, Array | None]:
    """Return the most probable qualities, their variances, and their covariance where comparisons bind them."""
    n = len(centre)
    precision = np.full(n, 1 / spread)
    pull = centre / spread
    if len(data.value):
        weight = 1 / noise[data.rater]
        precision = precision + np.bincount(data.image, weight, n)
        pull = pull + np.bincount(data.image, weight * (data.value - bias[data.rater]), n)
    if not len(data.won):
        return pull / precision, 1 / precision, None
    quality = start
    covariance = np.diag(1 / precision)
    for _ in range(30):  # Newton's method: the posterior has one maximum
        chance = expit((quality[data.first] - quality[data.second]) / step)
        slope = pull - precision * quality
        np.add.at(slope, data.first, (data.won - chance) / step)
        np.subtract.at(slope, data.second, (data.won - chance) / step)
        bend = chance * (1 - chance) / step**2
        information = np.diag(precision)
        np.add.at(information, (data.first, data.first), bend)
        np.add.at(information, (data.second, data.second), bend)
        np.subtract.at(information, (data.first, data.second), bend)
        np.subtract.at(information, (data.second, data.first), bend)
        covariance = np.linalg.inv(information)
        move = covariance @ slope
        quality = quality + np.clip(move, -1, 1)
        if np.abs(move).max() < _CLOSE:
            break
    return quality, np.diag(covariance).copy(), covariance


def _step(data: _Data, quality: Array, variance: Array) -> float:
    """Return the step that explains the comparisons best, with a prior at the usual one."""
    gap = quality[data.first] - quality[data.second]
    uncertain = variance[data.first] + variance[data.second]

    def cost(log_step: float) -> float:
        step = math.exp(log_step)
        # A difference that is itself uncertain predicts less.
        odds = gap / np.sqrt(step**2 + math.pi / 8 * uncertain)
        loss = np.logaddexp(0, odds) - data.won * odds
        return float(loss.sum() + 0.5 * ((log_step - math.log(_USUAL_STEP)) / 0.5) ** 2)

    found = minimize_scalar(cost, bounds=(math.log(0.05), math.log(5.0)), method="bounded")
    return math.exp(float(found.x))
