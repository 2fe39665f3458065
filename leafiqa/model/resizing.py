"""Antialiased resizing as small matrix products, so that it is the same everywhere.

Resizing decides how much blur and noise a student gets to see, so it is part of the model. It is written
as banded matrix products rather than a call to an interpolation kernel because these

* give each input pixel a positive weight (a triangle filter as wide as the reduction),
* run on any device, at any reduction, with a deterministic gradient and no transfer from the host,
* take an image in pieces, so that 100 megapixels of any shape need little more memory than they hold already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Outputs computed by one matrix product. Larger blocks waste multiplications on zeros, smaller ones launches.
_BLOCK = 64
# Elements of one band of weights (8 MiB in float64), and of one float32 piece of the source image (64 MiB).
_BAND_ELEMENTS = 1024 * 1024
_PIECE_ELEMENTS = 16 * 1024 * 1024


def _bands(size_in: int, size_out: int, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
    """The resizing matrix in bands `(start, stop, weights)`, weights float32 `(stop - start, outputs)`."""
    scale = size_in / size_out
    support = max(scale, 1.0)
    # A block of b outputs takes in about (b + 2) * support pixels: (b + 2) * b * support weights.
    block = max(1, min(_BLOCK, int(math.sqrt(_BAND_ELEMENTS / support)) - 1))
    # Apple's MPS has no float64; everywhere else positions in a wide image deserve it.
    exact = torch.float32 if device.type == "mps" else torch.float64
    for first in range(0, size_out, block):
        last = min(first + block, size_out)
        start = max(0, int((first + 0.5) * scale - support))
        stop = min(size_in, int((last - 0.5) * scale + support) + 1)
        taps = torch.arange(start, stop, dtype=exact, device=device) + 0.5
        centres = (torch.arange(first, last, dtype=exact, device=device) + 0.5) * scale
        weights = (1 - (taps[:, None] - centres[None, :]).abs() / support).clamp(min=0)
        yield start, stop, (weights / weights.sum(dim=0, keepdim=True)).float()


def _as_unit_float(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def _narrow(images: Tensor, width: int) -> Tensor:
    """Resize along the last dimension."""
    out = []
    for start, stop, weights in _bands(images.shape[3], width, images.device):
        rows = max(1, _PIECE_ELEMENTS // max(1, (stop - start) * images.shape[0] * images.shape[1]))
        pieces = images[..., start:stop].split(rows, dim=2)
        out.append(torch.cat([_as_unit_float(piece) @ weights for piece in pieces], dim=2))
    return torch.cat(out, dim=3)


def _shorten(images: Tensor, height: int) -> Tensor:
    """Resize along the dimension before the last."""
    out = []
    for start, stop, weights in _bands(images.shape[2], height, images.device):
        columns = max(1, _PIECE_ELEMENTS // max(1, (stop - start) * images.shape[0] * images.shape[1]))
        pieces = images[:, :, start:stop].split(columns, dim=3)
        out.append(torch.cat([weights.T @ _as_unit_float(piece) for piece in pieces], dim=3))
    return torch.cat(out, dim=2)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images with an antialiased triangle filter.

    Args:
        images: `(B, 3, H, W)`, uint8 in 0..255 or floating point in [0, 1], on any device.
        height: output height in pixels, at least 1.
        width: output width in pixels, at least 1.

    Returns:
        `(B, 3, height, width)` float32 in [0, 1], differentiable with respect to floating point `images`.
    """
    # The order that leaves less in between: of a strip of one pixel's width, millions high, first the height.
    if images.shape[2] * width <= height * images.shape[3]:
        return _shorten(_narrow(images, width), height)
    return _narrow(_shorten(images, height), width)
