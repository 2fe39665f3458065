"""The rung `head` with a teacher's evidence: a function of the features learns given and lent human scores.

A few labels tell a function of hundreds of features little. What they and the teacher's evidence lend the images that
nobody rated (`leafiqa.calibration.teacher_labels`) steadies it, in seconds, without any training of the network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leafiqa.calibration.cross_validation import HEAD_LEAST, Choice, HeldOut, Labels, clearly_better, held_out_by
from leafiqa.calibration.fit import Fit
from leafiqa.calibration.teacher_labels import Judged, lend

# Of five ridges the best or nearly so at every number of labels on both sets of `benchmarks/lent.py`: there are many
# lent scores, so the number of labels hardly matters.
LENT_HEAD = Choice("head", 0.15)
# How many standard errors better the labels alone must do, which is where a teacher knows nothing of what people see.
# Closer decisions are accidents of the draw (`benchmarks/lent.py`).
_LENT_BIAS = 2.0


def fit_lent(labels: Labels, judged: Judged, rungs: tuple[str, ...], seed: int) -> Fit:
    """Fit the head to given and lent scores.

    Args:
        labels: the labelled images.
        judged: the images that the teacher judged and nobody rated.
        rungs: what may be fitted to lend scores, as for `choose`.
        seed: seeds the cross-validation.

    Raises:
        CalibrationError: hardly any of the labelled images has evidence.
    """
    return LENT_HEAD.fit(lend(labels, judged, rungs, seed))


def try_lent(
    labels: Labels, judged: Judged, rungs: tuple[str, ...], seed: int, simple: HeldOut
) -> tuple[Fit | None, HeldOut]:
    """Return the fit to given and lent scores, None if the labels alone do better, and what is held out of the choice.

    Images of the held-out labels are not learned from in any form. The labels alone must have a held-out error that is
    smaller by more than two standard errors: for images like the labelled ones the two are often as good, and for
    others, which cross-validation does not see, lent scores are better.

    Args:
        labels: the labelled images.
        judged: the images that the teacher judged and nobody rated.
        rungs: what may be fitted; without the head nothing is tried, nor with too few labels or no other image.
        seed: seeds the cross-validation, and deals the folds that `simple` is of.
        simple: what is held out of a fit to the labels alone, by `expected`.

    Raises:
        CalibrationError: hardly any of the labelled images has evidence.
    """
    if "head" not in rungs or len(labels) < HEAD_LEAST or not len(judged.scores):
        return None, simple

    def fitted(kept: NDArray[np.bool_]) -> Fit:
        return fit_lent(labels.part(kept), judged.part(kept), rungs, seed)

    held_out = held_out_by(fitted, labels, seed)
    errors, alone = labels.errors(held_out.predictions), labels.errors(simple.predictions)
    if clearly_better(alone, errors, labels.groups, _LENT_BIAS):
        return None, simple
    return fit_lent(labels, judged, rungs, seed), held_out
