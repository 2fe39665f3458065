"""Which picture to ask about next: the one whose rating teaches the calibration most; which two to compare.

A calibration is a curve over the student's score plus corrections along what the student sees. Before an answer both
are uncertain; a picture's rating makes the predictions of all pictures more certain, and the next picture is the one
for which that gain, summed over all candidates, is largest (a Gaussian process; the sum of variances removed). How far
the student is off, hence how much corrections matter against the curve, is learned from the answers so far.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from leafiqa.rating.rater_model import PanelEstimate

Array = NDArray[np.float64]

# Corrections as a share of the spread of qualities that are tried; noise of one rating, in levels.
_SHARES = (0.0, 0.1, 0.2, 0.4, 0.8)
_NOISE = 0.7
# Beyond this many candidates a random part of them stands for all.
_MOST = 1500
# Pairs that are looked at for the next comparison.
_PAIRS = 2000


class Teaching:
    """Chooses pictures to rate.

    Args:
        logits: `(n,)` the student's logits of the candidates.
        points: `(n, k)` what the student sees, scaled so that distances tell how differently pictures look.
        seed: seeds the part that stands for many candidates.
    """

    def __init__(self, logits: Array, points: Array, seed: int = 0) -> None:
        n = len(logits)
        spread = float(logits.std()) or 1.0
        self._score = (logits - logits.mean()) / spread
        self._points = points
        rng = np.random.default_rng(seed)
        self._all = np.sort(rng.choice(n, _MOST, replace=False)) if n > _MOST else np.arange(n)
        part = points[self._all]
        square = ((part[:, None] - part[None]) ** 2).sum(2) if len(part) < 400 else _squares(part, part)
        self._scale = float(np.median(square[square > 1e-12])) if (square > 1e-12).any() else 1.0

    def _kernel(self, a: NDArray[np.intp], b: NDArray[np.intp], share: float) -> Array:
        """Return the prior covariance of the qualities of two sets of pictures, in squared levels."""
        one, two = self._score[a], self._score[b]
        curve = 1.0 + np.outer(one, two) + 0.05 * np.outer(one**2 - 1, two**2 - 1)
        if share == 0:
            return curve
        return curve + share * np.exp(-_squares(self._points[a], self._points[b]) / self._scale)

    def share(self, rated: NDArray[np.intp], mos: Array, error: Array) -> float:
        """Return how much corrections matter, by the likelihood of the answers so far."""
        if len(rated) < 8:
            return _SHARES[2]
        centred = mos - mos.mean()
        best = (-math.inf, _SHARES[2])
        for share in _SHARES:
            covariance = self._kernel(rated, rated, share) + np.diag(error**2 + 0.05)
            factor = cho_factor(covariance)
            likelihood = -0.5 * centred @ cho_solve(factor, centred) - np.log(np.diag(factor[0])).sum()
            best = max(best, (float(likelihood), share))
        return best[1]

    def next(self, rated: Sequence[int], mos: Array, error: Array, allowed: Collection[int]) -> int | None:
        """Return the candidate to rate next, None if none is allowed.

        Args:
            rated: candidates that have ratings.
            mos: their qualities so far, in levels.
            error: their standard errors.
            allowed: candidates that may be chosen.
        """
        choices = np.array(sorted(allowed), dtype=np.intp)
        if not len(choices):
            return None
        known = np.array(rated, dtype=np.intp)
        share = self.share(known, mos, error)
        gain_over = self._all
        across = self._kernel(gain_over, choices, share)
        own = np.einsum("ii->i", self._kernel(choices, choices, share)).copy()
        if len(known):
            factor = cho_factor(self._kernel(known, known, share) + np.diag(error**2 + 1e-3))
            to_choices, to_all = self._kernel(known, choices, share), self._kernel(known, gain_over, share)
            solved = cho_solve(factor, to_choices)
            across = across - to_all.T @ solved
            own = own - (to_choices * solved).sum(0)
        gain = (across**2).sum(0) / (own + _NOISE**2)
        return int(choices[int(np.argmax(gain))])


def _squares(a: Array, b: Array) -> Array:
    """Return the squared distances of two sets of points."""
    found: Array = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)
    return found


def next_pair(
    panel: PanelEstimate, asked: Collection[frozenset[str]], rng: np.random.Generator
) -> tuple[str, str] | None:
    """Return the two pictures whose comparison says most: of alike quality as far as one knows, and not known well.

    The expected information of a comparison is about `p (1 - p)` times the variance of the difference, over the step
    squared.

    Args:
        panel: what is known so far.
        asked: pairs that are not to be asked again.
        rng: picks the pairs that are looked at, and which of the two comes first.

    Returns:
        Two names in random order; None if there is no pair left.
    """
    n = len(panel.images)
    if n < 2:
        return None
    if n * (n - 1) // 2 <= _PAIRS:
        first, second = np.triu_indices(n, 1)
        turned = rng.random(len(first)) < 0.5  # which of the two comes first
        first, second = np.where(turned, second, first), np.where(turned, first, second)
    else:
        first, second = rng.integers(0, n, _PAIRS), rng.integers(0, n, _PAIRS)
    gap = (panel.quality[first] - panel.quality[second]) / panel.step
    variance = panel.error[first] ** 2 + panel.error[second] ** 2
    if panel.covariance is not None:
        variance = variance - 2 * panel.covariance[first, second]
    chance = 1 / (1 + np.exp(-np.clip(gap / np.sqrt(1 + math.pi / 8 * variance / panel.step**2), -50, 50)))
    worth = np.where(first != second, chance * (1 - chance) * variance, -1.0)
    for place in np.argsort(-worth):
        names = panel.images[first[place]], panel.images[second[place]]
        if worth[place] < 0:
            return None
        if frozenset(names) not in asked:
            return names
    return None
