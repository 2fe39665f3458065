"""Point-wise distillation: the student's score against the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def point_loss(scores: Tensor, targets: Tensor, weights: Tensor, beta: float = 0.1) -> Tensor:
    """Weighted smooth-L1 between student and teacher scores.

    Zero exactly where they agree, quadratic below `beta`, linear above, so that one wild judgment of the teacher
    pulls no harder than a moderate one.

    Args:
        scores: student scores in [0, 1], `(B,)`.
        targets: teacher scores in [0, 1], `(B,)`.
        weights: reliability of each judgment, non-negative, `(B,)`; only ratios matter.
        beta: score difference at which the loss becomes linear.

    Returns:
        The weighted mean, a scalar; zero if all weights are zero.
    """
    losses = F.smooth_l1_loss(scores, targets, beta=beta, reduction="none")
    return (weights * losses).sum() / weights.sum().clamp(min=1e-12)
