"""Pictures of nothing, which are to score low whatever their grain."""

from __future__ import annotations

import numpy as np
from PIL import Image

from leafiqa.training.degradations.arrays import Pixels


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
