"""What is known so far: how well the calibrated student will agree with people, and whether more ratings help."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leafiqa.calibration.calibrator import LEAST_LABELS, label_weights
from leafiqa.calibration.cross_validation import Labels, choose, expected, held_out_agreement
from leafiqa.calibration.features import Extracted
from leafiqa.rating.answers import HIGH, LOW
from leafiqa.tables import without_nan

Array = NDArray[np.float64]

# Parts of the student's scale in which rated pictures stand for all.
_STRATA = 5
# Fewer labels than this cannot be divided into halves that are learned from.
_CURVE_LEAST = 20
_SPLITS = 12
# Less than this off the error by half as many ratings again hardly helps.
_HARDLY = 0.02


@dataclass(frozen=True)
class Knowledge:
    """What the ratings so far come to.

    Attributes:
        labels: rated pictures.
        srcc: expected of the calibrated student on all candidates; NaN below `LEAST_LABELS`.
        interval: its 95 % interval; NaN below ten.
        rmse: expected, in levels.
        gain: by how much the expected error fell with the last ten ratings, as a share of it; NaN where not known.
        hardly: whether half as many ratings again would hardly help.
        more: about how many more ratings would bring the interval to plus or minus `aim`; None where it is there.
        aim: half the width that `more` is about.
        words: all that in a sentence.
    """

    labels: int
    srcc: float
    interval: tuple[float, float]
    rmse: float
    gain: float
    hardly: bool
    more: int | None
    aim: float
    words: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON; undefined numbers are None."""
        found: dict[str, Any] = without_nan(asdict(self))
        return found


def stands_for(logits: Array, rated: NDArray[np.intp]) -> Array:
    """Return how many candidates each rated picture stands for: those of its fifth of the student's scale.

    Ratings are asked for where they teach most, not evenly; what is measured on them must be weighted to hold for all.

    Args:
        logits: `(n,)` of all candidates.
        rated: `(m,)` which of them have ratings.
    """
    edges = np.quantile(logits, np.linspace(0, 1, _STRATA + 1)[1:-1])
    part = np.searchsorted(edges, logits)
    rated_part = part[rated]
    candidates = np.bincount(part, minlength=_STRATA).astype(np.float64)
    labels = np.bincount(rated_part, minlength=_STRATA)
    # Candidates of a part in which nothing is rated count for the nearest part with a rating.
    filled = np.flatnonzero(labels)
    for empty in np.flatnonzero(labels == 0):
        candidates[filled[np.argmin(np.abs(filled - empty))]] += candidates[empty]
    weights: Array = candidates[rated_part] / labels[rated_part]
    return weights


def labels_of(extracted: Extracted, rows: NDArray[np.intp], mos: Array, errors: Sequence[float]) -> Labels:
    """Return rated pictures as a calibration sees them.

    Args:
        extracted: the student's view of the candidates.
        rows: `(m,)` which of them are rated.
        mos: `(m,)` on the scale 1 to 5.
        errors: `(m,)` standard errors.
    """
    targets = (np.clip(mos, LOW, HIGH) - LOW) / (HIGH - LOW)
    groups = np.array([f"image {row}" for row in rows])
    return Labels(extracted.logits[rows], extracted.features[rows], targets, label_weights(list(errors)), groups)


def what_is_known(
    extracted: Extracted, rows: NDArray[np.intp], mos: Array, errors: Sequence[float], *, aim: float = 0.05
) -> Knowledge:
    """Return what the ratings so far come to.

    Args:
        extracted: the student's view of the candidates.
        rows: `(m,)` which of them are rated, in the order of their first ratings.
        mos: `(m,)` their quality on the scale 1 to 5.
        errors: `(m,)` standard errors.
        aim: half the width of the interval that one would like.
    """
    nan = math.nan
    if len(rows) < LEAST_LABELS or len(np.unique(mos.round(3))) < 3:
        lacking = LEAST_LABELS - len(rows)
        words = f"{lacking} more pictures until something can be said"
        if lacking <= 0:
            words = "the ratings hold fewer than three levels: nothing can be said"
        return Knowledge(len(rows), nan, (nan, nan), nan, nan, False, None, aim, words)
    labels = labels_of(extracted, rows, mos, errors)
    weights = stands_for(extracted.logits, rows)
    found = held_out_agreement(expected(labels), labels, (LOW, HIGH), weights=weights)
    low, high = found.srcc_interval
    noise = float(np.mean((np.asarray(errors) / (HIGH - LOW)) ** 2))
    now, before, later = _errors(labels, weights, noise)
    gain = (before - now) / before if math.isfinite(before) and before > 0 else nan
    hardly = math.isfinite(later) and now > 0 and (now - later) / now < _HARDLY
    half = (high - low) / 2
    more = None
    if math.isfinite(half) and half > aim:
        more = math.ceil(len(rows) * ((half / aim) ** 2 - 1))
    return Knowledge(
        len(rows), found.srcc, (low, high), found.rmse, gain, hardly, more, aim, _words(hardly, more, aim, later)
    )


def _words(hardly: bool, more: int | None, aim: float, later: float) -> str:
    if not math.isfinite(later):
        return "too few pictures yet to say whether more would help"
    told = "more ratings will hardly make the metric better" if hardly else "more ratings still make the metric better"
    if more is None:
        return f"{told}; its agreement is known to ±{aim:g}"
    return f"{told}; about {more} more pictures would tell its agreement to ±{aim:g}"


def _errors(labels: Labels, weights: Array, noise: float, seed: int = 0) -> tuple[float, float, float]:
    """Return the held-out error at this number of labels, at ten fewer, and at half as many again.

    The squared error is measured with half and with four fifths of the labels learned from, in random splits, and
    follows `a + b / labels`. NaN below twenty labels.

    Args:
        labels: rated pictures.
        weights: `(m,)` how many candidates each stands for.
        noise: mean square of the labels' own errors, which are none of the student's and are taken off.
        seed: of the splits.
    """
    n = len(labels)
    if n < _CURVE_LEAST:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(seed)
    sizes = (n // 2, round(0.8 * n))
    errors = []
    for size in sizes:
        squares = []
        for _ in range(_SPLITS):
            learned = np.zeros(n, dtype=bool)
            learned[rng.permutation(n)[:size]] = True
            part, rest = labels.part(learned), labels.part(~learned)
            predicted = choose(part).fit(part).predict(rest.logits, rest.features)
            squares.append(np.average((predicted - rest.targets) ** 2, weights=weights[~learned]))
        errors.append(float(np.mean(squares)))
    slope = max(0.0, (errors[0] - errors[1]) / (1 / sizes[0] - 1 / sizes[1]))
    floor = errors[1] - slope / sizes[1]

    def at(count: float) -> float:
        return math.sqrt(max(floor + slope / count - noise, 1e-4))

    return at(n), at(max(5, n - 10)), at(1.5 * n)
