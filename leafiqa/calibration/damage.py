"""Bring back what fine-tuning has lost: that damage lowers a score, and that a picture of nothing is worth little.

Human scores of some hundred images say little about blur that gets stronger or lines that get warped, and a student
that learns from them loses the order along such ladders. What it knew before is the target (learning without
forgetting, Li & Hoiem, ECCV 2016): of two versions of an image, the one that is damaged more is to lie as far below
the other one as it did. The features still tell them apart, so a linear function of them is enough, which leaves the
images themselves where they are as far as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from leafiqa.calibration.fine_tuning import features_of
from leafiqa.calibration.fit import Array, Fit
from leafiqa.images.loading import load_ahead
from leafiqa.model.student import Student
from leafiqa.training.degradations.arrays import LEVELS
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade
from leafiqa.training.degradations.nothing import null_image

# Images looked at, at most, each in two versions beside, and pictures of nothing, which count a twentieth of them.
_MOST, _NOTHING = 900, 45
# What moving versions apart counts beside leaving images where they are, and how strongly the function is held to zero.
_APART, _RIDGE = 0.3, 1.0
# By how much the logit of the version that is damaged more has to be lower, whatever the student thought.
_LEAST = 0.05
_SIDE = 384


def looks_taken(count: int) -> int:
    """Return how many looks at images `keep_order_of_damage` takes of so many that were learned from."""
    return 5 * min(count, _MOST) + 2 * _NOTHING


@torch.no_grad()
def keep_order_of_damage(
    tuned: Student,
    before: Student,
    fit: Fit,
    images: Sequence[Tensor],
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Student:
    """Add to a fine-tuned student's logit what restores the order of damaged images.

    Args:
        tuned: the fine-tuned student; changed in place.
        before: the student that calibration began at.
        fit: from its logits to the scale of the fine-tuned one.
        images: `(3, h, w)` uint8 each, some that were learned from.
        seed: decides which are looked at, and how they are damaged.
        advance: called with how many more looks were taken, of `looks_taken`.

    Returns:
        `tuned`.
    """
    rng = np.random.default_rng([seed, len(images)])
    looked_at = [images[place] for place in rng.permutation(len(images))[:_MOST]]
    kinds = list(DEGRADATIONS)
    jobs = []
    for number, image in enumerate(looked_at):
        levels = sorted(rng.choice(LEVELS + 1, 2, replace=False).tolist())
        jobs.append((image, kinds[number % len(kinds)], levels, int(rng.integers(2**31))))
    versions = [version for pair in load_ahead(_versions, jobs) for version in pair]
    empty = [_as_look(null_image(_SIDE, rng)) for _ in range(_NOTHING)]

    seen, seen_empty = features_of(tuned, looked_at, advance), features_of(tuned, empty, advance)
    pairs = features_of(tuned, versions, advance).reshape(len(looked_at), 2, -1)
    apart = pairs[:, 0] - pairs[:, 1]
    have = _read(tuned, pairs[:, 0]) - _read(tuned, pairs[:, 1])
    known = fit.slope * _look(before, versions, advance).reshape(-1, 2)
    short = np.maximum(np.maximum(known[:, 0] - known[:, 1], _LEAST) - have, 0)
    lower = np.minimum(fit.slope * _look(before, empty, advance) + fit.offset - _read(tuned, seen_empty), 0)

    # Ridge regression on three kinds of rows: images that stay, versions that move apart, pictures of nothing.
    share = len(looked_at) / _MOST
    squares = seen.T @ seen + _APART * apart.T @ apart + share * seen_empty.T @ seen_empty
    squares += _RIDGE * len(looked_at) * np.eye(len(squares))
    weight = np.linalg.solve(squares, _APART * apart.T @ short + share * seen_empty.T @ lower)
    if tuned.residual is None:
        tuned.residual = nn.Linear(len(weight), 1, bias=False).to(tuned.feature_mean.device)
        nn.init.zeros_(tuned.residual.weight)
        tuned.residual.requires_grad_(False)
    tuned.residual.weight.add_(torch.from_numpy(weight).to(tuned.residual.weight))
    return tuned


def _versions(job: tuple[Tensor, str, list[int], int]) -> list[Tensor]:
    """Return two versions of an image, that with the lower level first; level 0 is the image as it is."""
    image, kind, levels, seed = job
    pixels = image.permute(1, 2, 0).numpy()
    return [_as_look(degrade(pixels, kind, level, seed)) if level else image for level in levels]


def _as_look(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)


def _read(student: Student, features: Array) -> Array:
    standard = torch.from_numpy(features).float().to(student.feature_mean.device)
    found: Array = student.read(standard).cpu().double().numpy()
    return found


def _look(student: Student, images: Sequence[Tensor], advance: Callable[[int], None]) -> Array:
    return _read(student, features_of(student, images, advance))
