"""Degradations of light and colour."""

from __future__ import annotations

import numpy as np

from leafiqa.training.degradations.arrays import Picture, luma, strength

_GAMMA = 2.2


def overexposed(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Too much light, in linear light, clipped."""
    linear = picture**_GAMMA * 2.0 ** strength((0.7, 1.3, 1.9, 2.6, 3.5), level)
    return linear.clip(0, 1) ** (1 / _GAMMA)


def underexposed(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Too little light."""
    return (picture**_GAMMA * 2.0 ** -strength((0.9, 1.6, 2.3, 3.1, 4.2), level)) ** (1 / _GAMMA)


def low_contrast(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Contrast that is too low."""
    middle = picture.mean() * 0.5 + 0.25
    return middle + (picture - middle) * np.float32(strength((0.7, 0.5, 0.36, 0.25, 0.15), level))


def high_contrast(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Contrast that is too high: shadows and lights are lost."""
    return (picture - 0.5) * np.float32(strength((1.5, 2.0, 2.8, 4.0, 7.0), level)) + 0.5


def haze(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Haze, thicker towards the top."""
    clear = strength((0.75, 0.58, 0.42, 0.3, 0.2), level)
    distance = np.linspace(1.15, 0.85, picture.shape[0], dtype=np.float32)[:, None, None]
    return picture * clear**distance + np.float32(rng.uniform(0.75, 0.92)) * (1 - clear**distance)


def vignette(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Dark corners."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    far = np.hypot(rows, columns)[..., None].astype(np.float32)
    return picture * np.exp(-np.float32(strength((0.5, 0.9, 1.4, 2.1, 3.2), level)) * far**2)


def colour_cast(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """A wrong white balance of any hue."""
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4], np.float32) * np.pi / 3
    return picture * (2.0 ** (np.cos(hue) * strength((0.25, 0.45, 0.7, 1.0, 1.5), level))).astype(np.float32)


def oversaturated(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Colours that are too strong."""
    grey = luma(picture)
    return grey + (picture - grey) * np.float32(strength((1.7, 2.4, 3.3, 4.5, 7), level))


def faded(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Colours that are too weak."""
    grey = luma(picture)
    return grey + (picture - grey) * np.float32(strength((0.6, 0.42, 0.28, 0.15, 0.03), level))
