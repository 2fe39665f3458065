"""Severity ladders: one picture, one degradation, steps that any viewer would put in the same order.

A ladder is evidence that needs no teacher: the milder step is better than the stronger one.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]

LEVELS = 5
# Parameters of levels 1..5, chosen so that level 1 is just visible at 512x512 and level 5 is bad.
_BLUR_RADIUS = (0.8, 1.5, 2.6, 4.2, 7.0)
_NOISE_STD = (8.0, 16.0, 28.0, 45.0, 70.0)
_JPEG_QUALITY = (40, 22, 13, 8, 4)
_DOWNSCALE = (1.6, 2.4, 3.6, 5.5, 9.0)
_EXPOSURE_STOPS = (0.7, 1.3, 1.9, 2.6, 3.5)


def blur(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """Gaussian blur."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(_BLUR_RADIUS[level - 1])))


def noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """Additive Gaussian noise, independent in each channel."""
    noisy = pixels + rng.normal(0, _NOISE_STD[level - 1], pixels.shape)
    return noisy.clip(0, 255).round().astype(np.uint8)


def jpeg(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """JPEG compression."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY[level - 1])
    return np.asarray(Image.open(buffer).convert("RGB"))


def downscale(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """Downscaling and bicubic upscaling back."""
    height, width = pixels.shape[:2]
    factor = _DOWNSCALE[level - 1]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(pixels).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def exposure(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """Over- or underexposure in linear light, clipped; one direction for a ladder (drawn from `rng`)."""
    stops = _EXPOSURE_STOPS[level - 1] * (1 if rng.integers(2) else -1)
    linear = (pixels / 255.0) ** 2.2 * 2.0**stops
    return (255 * linear.clip(0, 1) ** (1 / 2.2)).round().astype(np.uint8)


DEGRADATIONS: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "downscale": downscale,
    "exposure": exposure,
}


def ladder(pixels: Pixels, name: str, seed: int) -> list[Pixels]:
    """Return the picture and its five degraded versions, mildest first.

    Args:
        pixels: `(H, W, 3)` uint8 RGB.
        name: a key of `DEGRADATIONS`.
        seed: draws the noise and the direction of exposure; the same at each level.
    """
    degrade = DEGRADATIONS[name]
    return [pixels] + [degrade(pixels, level, np.random.default_rng(seed)) for level in range(1, LEVELS + 1)]


def null_image(size: int, rng: np.random.Generator) -> Pixels:
    """Return a `(size, size, 3)` picture of nothing: flat colour, smooth gradient, or noise of some grain."""
    kind = rng.integers(4)
    if kind == 0:
        return np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (size, size, 3)).copy()
    if kind == 1:
        corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        return np.asarray(corners.resize((size, size), Image.Resampling.BILINEAR))
    grain = int(rng.choice([1, 1, 2, 4, 8, 16]))
    cells = -(-size // grain)
    channels = 1 if rng.integers(2) else 3
    if kind == 2:
        field = rng.integers(0, 256, (cells, cells, channels)).astype(np.float64)
    else:
        field = rng.normal(rng.uniform(60, 200), rng.uniform(10, 80), (cells, cells, channels)).clip(0, 255)
    image = Image.fromarray(np.repeat(field, 3 // channels, axis=2).astype(np.uint8))
    resample = Image.Resampling.NEAREST if rng.integers(2) else Image.Resampling.BILINEAR
    return np.asarray(image.resize((cells * grain, cells * grain), resample))[:size, :size]
