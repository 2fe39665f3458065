"""Antialiased resizing without torch: each line of the result is a weighted sum of a few lines.

The weights of a side are a matrix with few entries, whose product with rows of pixels takes scipy a fraction of the
time of ONNX Runtime's own resizing. What were columns are rows after a transposition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.images.loading import load_ahead
from leafiqa.images.row_weights import Sums, height_first, sums_of_lines

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
    turned = _transposed(_shortened(image, first, threads).reshape(first, count * 3)).reshape(count, 3 * first, 1)
    across = _shortened(turned, second, threads).reshape(second * 3, first)
    return _transposed(across).reshape(first, second, 3)


def _transposed(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(k, n)` of `(n, k)`.

    A few rows at a time: of whole columns, whose numbers may lie multiples of 4 KiB apart, the cache holds hardly any.
    """
    turned = np.empty(matrix.shape[::-1], np.float32)
    for start in range(0, len(matrix), _TURNED):
        turned[:, start : start + _TURNED] = matrix[start : start + _TURNED].T
    return turned


def _shortened(rows: NDArray[Any], size: int, threads: int) -> NDArray[np.float32]:
    """Resize `(n, k, c)` to `(size, k, c)`."""
    if len(rows) == size:
        return rows.astype(np.float32, copy=False)
    made = np.empty((size, *rows.shape[1:]), np.float32)
    step = max(1, _WIDEST // rows.shape[2])
    width = min(step, rows.shape[1]) * rows.shape[2]

    def work(start: int) -> None:
        for sums in sums_of_lines(len(rows), size, _AT_A_TIME // width):
            piece = rows[sums.low : sums.high, start : start + step].astype(np.float32)
            summed = _matrix(sums) @ piece.reshape(len(piece), -1)
            made[sums.begin : sums.end, start : start + step] = summed.reshape(-1, *piece.shape[1:])

    starts = range(0, rows.shape[1], step)
    for _ in load_ahead(work, starts, workers=threads) if threads > 1 and rows.size > _LARGE else map(work, starts):
        pass
    return made


def _matrix(sums: Sums) -> Any:
    from scipy.sparse import csr_array  # a tenth of a second to import

    count, each = sums.lines.shape
    ends = np.arange(0, count * each + 1, each)
    return csr_array((sums.weights.ravel(), sums.lines.ravel(), ends), shape=(count, sums.high - sums.low))
