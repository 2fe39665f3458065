"""Run a network over images of several shapes: those of one shape go through it together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Images in one forward pass on an accelerator.
_BATCH = 64
# On a CPU, pixels in one forward pass: what lies between two layers then stays in the processor's cache, and is small
# enough (14 MiB a tensor) for the C library to keep, where it would return larger ones and have them zeroed each time.
_HOST_PIXELS = 384 * 384


def by_shape(images: Sequence[Tensor]) -> list[list[int]]:
    """Return the places of the images of each shape, in the order in which shapes first occur."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(place)
    return list(groups.values())


def in_batches(run: Callable[[Tensor], Tensor], images: Sequence[Tensor], size: int | None = None) -> Tensor:
    """Return `run`'s rows for images `(3, h, w)` of any shapes, in the images' order.

    Args:
        run: maps `(B, 3, h, w)` to `(B, ...)`.
        images: at least one.
        size: images in a batch, at most; None takes all of a shape at once.
    """
    places: list[int] = []
    rows: list[Tensor] = []
    for members in by_shape(images):
        for start in range(0, len(members), size or len(members)):
            part = members[start : start + (size or len(members))]
            rows.append(run(torch.stack([images[i] for i in part])))
            places += part
    return torch.cat(rows)[torch.tensor(places).argsort().to(rows[0].device)]


def batch_size_for(images: Tensor) -> int:
    """Return how many images of the shape of these, `(B, 3, h, w)`, go through the network together."""
    if images.device.type != "cpu":
        return _BATCH
    return max(1, _HOST_PIXELS // (images.shape[2] * images.shape[3]))
