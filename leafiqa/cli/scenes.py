"""Scenes drawn by arithmetic, so that the demo needs no file: crisp, detailed and free of any licence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 512


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    return x, y


def _cloud(rng: np.random.Generator, octaves: int = 7, persistence: float = 0.55) -> NDArray[np.float64]:
    """Sum of smooth random fields, each finer and fainter than the last, scaled to [0, 1]."""
    total = np.zeros((SIZE, SIZE))
    for octave in range(octaves):
        cells = 2 ** (octave + 2)
        field = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += persistence**octave * np.asarray(field.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    total -= total.min()
    return total / total.max()


def _rgb(*colour: int) -> NDArray[np.float64]:
    return np.array(colour, dtype=float)


def _blend(base: NDArray[np.float64], colour: NDArray[np.float64], mask: NDArray[np.float64]) -> NDArray[np.float64]:
    return base + (colour - base) * mask[..., None]


def mountains(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Ridges fading into the distance under an evening sky."""
    x, y = _grid()
    picture = _rgb(70, 120, 200) + (_rgb(250, 200, 150) - _rgb(70, 120, 200)) * (y[..., None] * 1.6).clip(0, 1)
    picture = _blend(picture, _rgb(255, 250, 235), 0.6 * (_cloud(rng) * 2.4 - 1.2).clip(0, 1))
    sun = np.exp(-(((x - 0.7) ** 2 + (y - 0.32) ** 2) / 0.004))
    picture = _blend(picture, _rgb(255, 240, 190), sun)
    for layer in range(4):
        depth = layer / 3
        ridge = 0.42 + 0.13 * layer - 0.28 * (1 - 0.4 * depth) * _cloud(rng, 9)[layer * 97][None, :]
        rock = _cloud(rng, 8, 0.68)
        slope = rock - np.pad(rock, ((3, 0), (3, 0)), mode="edge")[:-3, :-3]
        shade = (0.5 + 5 * slope).clip(0.15, 1.2)
        colour = (_rgb(150, 160, 190) * (1 - depth) + _rgb(50, 75, 45) * depth) * shade[..., None] * 1.5
        picture = _blend(picture, colour, ((y - ridge) * SIZE).clip(0, 1))
    return picture.clip(0, 255).astype(np.uint8)


def marbles(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shaded balls on a wooden table."""
    x, y = _grid()
    grain = np.sin(60 * (y + 0.12 * _cloud(rng, 5)) + 9 * _cloud(rng, 8)) * 0.5 + 0.5
    picture = _rgb(120, 75, 40) + (_rgb(205, 150, 95) - _rgb(120, 75, 40)) * grain[..., None]
    picture = picture * (0.65 + 0.45 * (1 - y))[..., None]
    for cx, cy, r in ((0.3, 0.38, 0.17), (0.66, 0.33, 0.13), (0.52, 0.66, 0.21), (0.84, 0.66, 0.1), (0.16, 0.74, 0.11)):
        shadow = np.exp(-(((x - cx - 0.05) / r) ** 2 + ((y - cy - 0.75 * r) / (0.55 * r)) ** 2) * 1.2)
        picture = picture * (1 - 0.65 * shadow)[..., None]
        dx, dy = (x - cx) / r, (y - cy) / r
        z = np.sqrt((1 - dx**2 - dy**2).clip(0))
        light = (-0.5 * dx - 0.6 * dy + 0.62 * z).clip(0)
        swirl = np.sin(9 * dx * z + 7 * dy + 8 * _cloud(rng, 6))[..., None] * 0.5 + 0.5
        colour = rng.uniform(20, 230, 3) + (rng.uniform(20, 230, 3) - rng.uniform(20, 230, 3)) * swirl * 0.6
        ball = colour * (0.25 + 0.95 * light)[..., None] + 255 * (light**40)[..., None]
        picture = _blend(picture, ball, ((1 - np.hypot(dx, dy)) * r * SIZE).clip(0, 1))
    return picture.clip(0, 255).astype(np.uint8)


def city(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lit windows at dusk over water."""
    _, y = _grid()
    picture = _rgb(25, 30, 75) + (_rgb(235, 130, 95) - _rgb(25, 30, 75)) * ((y / 0.7) ** 2).clip(0, 1)[..., None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    horizon = int(0.72 * SIZE)
    for distance in range(3):
        left = -10
        while left < SIZE:
            width = int(rng.integers(28, 70))
            top = int(horizon - rng.integers(60, 290 - 60 * distance))
            inside = (columns >= left) & (columns < left + width) & (rows >= top) & (rows < horizon)
            picture[inside] = _rgb(70, 62, 95) * (1 - 0.3 * distance) * (0.85 + 0.15 * rng.random())
            lit = rng.random((SIZE // 9 + 1, SIZE // 7 + 1)) < 0.45
            pane = ((rows - top) % 9 < 5) & ((columns - left) % 7 < 4) & ((columns - left) < width - 4)
            glow = inside & pane & lit[rows // 9, columns // 7] & (rows > top + 4)
            picture[glow] = _rgb(255, 214, 130) * (0.75 + 0.25 * rng.random((int(glow.sum()), 1)))
            left += width + int(rng.integers(0, 9))
    depth = np.arange(SIZE - horizon)
    ripple = (3 * np.sin(depth * 0.9) + 4 * rng.random(len(depth))).astype(int)
    for d, shift in zip(depth, ripple):
        picture[horizon + d] = np.roll(picture[max(0, horizon - 1 - 2 * d)], shift, axis=0) * 0.55 + _rgb(12, 14, 30)
    # The grain that a photograph at dusk has; without it the picture is a flat drawing.
    return (picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


SCENES: dict[str, Callable[[np.random.Generator], NDArray[np.uint8]]] = {
    "mountains": mountains,
    "marbles": marbles,
    "city": city,
}
