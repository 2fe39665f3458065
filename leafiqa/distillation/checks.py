"""Check that a run can learn from its evidence: errors before hours are spent on it, and warnings worth knowing."""

from __future__ import annotations

import hashlib

import torch

from leafiqa.distillation.config import Config
from leafiqa.distillation.data import TrainingData
from leafiqa.errors import EvidenceError

# Scores that differ by less than this are the same.
_SAME = 1e-6
# Judgments of less reliability than the first are hardly believed, of less than the second not at all.
_HARDLY = 0.05
_NOT = 1e-3
# Fewer images than this leave a student about where it began.
_FEW_IMAGES = 20


def check_evidence(data: TrainingData, config: Config) -> list[str]:
    """Refuse evidence that holds nothing to learn, and say what is doubtful about the rest.

    Args:
        data: everything that the run trains on.
        config: the run.

    Returns:
        Sentences for the reader; none where there is nothing to say.

    Raises:
        EvidenceError: no judgment is believed, no image is judged better than another, or there is one image.
    """
    if len(data.images) < 2:
        raise EvidenceError(
            "there is one image with evidence: a student learns from at least two, of different quality"
        )
    scored = data.targets.isfinite()
    trust = data.reliabilities[scored] ** config.reliability_power
    pair_trust = data.pair_reliabilities**config.reliability_power
    if not (trust > _NOT).any() and not (pair_trust > _NOT).any():
        raise EvidenceError(
            f"none of the {len(trust)} scores and {len(data.pairs)} compared pairs is believed: they contradict each "
            "other, or their stated confidence is 0. `leafiqa evidence` shows why; reliability_power = 0 believes all"
        )
    believed = data.targets[scored][trust > _NOT]
    level = len(believed) and float(believed.max() - believed.min()) < _SAME
    if (level or not len(believed)) and not (pair_trust > _NOT).any():
        raise EvidenceError(
            f"all {len(believed)} scores are {float(believed[0]):.3g} and there are no compared pairs: no image is "
            "judged better than another, so there is no order to learn. Add images of low, middling and high quality"
        )
    doubts = []
    if level and len(believed) > 1:
        doubts.append(f"all {len(believed)} scores are {float(believed[0]):.3g}: only the compared pairs tell an order")
    for kind, weights in (("scores", trust), ("compared pairs", pair_trust)):
        if worthless := int((weights < _HARDLY).sum()):
            doubts.append(
                f"{worthless} of {len(weights)} {kind} are undecided, contradicted or not believed (reliability below "
                f"{_HARDLY}): they hardly count"
            )
    if len(data.images) < _FEW_IMAGES:
        doubts.append(f"{len(data.images)} images are few: below {_FEW_IMAGES} the student stays about where it began")
    if copies := _copies(data.images):
        doubts.append(f"{copies} of {len(data.images)} images are copies of others: each counts on its own")
    return doubts


def _copies(images: list[torch.Tensor]) -> int:
    """Return how many of some `(3, h, w)` uint8 images repeat the pixels of an earlier one."""
    return len(images) - len({hashlib.sha256(image.numpy().tobytes()).digest() for image in images})
