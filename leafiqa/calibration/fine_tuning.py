"""The rung `full`: after the head has been fitted, all of the student learns from the labels, carefully.

Linear probing first, then fine-tuning (Kumar et al., ICLR 2022): a head that fits already sends no large gradients into
the backbone. The losses are the recipe's, with human scores in the teacher's place: point-wise, and pair-wise on all
pairs of a batch. The first blocks, which see what any network sees, keep their weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leafiqa.calibration.features import prepared_ahead
from leafiqa.calibration.fit import Array
from leafiqa.errors import ImageError
from leafiqa.metric import Metric
from leafiqa.model.fused_network import fused_copy
from leafiqa.model.shapes import in_batches
from leafiqa.model.student import Student
from leafiqa.training.augmentation import as_floats, random_crops
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss
from leafiqa.training.optimisation import Optimisation, count_blocks, freeze, own_random_numbers

# Fewer labels than this teach a network of millions of weights nothing but themselves.
FULL_LEAST = 100
_BATCH = 16
_WEIGHT_DECAY = 0.02
_SIGMA = 0.1
_EMA = 0.99
_FREEZE = 2
# Share of each side that a training crop keeps.
_CROP = 0.85


@dataclass(frozen=True)
class Pace:
    """How long and how fast to learn.

    Attributes:
        epochs: passes over the images.
        lr: peak learning rate of the backbone.
        head_lr: peak learning rate of the head.
    """

    epochs: int
    lr: float
    head_lr: float


LABELS_PACE = Pace(epochs=6, lr=1e-4, head_lr=5e-4)
# With judged images beside the labelled ones, which are many more. A student that was distilled on the same images has
# fitted its teacher's errors on them too, and has to unlearn them: half these rates gave less.
JUDGED_PACE = Pace(epochs=4, lr=2e-4, head_lr=1e-3)


def prepare_images(metric: Metric, paths: Sequence[Path]) -> list[Tensor]:
    """Return each image as the student looks at it, `(3, h, w)` uint8 on the CPU.

    Raises:
        ImageError: one of them cannot be read.
    """
    looks = []
    with torch.no_grad():
        for prepared in prepared_ahead(metric, paths):
            if isinstance(prepared, ImageError):
                raise prepared
            looks.append((prepared[0][0] * 255).round().to(torch.uint8).cpu())
    return looks


def fine_tune(
    student: Student,
    images: Sequence[Tensor],
    targets: Array,
    weights: Array,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
    pace: Pace = LABELS_PACE,
) -> Student:
    """Return a copy of a student, fine-tuned on human scores.

    Args:
        student: where to begin: its head fitted to the labels already.
        images: `(3, h, w)` uint8 each.
        targets: `(n,)` human scores brought to [0, 1].
        weights: `(n,)` how far each can be trusted, with mean one.
        seed: decides order, flips and dropout; the caller's random state is left alone.
        advance: called with the number of images after each step.
        pace: how long and how fast.

    Raises:
        TrainingError: a gradient became NaN or infinite.
    """
    device = student.feature_mean.device
    tuned = copy.deepcopy(student).float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tuned.requires_grad_(True)
    if count_blocks(tuned) > _FREEZE:  # a backbone that is not built of blocks learns as a whole
        freeze(tuned, _FREEZE)
    per_epoch = max(1, math.ceil(len(images) / _BATCH))
    optimisation = Optimisation(
        tuned,
        rates=(pace.lr, pace.head_lr),
        weight_decay=_WEIGHT_DECAY,
        total=pace.epochs * per_epoch,
        warmup=per_epoch,
        ema=_EMA,
        example=torch.zeros(1, 3, 64, 64, device=device),
    )
    goal, trust = torch.tensor(targets).float().to(device), torch.tensor(weights).float().to(device)
    generator = torch.Generator().manual_seed(seed)
    with own_random_numbers(seed, device), torch.enable_grad():
        for step in range(pace.epochs * per_epoch):
            if step % per_epoch == 0:
                order = torch.randperm(len(images), generator=generator)
            chosen = order[step % per_epoch :: per_epoch]
            optimisation.begin_step()
            crops = random_crops([images[i] for i in chosen.tolist()], _CROP, generator)
            scores = in_batches(lambda pixels: tuned(as_floats(pixels, device)), crops).sigmoid()
            _loss(scores, goal[chosen], trust[chosen]).backward()
            optimisation.end_step()
            advance(len(chosen))
    return optimisation.average.requires_grad_(False)


def _loss(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    first, second = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    pairs = fidelity_loss(
        scores[first] - scores[second],
        preference(targets[first] - targets[second], _SIGMA),
        weights[first] * weights[second],
        _SIGMA,
    )
    return point_loss(scores, targets, weights) + pairs


@torch.no_grad()
def predict(student: Student, images: Sequence[Tensor]) -> Array:
    """Return a student's scores in [0, 1], `(n,)`, of images as `prepare_images` returns them."""
    return _each(student, images, lambda looking, pixels: looking(pixels).sigmoid())


@torch.no_grad()
def features_of(
    student: Student, images: Sequence[Tensor], advance: Callable[[int], None] = lambda count: None
) -> Array:
    """Return a student's standardised features, `(n, F)`.

    Args:
        student: the student.
        images: as `prepare_images` returns them.
        advance: called with how many more have been looked at.
    """

    def look(looking: Student, pixels: Tensor) -> Tensor:
        found = looking.standardise(looking.features(pixels))
        advance(len(pixels))
        return found

    return _each(student, images, look)


def _each(student: Student, images: Sequence[Tensor], look: Callable[[Student, Tensor], Tensor]) -> Array:
    device = student.feature_mean.device
    fused = fused_copy(student)
    # On a host one after the other: what lies between two layers stays in the processor's cache.
    looking, size = (student, _BATCH) if fused is None else (fused, 1)
    found = in_batches(lambda pixels: look(looking, as_floats(pixels, device)), images, size)
    return found.cpu().double().numpy()
