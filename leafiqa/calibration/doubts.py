"""Bring a student's standard errors and map along when its score is calibrated.

What a student tells beside its score is in units of its logit. A calibration makes the logit steeper or flatter, and
people's scores differ from the calibrated ones by more than the teacher's did from the student's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from leafiqa.calibration.fit import fit_scale
from leafiqa.model.student import Student
from leafiqa.training.aspect_fits import doubt_of, residuals

Array = NDArray[np.float64]


@torch.no_grad()
def with_doubts(
    calibrated: Student, base: Student, logits: Array, features: Array, targets: Array, weights: Array, held_out: Array
) -> Student:
    """Set the scale of a calibrated student's aspects, and how far it is off, from what was held out of each fold.

    Args:
        calibrated: the student with the calibration in its weights; changed in place. Without aspects it is left alone.
        base: the student before.
        logits: `(n,)` of the base, of the labelled images.
        features: `(n, F)` standardised features of the calibrated student: those of the base, unless the backbone was
            trained. Its errors follow from what it sees itself, and are to hold as it tells them.
        targets: `(n,)` MOS brought to [0, 1].
        weights: `(n,)` of the labels.
        held_out: `(n,)` predictions in [0, 1] by calibrations on other groups.

    Returns:
        `calibrated`.
    """
    aspects, known = calibrated.aspects, base.aspects
    if aspects is None or known is None:
        return calibrated
    place = known.stretch.device
    aspects.stretch.copy_(known.stretch * fit_scale(logits, targets, weights).slope)
    standard = torch.from_numpy(features).float().to(place)
    own = calibrated.read(standard) / aspects.stretch
    errors = aspects.errors(own, aspects.severities(standard), calibrated.shares(standard)) * aspects.stretch
    predicted = torch.from_numpy(held_out).float().clamp(1e-4, 1 - 1e-4).logit()
    aspects.doubt.fill_(doubt_of(residuals(predicted, torch.from_numpy(targets).float()), errors.cpu()))
    return calibrated
