"""Antialiased resizing as small matrix products, so that it is the same everywhere.

Resizing decides how much blur and noise a student gets to see, so it is part of the model. It is written
as banded matrix products rather than a call to an interpolation kernel because these

* give each input pixel a positive weight (a triangle filter as wide as the reduction),
* run on any device, at any reduction, with a deterministic gradient and no transfer from the host,
* take an image in strips, so that 100 megapixels need little more memory than they hold already.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Outputs computed by one matrix product. Larger blocks waste multiplications on zeros, smaller ones launches.
_BLOCK = 64
# Elements of one float32 strip of the source image (64 MiB).
_STRIP_ELEMENTS = 16 * 1024 * 1024


def _bands(size_in: int, size_out: int, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """The resizing matrix in bands `(start, stop, weights)`, weights float32 `(stop - start, outputs)`."""
    scale = size_in / size_out
    support = max(scale, 1.0)
    # Apple's MPS has no float64; everywhere else positions in a wide image deserve it.
    exact = torch.float32 if device.type == "mps" else torch.float64
    bands = []
    for first in range(0, size_out, _BLOCK):
        last = min(first + _BLOCK, size_out)
        start = max(0, int((first + 0.5) * scale - support))
        stop = min(size_in, int((last - 0.5) * scale + support) + 1)
        taps = torch.arange(start, stop, dtype=exact, device=device) + 0.5
        centres = (torch.arange(first, last, dtype=exact, device=device) + 0.5) * scale
        weights = (1 - (taps[:, None] - centres[None, :]).abs() / support).clamp(min=0)
        bands.append((start, stop, (weights / weights.sum(dim=0, keepdim=True)).float()))
    return bands


def _as_unit_float(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images with an antialiased triangle filter.

    Args:
        images: `(B, 3, H, W)`, uint8 in 0..255 or floating point in [0, 1], on any device.
        height: output height in pixels, at least 1.
        width: output width in pixels, at least 1.

    Returns:
        `(B, 3, height, width)` float32 in [0, 1], differentiable with respect to floating point `images`.
    """
    batch, channels, height_in, width_in = images.shape
    bands = _bands(width_in, width, images.device)
    rows = max(1, _STRIP_ELEMENTS // max(1, batch * channels * width_in))
    strips = []
    for top in range(0, height_in, rows):
        strip = _as_unit_float(images[:, :, top : top + rows])
        strips.append(torch.cat([strip[..., start:stop] @ weights for start, stop, weights in bands], dim=-1))
    narrow = strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)

    out = []
    for start, stop, weights in _bands(height_in, height, images.device):
        out.append(weights.T @ narrow[:, :, start:stop])
    return torch.cat(out, dim=2)
