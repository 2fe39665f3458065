"""Degradations by compression and transmission."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from leafiqa.training.degradations.arrays import Picture, size_factor, strength, to_bytes, to_unit


def _through(picture: Picture, codec: str, **options: Any) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(picture)).save(buffer, codec, **options)
    return to_unit(Image.open(buffer).convert("RGB"))


def jpeg(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """JPEG compression."""
    return _through(picture, "JPEG", quality=round(strength((40, 22, 13, 8, 4), level)))


def webp(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """WebP compression; its worst is better than bad, so the last levels are compressed again, as JPEG."""
    small = _through(picture, "WEBP", quality=round(strength((30, 15, 7, 3, 0), level)), method=0)
    return jpeg(small, level - 1, rng) if level > 4 else small


def jpeg2000(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """JPEG 2000 compression."""
    rate = strength((30, 60, 110, 200, 380), level)
    return _through(picture, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True)


def banding(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Too few steps of brightness."""
    steps = strength((20, 13, 9, 6, 4), level) - 1
    return np.round(picture * steps) / np.float32(steps)


def lost_blocks(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Blocks that were lost in transmission: flat, misplaced or torn."""
    height, width = picture.shape[:2]
    side = max(8, round(int(rng.choice([16, 24, 32])) * size_factor(picture)))
    count = max(1, round(strength((3, 8, 18, 40, 90), level) * height * width / side**2 / 256))
    spoilt = picture.copy()
    for _ in range(count):
        top, left = rng.integers(0, max(1, height // side)) * side, rng.integers(0, max(1, width // side)) * side
        block = spoilt[top : top + side, left : left + side]
        rows, columns = block.shape[:2]
        other_top, other_left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        how = rng.integers(3)
        if how == 0:
            block[:] = block.mean((0, 1))
        elif how == 1:
            block[:] = picture[other_top : other_top + rows, other_left : other_left + columns]
        else:
            block[:] = 0.5 * (block.mean((0, 1)) > 0.5) + 0.25
    return spoilt
