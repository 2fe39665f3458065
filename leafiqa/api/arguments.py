"""What the verbs take, in the forms that callers have it in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.errors import InputError

if TYPE_CHECKING:
    from leafiqa.labels.mos_table import MosTable
    from leafiqa.metric import Metric

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Progress = Callable[[int, int], None]


def as_metric(metric: Any, weights: str | os.PathLike[str] | None, device: Any = None) -> Metric:
    """Return the metric that a verb's arguments mean: a name, a metric, a calibration, or a place."""
    from leafiqa.metric import Metric, load_metric

    if weights is not None:
        return load_metric(weights=weights, device=device)
    if isinstance(metric, str):
        return load_metric(metric, device=device)
    metric = metric if isinstance(metric, Metric) else getattr(metric, "metric", metric)
    if not isinstance(metric, Metric):
        raise InputError(f"metric must be a name, a metric or a calibration, got {metric!r}; a place goes into weights")
    return metric


def as_metrics(metric: Any, weights: str | os.PathLike[str] | None, device: Any) -> list[Metric]:
    """Return the metrics that one metric, or a list of them, means."""
    given = list(metric) if isinstance(metric, (list, tuple)) else [metric]
    return [as_metric(one, weights, device) for one in given] if weights is None else [as_metric("", weights, device)]


def as_labels(
    labels: Any,
    images: Any,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    part_column: str | None = None,
    score_columns: tuple[str, ...] = (),
) -> MosTable:
    """Return the table of human scores that a path or a table means."""
    from leafiqa.labels.datasets import read_labels
    from leafiqa.labels.mos_table import MosTable

    if isinstance(labels, MosTable):
        return labels
    return read_labels(
        labels,
        images=images,
        image_column=image_column,
        mos_column=mos_column,
        split=split,
        part_column=part_column,
        score_columns=score_columns,
    )


def as_files(files: Any) -> list[Path]:
    """Return the files that one path, or several, mean."""
    return [Path(files)] if isinstance(files, (str, os.PathLike)) else [Path(file) for file in files]
