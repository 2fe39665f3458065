"""Scores of a column of images: paths or bytes in a pandas, Polars or Hugging Face column, or any list.

>>> from leafiqa.integrations import score_column
>>> table["quality"] = score_column(table["path"])
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.errors import ImageWarning, InputError
from leafiqa.scoring.backends import as_metric
from leafiqa.scoring.contents import Content
from leafiqa.scoring.pipeline import score_files

if TYPE_CHECKING:
    from numpy.typing import NDArray


def score_column(
    images: Iterable[Any],
    metric: Any = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: Any = None,
    backend: str | None = None,
    draft: bool = False,
    folder: str | os.PathLike[str] = "",
    workers: int | None = None,
) -> Any:
    """Score a column of images.

    Args:
        images: a pandas or Polars series, or any iterable, of paths, of the bytes of image files, or of dicts with
            `bytes` and `path` as the `datasets` library stores images (a column cast with `decode=False`). A missing
            value has no score.
        metric: a name, a metric or a calibration.
        weights: a student in some place, instead of a name; see `leafiqa.create_metric`.
        device: where a metric given by name computes.
        backend: what computes it; see `leafiqa.score`.
        draft: decode JPEG files at reduced scale; see `leafiqa.create_metric`.
        folder: that relative paths are relative to.
        workers: see `leafiqa.score`.

    Returns:
        Scores, NaN where there is none (null in Polars), with an `ImageWarning` that counts them and tells the first
        reason: a float32 series with the index of a pandas series, a Polars series, or an array `(N,)`.

    Raises:
        InputError: `images` is no column of these.
        UnknownModelError, WeightsError: see `leafiqa.create_metric`.
    """
    if isinstance(images, (str, bytes, os.PathLike, dict)) or not isinstance(images, Iterable):
        raise InputError(f"images must be a column of paths or bytes, got {type(images).__name__}")
    if hasattr(images, "columns"):
        raise InputError(f"images must be one column, got a table with columns {list(images.columns)}")
    cells = list(images)
    sources = [(place, _source(place, cell, folder)) for place, cell in enumerate(cells) if not _is_missing(cell)]
    own = as_metric(metric, weights, device, backend, draft, without_torch=True)
    scores: NDArray[np.float32] = np.full(len(cells), np.nan, np.float32)
    reasons = [f"row {place}: no image" for place, cell in enumerate(cells) if _is_missing(cell)]
    for (place, _), row in zip(sources, score_files(own, [source for _, source in sources], workers=workers)):
        if row.score is None:
            reasons.append(f"row {place}: {row.image}: {row.error}")
        else:
            scores[place] = row.score
    if reasons:
        message = f"{len(reasons)} of {len(cells)} images have no score (NaN): {reasons[0]}"
        warnings.warn(message, ImageWarning, stacklevel=2)
    return _like(images, scores)


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell) or type(cell).__name__ in ("NAType", "NaTType")


def _source(place: int, cell: Any, folder: str | os.PathLike[str]) -> str | Content:
    if isinstance(cell, dict) and {"bytes", "path"} & set(cell):
        content, cell = cell.get("bytes"), cell.get("path") or ""
        if content is not None:
            return Content(str(cell) or f"row {place}", lambda: bytes(content))
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return Content(f"row {place}", lambda: bytes(cell))
    if isinstance(cell, (str, os.PathLike)) and os.fspath(cell):
        return os.path.join(folder, os.fspath(cell))
    raise InputError(
        f"row {place} must be a path or the bytes of a file, got {type(cell).__name__}; a decoded column of the "
        "datasets library gives its bytes after cast_column(name, datasets.Image(decode=False))"
    )


def _like(images: Any, scores: NDArray[np.float32]) -> Any:
    """Return scores in the form of the column that they are of."""
    library = type(images).__module__.split(".")[0]
    if library == "pandas" and type(images).__name__ == "Series":
        return type(images)(scores, index=images.index, name="score")
    if library == "polars" and type(images).__name__ == "Series":
        return type(images)("score", scores).fill_nan(None)
    return scores
