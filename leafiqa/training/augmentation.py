"""Random crops and flips of pictures held as uint8, drawn from a generator of the run's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Sides of crops are whole multiples of this, so that not every picture is of a shape of its own.
_STEP = 16


def crop_size(height: int, width: int, share: float) -> tuple[int, int]:
    """Return the size of a crop that keeps a share of each side, to a multiple of 16 pixels."""
    sides = [min(side, max(_STEP, round(share * side / _STEP) * _STEP)) for side in (height, width)]
    return sides[0], sides[1]


def random_crop(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Cut out a random part, half of the time flipped; `(..., h, w)` stays of its dtype.

    Several pictures of one size, given as one tensor `(n, 3, h, w)`, are cut at the same place, so that nothing but
    what was done to them differs.
    """
    height, width = crop_size(image.shape[-2], image.shape[-1], share)
    top, left, flip = (
        int(torch.randint(n, (1,), generator=generator))
        for n in (image.shape[-2] - height + 1, image.shape[-1] - width + 1, 2)
    )
    part = image[..., top : top + height, left : left + width]
    return part.flip(-1) if flip else part


def random_crops(images: Sequence[Tensor], share: float, generator: torch.Generator) -> list[Tensor]:
    """Return a random crop of each picture."""
    return [random_crop(image, share, generator) for image in images]


def as_floats(pixels: Tensor, device: torch.device) -> Tensor:
    """Return uint8 pixels `(B, 3, h, w)` on a device as floats in [0, 1], channels last."""
    return pixels.to(device, memory_format=torch.channels_last).float() / 255
