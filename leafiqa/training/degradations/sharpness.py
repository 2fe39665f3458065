"""Degradations of detail: blur of several origins, too few pixels, too much sharpening."""

from __future__ import annotations

import numpy as np
from PIL import Image

from leafiqa.training.degradations.arrays import (
    Picture,
    convolve,
    gaussian,
    size_factor,
    strength,
    to_bytes,
    to_unit,
)

_DOWN = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_UP = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def blur(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Gaussian blur."""
    return gaussian(picture, strength((0.8, 1.5, 2.6, 4.2, 7.0), level) * size_factor(picture))


def defocus(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Out of focus: the disc of a round aperture."""
    radius = strength((1.2, 2.2, 3.6, 5.5, 9.0), level) * size_factor(picture)
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (radius + 0.5 - np.hypot(rows, columns)).clip(0, 1)
    return convolve(picture, kernel / kernel.sum())


def motion(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Motion blur along a slightly bent path in any direction."""
    length = strength((3, 6, 10, 17, 28), level) * size_factor(picture)
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.15)
    reach = int(np.ceil(length / 2)) + 1
    times = np.linspace(-0.5, 0.5, 4 * reach + 8)
    path = np.stack([np.sin(angle + 4 * bend * times), np.cos(angle + 4 * bend * times)]) * times * length + reach
    corner = np.floor(path).astype(int)
    share = path - corner
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for row in (0, 1):
        for column in (0, 1):
            weight = np.abs(1 - row - share[0]) * np.abs(1 - column - share[1])
            np.add.at(kernel, (corner[0] + row, corner[1] + column), weight)
    return convolve(picture, kernel / kernel.sum())


def downscale(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Downscaling and upscaling back, each by a kernel that is drawn."""
    factor = strength((1.6, 2.4, 3.6, 5.5, 9.0), level)
    height, width = picture.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(to_bytes(picture)).resize(small, _DOWN[rng.integers(len(_DOWN))])
    return to_unit(image.resize((width, height), _UP[rng.integers(len(_UP))]))


def pixelate(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Large square pixels."""
    factor = strength((2, 3, 4.5, 7, 12), level) * size_factor(picture)
    height, width = picture.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(to_bytes(picture)).resize(small, Image.Resampling.BOX)
    return to_unit(image.resize((width, height), Image.Resampling.NEAREST))


def halos(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Sharpening until edges have halos."""
    radius = rng.uniform(1, 2.5) * size_factor(picture)
    return picture + (picture - gaussian(picture, radius)) * strength((1.5, 2.8, 4.5, 7, 12), level)
