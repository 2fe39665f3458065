"""Antialiased resizing in ONNX Runtime, in pieces that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.images.loading import load_ahead
from leafiqa.onnx.sessions import open_session
from leafiqa.onnx.stored_graphs import resizing_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pixels that are resized at a time: more of them, as floats, would be fetched from memory again for each step.
_PIECE_PIXELS = 1 << 18


class Resizer:
    """Resizes pixels as `leafiqa.model.resizing` does, to about 2e-5 of their range."""

    def __init__(self) -> None:
        # A piece needs little, and memory that is kept need not be zeroed by the system again.
        self._sessions = {kind: open_session(resizing_graph(kind), threads=1) for kind in ("uint8", "float")}

    def resize(self, pixels: NDArray[Any], height: int, width: int, threads: int = 1) -> NDArray[np.float32]:
        """Resize pixels, which stay in their range.

        Args:
            pixels: `(1, H, W, 3)`, uint8 or float32.
            height: output height.
            width: output width.
            threads: pieces that are resized at the same time.

        Returns:
            `(1, height, width, 3)` float32.
        """
        rows, columns = pixels.shape[1:3]
        if rows * columns <= _PIECE_PIXELS:
            return self._run(pixels, height, width)
        # The order that leaves less in between: of a strip of one pixel's width, millions high, first the height.
        if rows * width <= height * columns:
            return self._shorten(self._narrow(pixels, width, threads), height, threads)
        return self._narrow(self._shorten(pixels, height, threads), width, threads)

    def _narrow(self, pixels: NDArray[Any], width: int, threads: int) -> NDArray[np.float32]:
        lines = max(1, _PIECE_PIXELS // pixels.shape[2])
        pieces = (pixels[:, start : start + lines] for start in range(0, pixels.shape[1], lines))
        return np.concatenate(_side_by_side(lambda one: self._run(one, one.shape[1], width), pieces, threads), axis=1)

    def _shorten(self, pixels: NDArray[Any], height: int, threads: int) -> NDArray[np.float32]:
        lines = max(1, _PIECE_PIXELS // pixels.shape[1])
        pieces = (pixels[:, :, start : start + lines] for start in range(0, pixels.shape[2], lines))
        return np.concatenate(_side_by_side(lambda one: self._run(one, height, one.shape[2]), pieces, threads), axis=2)

    def _run(self, pixels: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
        session = self._sessions["uint8" if pixels.dtype == np.uint8 else "float"]
        given = {"image": np.ascontiguousarray(pixels), "size": np.array([1, height, width, 3], np.int64)}
        resized: NDArray[np.float32] = session.run(None, given)[0]
        return resized


def _side_by_side(work: Any, pieces: Iterable[NDArray[Any]], threads: int) -> list[NDArray[np.float32]]:
    return list(load_ahead(work, pieces, workers=threads) if threads > 1 else map(work, pieces))
