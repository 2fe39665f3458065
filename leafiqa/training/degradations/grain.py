"""Degradations by noise, and by its removal."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from leafiqa.training.degradations.arrays import Picture, gaussian, strength, to_bytes, to_unit

_STD = (8, 16, 28, 45, 70)
_GAMMA = 2.2


def noise(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise, independent in each channel."""
    return picture + rng.normal(0, strength(_STD, level) / 255, picture.shape).astype(np.float32)


def grey_noise(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise of brightness alone."""
    return picture + rng.normal(0, strength(_STD, level) / 255, (*picture.shape[:2], 1)).astype(np.float32)


def sensor_noise(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Shot and read noise in linear light, blotchy as after demosaicing: a camera at high sensitivity."""
    linear = picture.clip(0, 1) ** _GAMMA
    gain = 1 / strength((900, 260, 90, 35, 14), level)  # one over the electrons of a white pixel
    fine = rng.normal(0, 1, picture.shape).astype(np.float32)
    blotches = gaussian(fine, strength((0.6, 0.8, 1.0, 1.3, 1.6), level))
    blotches /= blotches.std() + 1e-6
    noisy = linear + (0.5 * fine + 0.8 * blotches) * np.sqrt(linear * gain + (1.5 * gain) ** 2)
    return noisy.clip(0, 1) ** (1 / _GAMMA)


def impulses(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Dead and hot pixels."""
    draw = rng.random(picture.shape[:2])
    share = strength((0.004, 0.015, 0.04, 0.1, 0.25), level)
    spoilt = picture.copy()
    spoilt[draw < share / 2] = 0
    spoilt[draw > 1 - share / 2] = 1
    return spoilt


def denoised(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Noise that was removed too hard: flat patches as of watercolour."""
    noisy = to_bytes(picture + rng.normal(0, strength((4, 8, 14, 22, 32), level) / 255, picture.shape))
    return to_unit(Image.fromarray(noisy).filter(ImageFilter.MedianFilter(3 if level < 2.5 else 5)))
