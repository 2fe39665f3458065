"""What a frozen student sees in labelled images: standardised features and its own logit for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leafiqa.errors import ImageError
from leafiqa.images.inputs import to_tensor
from leafiqa.images.loading import load_ahead
from leafiqa.metric import Metric

_BATCH = 16


@dataclass(frozen=True)
class Extracted:
    """A frozen student's view of some images.

    Attributes:
        features: `(n, F)` standardised features.
        logits: `(n,)` the student's logits before its sigmoid.
        index: `(n,)` which of the given paths each row is.
        errors: for each path that could not be read its place and why.
    """

    features: NDArray[np.float64]
    logits: NDArray[np.float64]
    index: NDArray[np.intp]
    errors: list[tuple[int, str]]


@torch.no_grad()
def prepare_or_why(metric: Metric, path: Path) -> Tensor | str:
    """Return an image as the student looks at it, `(1, 3, h, w)` in [0, 1], or why it cannot be read."""
    try:
        return metric.prepare(to_tensor(path)[0])[0]
    except ImageError as error:
        return str(error)


@torch.no_grad()
def extract(metric: Metric, paths: Sequence[Path], advance: Callable[[], None] = lambda: None) -> Extracted:
    """Extract features and logits.

    Args:
        metric: the metric whose student looks.
        paths: image files.
        advance: called once for each path that is done.
    """
    features: dict[int, Tensor] = {}
    logits: dict[int, Tensor] = {}
    errors: list[tuple[int, str]] = []
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}

    def flush(members: list[tuple[int, Tensor]]) -> None:
        standard = metric.student.standardise(metric.student.features(torch.cat([image for _, image in members])))
        for (i, _), row, logit in zip(members, standard.cpu(), metric.student.read(standard).cpu()):
            features[i], logits[i] = row, logit
        members.clear()

    for number, image in enumerate(load_ahead(lambda path: prepare_or_why(metric, path), paths)):
        if isinstance(image, str):
            errors.append((number, image))
        else:
            group = waiting.setdefault(tuple(image.shape), [])
            group.append((number, image))
            if len(group) == _BATCH:
                flush(group)
        advance()
    for group in waiting.values():
        if group:
            flush(group)
    order = sorted(features)
    width = metric.student.feature_mean.shape[0]
    return Extracted(
        features=np.stack([features[i].numpy() for i in order]).astype(np.float64) if order else np.empty((0, width)),
        logits=np.array([float(logits[i]) for i in order]),
        index=np.array(order, dtype=np.intp),
        errors=errors,
    )
