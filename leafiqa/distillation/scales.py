"""Bring the scales of several sources together, without human scores.

One teacher is strict and another lenient, and nothing in their evidence compares images across sources. What sees
images of all sources alike is the student that training begins at: each source's scores are moved, by a slope and an
offset of their logits, to where that student's scores on the same images lie. The order within a source stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from leafiqa.calibration.fit import fit_scale
from leafiqa.distillation.data import TrainingData
from leafiqa.model.shapes import in_batches
from leafiqa.model.student import Student

_IMAGES = 200
_BATCH = 16
# Scores of 0 and 1 have no logit.
_EDGE = 0.01


@torch.no_grad()
def find_scales(student: Student, data: TrainingData, generator: torch.Generator) -> Tensor:
    """Return `(sources, 2)`: each source's slope and offset, `(1, 0)` for one without scores.

    Args:
        student: the student that training begins at, in evaluation mode, on the CPU.
        data: images with the teachers' scores.
        generator: draws the images that are looked at.
    """
    scales = []
    for source in range(int(data.source.max()) + 1):
        known = ((data.source == source) & data.targets.isfinite()).nonzero().squeeze(1)
        if len(known) < 2:
            scales.append((1.0, 0.0))
            continue
        chosen = known[torch.randperm(len(known), generator=generator)[:_IMAGES]]
        images = [data.images[i] for i in chosen.tolist()]
        scores = in_batches(lambda pixels: student(pixels.float() / 255), images, _BATCH).sigmoid()
        weights = data.reliabilities[chosen].double().numpy().clip(min=1e-3)
        logits = data.targets[chosen].double().clamp(_EDGE, 1 - _EDGE).logit().numpy()
        fit = fit_scale(logits, scores.double().numpy(), weights / np.mean(weights))
        scales.append((fit.slope, fit.offset))
    return torch.tensor(scales)


def apply_scales(data: TrainingData, scales: Tensor) -> Tensor:
    """Return the targets of all images on the common scale, NaN where there is none."""
    slope, offset = scales[data.source].unbind(1)
    return (slope * data.targets.clamp(_EDGE, 1 - _EDGE).logit() + offset).sigmoid()
