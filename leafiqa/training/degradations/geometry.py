"""Degradations that move parts of a picture."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from leafiqa.training.degradations.arrays import Picture, gaussian, size_factor, strength


def fringes(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Coloured fringes: red and blue displaced to either side."""
    shift = max(1, round(strength((1, 2, 3, 5, 8), level) * size_factor(picture)))
    columns = np.arange(picture.shape[1])
    spoilt = picture.copy()
    for channel, offset in ((0, -shift), (2, shift)):
        spoilt[..., channel] = picture[:, (columns + offset).clip(0, len(columns) - 1), channel]
    return spoilt


def warped(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Shapes bent by a smooth random field, as malformed ones are."""
    factor = size_factor(picture)
    field = gaussian(rng.normal(0, 1, picture.shape).astype(np.float32), rng.uniform(8, 22) * factor)[..., :2]
    field *= strength((2, 4, 7, 11, 17), level) * factor / (np.abs(field).max((0, 1)) + 1e-6)
    places = np.mgrid[: picture.shape[0], : picture.shape[1]] + field.transpose(2, 0, 1)
    bent = [ndimage.map_coordinates(picture[..., c], places, order=1, mode="reflect") for c in range(3)]
    return np.stack(bent, axis=-1)
