"""Random crops of pictures held as uint8, drawn from a generator of the run's own."""

from __future__ import annotations

import torch
from torch import Tensor


def crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crop each uint8 image of a batch at a place of its own, flip half of them, return floats in [0, 1]."""
    room = images.shape[-1] - size
    out = []
    for image in images:
        top, left, flip = (int(torch.randint(n, (1,), generator=generator)) for n in (room + 1, room + 1, 2))
        crop = image[:, top : top + size, left : left + size]
        out.append(crop.flip(-1) if flip else crop)
    return torch.stack(out).float() / 255


def ladder_crops(ladder: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crop the steps of one ladder at the same place, so that only the degradation differs."""
    stacked = ladder.reshape(1, -1, *ladder.shape[-2:])
    return crops(stacked, size, generator).reshape(-1, 3, size, size)
