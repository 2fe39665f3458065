"""Pair-wise distillation: the student's preference against a soft preference.

Source: the fidelity loss of Tsai et al., "FRank" (SIGIR 2007), used for image quality by UNIQUE (Zhang et al.,
IEEE TIP 2021) with Thurstone's model, which is also what is used here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The square root has no gradient at 0; this floor keeps confident pairs trainable.
_EPS = 1e-6


def preference(difference: Tensor, sigma: float) -> Tensor:
    """Probability that the first of two images is judged better (Thurstone, case V).

    Args:
        difference: score of the first image minus that of the second.
        sigma: standard deviation of one judgment, in score units.

    Returns:
        Probabilities in [0, 1], of the shape of `difference`.
    """
    return torch.special.ndtr(difference / (math.sqrt(2) * sigma))


def fidelity_loss(
    difference: Tensor, targets: Tensor, weights: Tensor, sigma: float = 0.1, usual: float | None = None
) -> Tensor:
    """Weighted fidelity loss `1 - sqrt(p g) - sqrt((1 - p)(1 - g))` over pairs.

    Zero if and only if the student's preference `p` equals the target `g` (up to a floor of 1e-6), at most 1.

    Args:
        difference: student score of the first image minus that of the second, `(P,)`.
        targets: target probability that the first image is better, in [0, 1], `(P,)`.
        weights: reliability of each pair, non-negative, `(P,)`; only ratios matter, unless `usual` is given.
        sigma: standard deviation of one judgment, in score units.
        usual: weight at which a pair counts fully. Without it the pairs' own mean is: however little they all are
            trusted, together they count as much as trusted ones.

    Returns:
        The weighted mean, a scalar; zero if all weights are zero.
    """
    p = preference(difference, sigma).clamp(_EPS, 1 - _EPS)
    g = targets.clamp(_EPS, 1 - _EPS)
    losses = 1 - (p * g).sqrt() - ((1 - p) * (1 - g)).sqrt()
    total = weights.sum() if usual is None else weights.new_tensor(usual * len(weights))
    return (weights * losses).sum() / total.clamp(min=1e-12)
