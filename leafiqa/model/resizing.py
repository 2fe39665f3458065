"""Antialiased resizing: a triangle filter as wide as the reduction, which gives each input pixel a positive weight.

Resizing decides how much blur and noise a student gets to see, so it is part of the model, and the same everywhere. It
is computed in one of two ways, which agree to 2e-6 of the range of pixels, on a GPU to about 2e-5:

* as banded matrix products, which run on any device, at any reduction, with a deterministic gradient and no transfer
  from the host;
* by kernels of torch's, where no gradient is wanted: on the host by weighted sums of rows (`leafiqa.model.row_sums`),
  on a GPU by its antialiased resizing, one launch instead of dozens.

On the host, and above 20 megapixels anywhere, an image is taken in pieces, so that 100 megapixels of any shape need
little more memory than they hold already.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from leafiqa.model.row_sums import resize_by_sums

# Outputs computed by one matrix product. Larger blocks waste multiplications on zeros, smaller ones launches.
_BLOCK = 64
# Elements of one band of weights (8 MiB in float64), and of one float32 piece of the source image (64 MiB).
_BAND_ELEMENTS = 1024 * 1024
_PIECE_ELEMENTS = 16 * 1024 * 1024
# On a GPU: elements of what is resized at once (256 MiB as float32), and the largest reduction asked of its kernel.
_GPU_ELEMENTS = 64 * 1024 * 1024
_GPU_REDUCTION = 16
# Resizing matrices kept: those of longer sides are made anew, and a folder has few other sizes.
_KEPT = 32
_LONGEST_KEPT = 8192


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor outlives the call: not a fake one, nor one that a transform of `torch.func` has wrapped."""
    return type(tensor) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _bands(size_in: int, size_out: int, device: torch.device) -> Iterable[tuple[int, int, Tensor]]:
    """The resizing matrix in bands `(start, stop, weights)`, weights float32 `(stop - start, outputs)`."""
    # What is made while torch.export, torch.func or a fake mode looks on belongs to them, and is no use afterwards.
    if size_in > _LONGEST_KEPT or torch.jit.is_tracing() or not is_plain(torch.empty(0)):
        return _make_bands(size_in, size_out, device)
    return _kept_bands(size_in, size_out, device)


@lru_cache(maxsize=_KEPT)
def _kept_bands(size_in: int, size_out: int, device: torch.device) -> tuple[tuple[int, int, Tensor], ...]:
    # Tensors made under inference mode could not take part in a gradient later.
    with torch.inference_mode(False):
        return tuple(_make_bands(size_in, size_out, device))


def _make_bands(size_in: int, size_out: int, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
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
        # In place: a copy of a band for each step, made and freed in turn, leaves holes in the heap that add up.
        weights = taps[:, None] - centres[None, :]
        weights.abs_().div_(-support).add_(1).clamp_(min=0)
        yield start, stop, weights.div_(weights.sum(dim=0, keepdim=True)).float()


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


def _takes_kernel(images: Tensor, height: int, width: int) -> bool:
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or not is_plain(images)
        or not images.numel()
        or (images.requires_grad and torch.is_grad_enabled())
        or torch.autograd.forward_ad._current_level >= 0  # sums of rows have no tangents
    ):
        return False
    if images.device.type == "cuda":
        reduction = max(images.shape[2] / height, images.shape[3] / width)
        return min(height, width) >= 2 and reduction <= _GPU_REDUCTION and images.numel() <= _GPU_ELEMENTS
    return images.device.type == "cpu"


def _by_gpu_kernel(images: Tensor, height: int, width: int) -> Tensor:
    """Resize along both dimensions with torch's kernel; values stay in their range."""
    if images.shape[2:] == (height, width):
        return images.float() if images.dtype != torch.float32 else images.clone()
    return nn.functional.interpolate(images.float(), size=(height, width), mode="bilinear", antialias=True)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images with an antialiased triangle filter.

    Args:
        images: `(B, 3, H, W)`, uint8 in 0..255 or floating point in [0, 1], on any device.
        height: output height in pixels, at least 1.
        width: output width in pixels, at least 1.

    Returns:
        `(B, 3, height, width)` float32 in [0, 1], differentiable with respect to floating point `images`.
    """
    if _takes_kernel(images, height, width):
        by_kernel = _by_gpu_kernel if images.device.type == "cuda" else resize_by_sums
        resized = by_kernel(images, height, width)
        return resized.div_(255) if images.dtype == torch.uint8 else resized
    # The order that leaves less in between: of a strip of one pixel's width, millions high, first the height.
    width_first = images.shape[2] * width <= height * images.shape[3]
    if width_first:
        return _shorten(_narrow(images, width), height)
    return _narrow(_shorten(images, height), width)


@torch.compiler.disable
def resize_uncompiled(images: Tensor, height: int, width: int) -> Tensor:
    """Resize; what comes after is compiled for each resized size by itself.

    Sizes are few, since they are multiples of 32 of one area. With sizes left open a compiler works for minutes.
    """
    resized = resize(images, height, width)
    if "torch._dynamo" in sys.modules and type(resized) is Tensor and not torch.jit.is_tracing():
        for dimension in (2, 3):
            torch._dynamo.mark_static(resized, dimension)
    return resized
