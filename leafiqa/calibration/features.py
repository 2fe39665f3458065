"""What a frozen student sees in labelled images: standardised features and its own logit for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leafiqa.errors import ImageError
from leafiqa.images.decoding import Decoded
from leafiqa.images.loading import load_ahead
from leafiqa.metric import Metric
from leafiqa.model.exact import exact_float32

# Images held resized, to go through the network with others of their size on an accelerator.
_WINDOW = 64


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


def prepared_ahead(metric: Metric, paths: Sequence[Path]) -> Iterator[tuple[Tensor, Tensor] | ImageError]:
    """Yield each image as `Metric.prepare` makes it ready, or why it cannot be read, in order."""

    def opened(path: Path) -> Decoded | ImageError:
        try:
            return metric.decode(path)
        except ImageError as error:
            return error

    for one in load_ahead(opened, paths, workers=metric.decoders, depth=metric.decoders):
        yield metric.prepare_decoded(one) if isinstance(one, Decoded) else one


@torch.no_grad()
def extract(metric: Metric, paths: Sequence[Path], advance: Callable[[], None] = lambda: None) -> Extracted:
    """Extract features and logits.

    Args:
        metric: the metric whose student looks.
        paths: image files.
        advance: called once for each path that is done.
    """
    features: list[Tensor] = []
    logits: list[float] = []
    index: list[int] = []
    errors: list[tuple[int, str]] = []
    window: list[tuple[Tensor, Tensor]] = []
    most = 1 if metric.device.type == "cpu" else _WINDOW

    def look(images: Tensor, _: Tensor) -> list[tuple[Tensor, float]]:
        with exact_float32(images.device), torch.autocast(images.device.type, enabled=False):
            student = metric.scoring_student(images)
            standard = student.standardise(student.features(images))
            return list(zip(standard.cpu(), student.read(standard).tolist()))

    def flush() -> None:
        for row, logit in metric.of_each(window, look):
            features.append(row)
            logits.append(logit)
            advance()
        window.clear()

    for number, prepared in enumerate(prepared_ahead(metric, paths)):
        if isinstance(prepared, ImageError):
            errors.append((number, str(prepared)))
            advance()
            continue
        index.append(number)
        window.append(prepared)
        if len(window) == most:
            flush()
    flush()
    width = metric.student.feature_mean.shape[0]
    return Extracted(
        features=torch.stack(features).numpy().astype(np.float64) if features else np.empty((0, width)),
        logits=np.array(logits),
        index=np.array(index, dtype=np.intp),
        errors=errors,
    )
