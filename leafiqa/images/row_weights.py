"""How lines of pixels are weighted in antialiased resizing: a triangle as wide as the reduction. No torch is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Weights of longer sides are made anew for each image, and a folder has few other sizes.
KEPT, LONGEST_KEPT = 32, 8192


@dataclass(frozen=True)
class Sums:
    """Some lines of a result, as weighted sums of lines of an image.

    Attributes:
        begin: the first line of the result.
        end: the line of the result after the last one.
        low: the first line of the image that has a part in them.
        high: the line of the image after the last one that has.
        lines: `(end - begin, n)` int64, which lines, counted from `low`.
        weights: `(end - begin, n)` float32, which add up to 1; what has no part has the weight 0.
    """

    begin: int
    end: int
    low: int
    high: int
    lines: NDArray[np.int64]
    weights: NDArray[np.float32]


def _make(size_in: int, size_out: int, begin: int, end: int) -> Sums:
    scale = size_in / size_out
    support = max(scale, 1.0)
    centres = (np.arange(begin, end) + 0.5) * scale
    first = np.maximum(np.ceil(centres - support - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(centres + support - 0.5), size_in - 1).astype(np.int64)
    lines = first[:, None] + np.arange(int((last - first).max()) + 1)
    weights = np.clip(1 - np.abs(lines + 0.5 - centres[:, None]) / support, 0, None) * (lines <= last[:, None])
    low = int(first[0])
    # A line beyond the end has no weight: any other may stand in its place.
    lines = np.minimum(lines, last[:, None]) - low
    return Sums(begin, end, low, int(last[-1]) + 1, lines, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


@lru_cache(maxsize=KEPT)
def _kept(size_in: int, size_out: int) -> Sums:
    return _make(size_in, size_out, 0, size_out)


def _part(whole: Sums, begin: int, end: int) -> Sums:
    lines = whole.lines[begin:end]
    low = int(lines[0, 0])
    return Sums(begin, end, low, int(lines[-1, -1]) + 1, lines - low, whole.weights[begin:end])


def sums_of_lines(size_in: int, size_out: int, at_a_time: int) -> Iterator[Sums]:
    """Yield which lines each line of the result is a weighted sum of, and with what weights.

    Args:
        size_in: lines of the image.
        size_out: lines of the result.
        at_a_time: how many lines of the image may be looked at in one go; more if one sum has more.
    """
    reach = 2 * math.ceil(max(size_in / size_out, 1.0)) + 1
    several = max(1, (at_a_time - reach) * size_out // size_in)
    whole = _kept(size_in, size_out) if size_in <= LONGEST_KEPT else None
    if whole is not None and several >= size_out:
        yield whole
        return
    for begin in range(0, size_out, several):
        end = min(begin + several, size_out)
        yield _make(size_in, size_out, begin, end) if whole is None else _part(whole, begin, end)


def height_first(high: int, wide: int, height: int, width: int) -> bool:
    """Whether an image is to be resized along its height first: but for strips, of which that would leave much more."""
    return height * wide <= 4 * high * width
