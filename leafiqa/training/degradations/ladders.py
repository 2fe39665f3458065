"""Severity ladders: one picture, one degradation, steps that any viewer would put in the same order.

A ladder is evidence that needs no teacher: the milder step is better than the stronger one, and what is wrong with it
is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leafiqa.training.degradations import coding, geometry, grain, sharpness, tones
from leafiqa.training.degradations.arrays import LEVELS, Picture, Pixels, to_bytes, to_unit


@dataclass(frozen=True)
class Degradation:
    """One way to spoil a picture.

    Attributes:
        spoil: what does it, to a float picture at a level, with random numbers.
        cost: share of a picture's score that one level costs. Ours, in round figures: a teacher's judgments of 550
            pictures that were damaged on purpose gave about .17 for blur, .12 for noise, .15 for upscaling.
        defect: the defect that a viewer would name, None where there is no word for it.
    """

    spoil: Callable[[Picture, float, np.random.Generator], Picture]
    cost: float
    defect: str | None = None


# Level 1 is just visible at 512x512, level 5 is bad; radii grow with the picture.
DEGRADATIONS: dict[str, Degradation] = {
    "blur": Degradation(sharpness.blur, 0.17, "blur"),
    "defocus": Degradation(sharpness.defocus, 0.17, "blur"),
    "motion": Degradation(sharpness.motion, 0.16, "motion"),
    "downscale": Degradation(sharpness.downscale, 0.15, "blur"),
    "pixelate": Degradation(sharpness.pixelate, 0.15),
    "halos": Degradation(sharpness.halos, 0.09, "texture"),
    "noise": Degradation(grain.noise, 0.13, "noise"),
    "grey_noise": Degradation(grain.grey_noise, 0.13, "noise"),
    "sensor_noise": Degradation(grain.sensor_noise, 0.13, "noise"),
    "impulses": Degradation(grain.impulses, 0.13, "noise"),
    "denoised": Degradation(grain.denoised, 0.11),
    "jpeg": Degradation(coding.jpeg, 0.13, "compression"),
    "webp": Degradation(coding.webp, 0.11, "compression"),
    "jpeg2000": Degradation(coding.jpeg2000, 0.14, "compression"),
    "banding": Degradation(coding.banding, 0.11),
    "lost_blocks": Degradation(coding.lost_blocks, 0.13, "compression"),
    "overexposed": Degradation(tones.overexposed, 0.13, "bright"),
    "underexposed": Degradation(tones.underexposed, 0.13, "dark"),
    "low_contrast": Degradation(tones.low_contrast, 0.10, "contrast"),
    "high_contrast": Degradation(tones.high_contrast, 0.10),
    "haze": Degradation(tones.haze, 0.10, "contrast"),
    "vignette": Degradation(tones.vignette, 0.07),
    "colour_cast": Degradation(tones.colour_cast, 0.09, "colour"),
    "oversaturated": Degradation(tones.oversaturated, 0.09, "colour"),
    "faded": Degradation(tones.faded, 0.06),
    "fringes": Degradation(geometry.fringes, 0.10),
    "warped": Degradation(geometry.warped, 0.13, "structure"),
}


def degrade(pixels: Pixels, name: str, level: float, seed: int) -> Pixels:
    """Return a degraded copy of a picture.

    Args:
        pixels: `(H, W, 3)` uint8 RGB.
        name: a key of `DEGRADATIONS`.
        level: how strongly, from 1, just visible, to 5, bad; levels in between are in between.
        seed: draws what is random about it: the noise, a direction, a hue.

    Returns:
        `(H, W, 3)` uint8.
    """
    return to_bytes(DEGRADATIONS[name].spoil(to_unit(pixels), level, np.random.default_rng(seed)))


def ladder(pixels: Pixels, name: str, seed: int) -> list[Pixels]:
    """Return the picture and its five degraded versions, mildest first; `seed` is the same at each level."""
    return [pixels] + [degrade(pixels, name, level, seed) for level in range(1, LEVELS + 1)]
