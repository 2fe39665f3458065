"""What the degradations share: float pictures, strengths by level, filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

# `(H, W, 3)`: uint8 as it comes and goes, floats of 0 to 1 in between. Steps may leave that range; the end clips.
Pixels = NDArray[np.uint8]
Picture = NDArray[np.floating]

LEVELS = 5
# Below, a radius would be a fraction of a pixel and change nothing.
_LEAST_FACTOR = 0.6
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_bytes(picture: Picture) -> Pixels:
    """Return a float picture as uint8, clipped and rounded."""
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def to_unit(pixels: object) -> Picture:
    """Return uint8 pixels, an array or a PIL image, as float32 in [0, 1]."""
    return np.asarray(pixels, np.float32) / 255


def strength(values: tuple[float, ...], level: float) -> float:
    """Return what a level between 1 and 5 stands for, given the values of the five whole levels."""
    return float(np.interp(level, range(1, LEVELS + 1), values))


def size_factor(picture: Picture) -> float:
    """Return how many times larger than 512x512 a picture is, along a side: radii grow with it, to a least one."""
    return max(_LEAST_FACTOR, float(np.sqrt(picture.shape[0] * picture.shape[1]) / 512))


def luma(picture: Picture) -> Picture:
    """Return `(H, W, 1)` luma."""
    return (picture @ _LUMA)[..., None]


def gaussian(picture: Picture, sigma: float) -> Picture:
    """Blur each channel by a Gaussian."""
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0), truncate=3)


def convolve(picture: Picture, kernel: NDArray[np.floating]) -> Picture:
    """Convolve each channel with a square kernel of odd size that sums to one; borders are mirrored."""
    radius = kernel.shape[0] // 2
    around = ((radius, radius), (radius, radius), (0, 0))
    wide = min(picture.shape[:2]) > radius
    padded = np.pad(picture, around, mode="reflect") if wide else np.pad(picture, around, mode="edge")
    return signal.fftconvolve(padded, kernel[..., None].astype(np.float32), mode="valid", axes=(0, 1)).astype(
        np.float32
    )
