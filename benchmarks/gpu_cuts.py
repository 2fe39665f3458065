"""Random crops out of the pictures of a `Bank`, a whole step's in a few launches.

Crops have several sizes, as pictures have, and are resized to one. Each is gathered into a square that the largest one
fills, and resized by two matrix products whose matrices know its own size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.bank import STORED, Bank


@dataclass(frozen=True)
class Crops:
    """Where crops are; arrays of one length.

    Attributes:
        numbers: of the pictures in the bank.
        versions: 0 as it is, 1 and 2 degraded.
        tops: first row.
        lefts: first column.
        sides: of the squares.
        flips: whether they are mirrored.
    """

    numbers: NDArray[np.int64]
    versions: NDArray[np.int64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    sides: NDArray[np.int64]
    flips: NDArray[np.bool_]

    def of_version(self, version: int, count: int) -> Crops:
        """Return the same crops of another version of the first `count` pictures."""
        first = Crops(*(getattr(self, one.name)[:count] for one in fields(Crops)))
        return replace(first, versions=np.full(count, version))


def joined(several: list[Crops]) -> Crops:
    """Return several crops as one."""
    return Crops(*(np.concatenate([getattr(crops, one.name) for crops in several]) for one in fields(Crops)))


class Cutter:
    """Cuts a step's pictures out of a bank.

    Args:
        bank: the pictures.
        device: its device.
    """

    def __init__(self, bank: Bank, device: torch.device) -> None:
        self.bank, self.device = bank, device
        self.nulls = np.arange(len(bank.pictures), len(bank.starts))
        self._dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._tables: dict[int, Tensor] = {}

    def draw(self, numbers: NDArray[np.int64], area: int, crop: int, rng: np.random.Generator) -> Crops:
        """Return random crops of pictures as they are.

        Args:
            numbers: of the pictures.
            area: side of the square to whose area whole pictures would be resized.
            crop: side of the crops.
            rng: draws places and flips.
        """
        heights, widths = self.bank.heights[numbers], self.bank.widths[numbers]
        sides = np.minimum(np.minimum(heights, widths), round(crop * STORED / area))
        count = len(numbers)
        return Crops(
            numbers,
            np.zeros(count, np.int64),
            rng.integers(heights - sides + 1),
            rng.integers(widths - sides + 1),
            sides,
            rng.integers(2, size=count).astype(bool),
        )

    def cut(self, crops: Crops, crop: int) -> Tensor:
        """Return crops `(B, 3, crop, crop)` in [0, 1], channels-last."""

        def sent(values: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)

        heights, widths = self.bank.heights[crops.numbers], self.bank.widths[crops.numbers]
        start = sent(self.bank.starts[crops.numbers] + crops.versions * heights * widths)
        sides, most = sent(crops.sides), int(crops.sides.max())
        inside = torch.minimum(torch.arange(most, device=self.device), sides[:, None] - 1)
        rows = start[:, None] + (sent(crops.tops)[:, None] + inside) * sent(widths)[:, None]
        columns = sent(crops.lefts)[:, None] + inside
        found = self.bank.pixels[rows[:, :, None] + columns[:, None, :]]
        weights = self._table(crop)[sides - 1][..., :most]
        count = len(start)
        made = weights @ found.transpose(1, 2).reshape(count, most, most * 3).to(self._dtype)
        made = weights @ made.view(count, crop, most, 3).transpose(1, 2).reshape(count, most, crop * 3)
        images = made.view(count, crop, crop, 3).permute(0, 3, 1, 2).float() / 255
        flipped = torch.from_numpy(crops.flips).to(self.device, non_blocking=True)[:, None, None, None]
        return torch.where(flipped, images.flip(3), images)

    def _table(self, crop: int) -> Tensor:
        """Return, by the side of what is resized less one, the weights of its lines, `(sides, crop, most)`."""
        if crop not in self._tables:
            most = int(np.minimum(self.bank.heights, self.bank.widths).max())
            table = torch.zeros(most, crop, most, dtype=self._dtype, device=self.device)
            for side in range(1, most + 1):
                lines = torch.eye(side, device=self.device)[None, None]
                made = functional.interpolate(lines, size=(crop, side), mode="bilinear", antialias=True)
                table[side - 1, :, :side] = made[0, 0].to(self._dtype)
            self._tables[crop] = table
        return self._tables[crop]
