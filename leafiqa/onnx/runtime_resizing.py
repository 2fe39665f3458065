"""Antialiased resizing without torch: each line of the result is a weighted sum of a few lines.

The weights of a side are a matrix with few entries, whose product with rows of pixels takes scipy a fraction of the
time of ONNX Runtime's own resizing. What were columns are rows after a transposition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.images.loading import load_ahead
from leafiqa.images.row_weights import KEPT, LONGEST_KEPT, Sums, height_first, sums_of_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Numbers that are summed at a time (2 MiB), so that they stay in the processor's cache, and those of a row among them.
_AT_A_TIME, _WIDEST = 1 << 19, 1 << 12
# Below so many numbers threads cost more than they save.
_LARGE = 1 << 22
_TURNED = 16


def resize(pixels: NDArray[Any], height: int, width: int, threads: int = 1) -> NDArray[np.float32]:
    """Resize pixels as `leafiqa.model.resizing` does, to 2e-6 of their range, in which they stay.

    Args:
        pixels: `(1, H, W, 3)`, uint8 or float32.
        height: output height.
        width: output width.
        threads: that share a large picture.

    Returns:
        `(1, height, width, 3)` float32.
    """
    image = pixels[0]
    high, wide = image.shape[:2]
    if height_first(high, wide, height, width):
        return _resize_along(image, height, width, threads)[None]
    turned = _resize_along(image.transpose(1, 0, 2), width, height, threads)
    return np.ascontiguousarray(turned.transpose(1, 0, 2))[None]


def _resize_along(image: NDArray[Any], first: int, second: int, threads: int) -> NDArray[np.float32]:
    """Resize `(n, k, 3)` to `(first, second, 3)`, along its first dimension first."""
    count = image.shape[1]
    shorter = _shortened(image, first, threads).reshape(first, count * 3)
    turned = _transposed(shorter, threads).reshape(count, 3 * first, 1)
    across = _shortened(turned, second, threads).reshape(second * 3, first)
    return _transposed(across, threads).reshape(first, second, 3)


def _transposed(matrix: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """Return `(k, n)` of `(n, k)`.

    A few rows at a time: of whole columns, whose numbers may lie multiples of 4 KiB apart, the cache holds hardly any.
    """
    turned = np.empty(matrix.shape[::-1], np.float32)

    def work(start: int) -> None:
        turned[:, start : start + _TURNED] = matrix[start : start + _TURNED].T

    _each(work, range(0, len(matrix), _TURNED), threads if matrix.size > _LARGE // 2 else 1)
    return turned


def _shortened(rows: NDArray[Any], size: int, threads: int) -> NDArray[np.float32]:
    """Resize `(n, k, c)` to `(size, k, c)`."""
    if len(rows) == size:
        return rows.astype(np.float32, copy=False)
    made = np.empty((size, *rows.shape[1:]), np.float32)
    threads = threads if rows.size > _LARGE else 1
    # As many parts for each thread: of three parts, one of two threads would do two.
    widest = max(1, _WIDEST // rows.shape[2])
    step = math.ceil(rows.shape[1] / (threads * math.ceil(rows.shape[1] / (threads * widest))))

    def work(start: int) -> None:
        for sums, matrix in _matrices(len(rows), size, _AT_A_TIME // (step * rows.shape[2])):
            piece = rows[sums.low : sums.high, start : start + step].astype(np.float32)
            summed = matrix @ piece.reshape(len(piece), -1)
            made[sums.begin : sums.end, start : start + step] = summed.reshape(-1, *piece.shape[1:])

    _each(work, range(0, rows.shape[1], step), threads)
    return made


def _each(work: Callable[[int], None], starts: Iterable[int], threads: int) -> None:
    for _ in load_ahead(work, starts, workers=threads) if threads > 1 else map(work, starts):
        pass


def _matrices(size_in: int, size_out: int, at_a_time: int) -> Iterable[tuple[Sums, Any]]:
    """Return the parts of the matrix that resizes a side; those of a long side are made anew each time, one by one."""
    if size_in <= LONGEST_KEPT:
        return _kept_matrices(size_in, size_out, at_a_time)
    return ((sums, _matrix(sums)) for sums in sums_of_lines(size_in, size_out, at_a_time))


@lru_cache(maxsize=KEPT)
def _kept_matrices(size_in: int, size_out: int, at_a_time: int) -> tuple[tuple[Sums, Any], ...]:
    return tuple((sums, _matrix(sums)) for sums in sums_of_lines(size_in, size_out, at_a_time))


def _matrix(sums: Sums) -> Any:
    from scipy.sparse import csr_array  # a tenth of a second to import

    count, each = sums.lines.shape
    ends = np.arange(0, count * each + 1, each)
    return csr_array((sums.weights.ravel(), sums.lines.ravel(), ends), shape=(count, sums.high - sums.low))
