"""The rung `full`: after the head has been fitted, all of the student learns from the labels, carefully.

Linear probing first, then fine-tuning (Kumar et al., ICLR 2022): a head that fits already sends no large gradients into
the backbone. The losses are the recipe's, with human scores in the teacher's place: point-wise, and pair-wise on all
pairs of a batch. The first blocks, which see what any network sees, keep their weights.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leafiqa.calibrate.fit import Array
from leafiqa.distill.folding import fold_batch_norm
from leafiqa.distill.initial import freeze
from leafiqa.distill.losses.fidelity import fidelity_loss, preference
from leafiqa.distill.losses.point import point_loss
from leafiqa.errors import EvidenceError
from leafiqa.images.inputs import to_tensor
from leafiqa.metric import Metric
from leafiqa.model.student import Student

# Fewer labels than this teach a network of millions of weights nothing but themselves.
FULL_LEAST = 100
_BATCH = 16
_WEIGHT_DECAY = 0.02
_SIGMA = 0.1
_EMA = 0.99
_FREEZE = 2
# Share of each side that a training crop keeps, to whole multiples of 32 pixels.
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
# With judged images beside the labelled ones, which are many more. A student that was distilled on the same images
# knows by heart what its teacher said of them, right or wrong, and has to unlearn it: half these rates gave less.
JUDGED_PACE = Pace(epochs=4, lr=2e-4, head_lr=1e-3)


def look_at(metric: Metric, paths: Sequence[Path]) -> list[Tensor]:
    """Return each image as the student looks at it, `(3, h, w)` uint8 on the CPU."""

    def look(path: Path) -> Tensor:
        image, _ = metric.look(to_tensor(path)[0])
        return (image[0] * 255).round().to(torch.uint8).cpu()

    with torch.no_grad(), ThreadPoolExecutor(2) as pool:
        return list(pool.map(look, paths))


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
    """
    device = student.feature_mean.device
    tuned = copy.deepcopy(student).float().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    tuned.requires_grad_(True)
    average = copy.deepcopy(tuned).eval()
    with contextlib.suppress(EvidenceError):  # a backbone that is not built of blocks learns as a whole
        freeze(tuned, _FREEZE)
    fold_batch_norm(tuned.backbone, torch.zeros(1, 3, 64, 64, device=device))
    head = [p for name, p in tuned.named_parameters() if not name.startswith("backbone.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in tuned.backbone.parameters() if p.requires_grad], "lr": pace.lr},
            {"params": head, "lr": pace.head_lr},
        ],
        weight_decay=_WEIGHT_DECAY,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    goal, trust = torch.tensor(targets).float().to(device), torch.tensor(weights).float().to(device)
    per_epoch = max(1, math.ceil(len(images) / _BATCH))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        for step in range(pace.epochs * per_epoch):
            if step % per_epoch == 0:
                order = torch.randperm(len(images))
            chosen = order[step % per_epoch :: per_epoch]
            for group, peak in zip(optimizer.param_groups, peaks):
                warm = min(1.0, (step + 1) / per_epoch)
                group["lr"] = peak * warm * 0.5 * (1 + math.cos(math.pi * step / (pace.epochs * per_epoch)))
            scores = _logits(tuned, images, chosen.tolist()).sigmoid()
            loss = _loss(scores, goal[chosen], trust[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tuned.parameters(), 2.0)
            optimizer.step()
            decay = min(_EMA, (step + 1) / (step + 10))
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), tuned.parameters()):
                    slow.lerp_(fast, 1 - decay)
            advance(len(chosen))
    return average.requires_grad_(False)


def _loss(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    first, second = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    pairs = fidelity_loss(
        scores[first] - scores[second],
        preference(targets[first] - targets[second], _SIGMA),
        weights[first] * weights[second],
        _SIGMA,
    )
    return point_loss(scores, targets, weights) + pairs


def _logits(student: Student, images: Sequence[Tensor], chosen: list[int]) -> Tensor:
    """Return logits of random crops of some images; images of one shape go through the student together."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, number in enumerate(chosen):
        by_shape.setdefault(tuple(images[number].shape), []).append(place)
    places, parts = [], []
    for members in by_shape.values():
        pixels = torch.stack([_crop(images[chosen[i]]) for i in members])
        pixels = pixels.to(student.feature_mean.device, memory_format=torch.channels_last).float() / 255
        parts.append(student(pixels))
        places += members
    return torch.cat(parts)[torch.tensor(places).argsort()]


def _crop(image: Tensor) -> Tensor:
    """Cut out a random part of an image's shape, half of the time flipped."""
    height, width = (max(32, round(_CROP * side / 32) * 32) for side in image.shape[1:])
    top = int(torch.randint(image.shape[1] - height + 1, ()))
    left = int(torch.randint(image.shape[2] - width + 1, ()))
    part = image[:, top : top + height, left : left + width]
    return part.flip(-1) if torch.rand(()) < 0.5 else part


@torch.no_grad()
def predict(student: Student, images: Sequence[Tensor]) -> Array:
    """Return a student's scores in [0, 1], `(n,)`, of images as `look_at` returns them."""
    device = student.feature_mean.device
    scores = [student(image[None].to(device).float() / 255).sigmoid().item() for image in images]
    return np.array(scores)
