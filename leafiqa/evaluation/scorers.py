"""Whatever scores images, as a function from paths to numbers: leafiqa's metrics, other toolkits', any callable."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.errors import ImageError, InputError
from leafiqa.images.decoding import decode
from leafiqa.metric import Metric, load_metric
from leafiqa.scoring.pipeline import score_files

Advance = Callable[[], None]


@dataclass
class Scorer:
    """Something that scores images.

    Attributes:
        name: what reports call it.
        weights: sha256 of its weights, empty where it has none of leafiqa's.
        labelled: first digits of the sha256 of the images that it was calibrated on, where its card tells.
        reasons: why an image has no score, by path; filled while scoring.
        remark: what a reader must know, such as that scores were turned round.
    """

    name: str
    score_one: Callable[[list[Path], Advance, dict[str, str]], list[float]]
    weights: str = ""
    labelled: frozenset[str] = frozenset()
    reasons: dict[str, str] = field(default_factory=dict)
    remark: str = ""

    def score(self, paths: list[Path], advance: Advance = lambda: None) -> list[float]:
        """Return a score for each path, NaN where there is none; `reasons` then tells why."""
        return self.score_one(paths, advance, self.reasons)


def as_scorer(metric: Any, device: Any = None) -> Scorer:
    """Return what a caller means by a metric.

    Args:
        metric: a bundled name; a `Metric`, or a calibration, which has one; a metric of pyiqa (called with the path)
            or of torchmetrics (called with a `(1, 3, H, W)` float tensor in [0, 1], reset before each image); another
            `torch.nn.Module` (called with such a tensor); or a callable that takes a path and returns a number. Of
            metrics that say that lower is better, scores are turned round.
        device: where a metric given by name computes.

    Raises:
        InputError: it is none of these.
        UnknownModelError: no such name.
    """
    own = own_metric(metric, device)
    if own is not None:
        return _of_leafiqa(own)
    if isinstance(metric, os.PathLike):
        raise InputError(f"a place is no metric: pass leafiqa.create_metric(weights={os.fspath(metric)!r})")
    if not callable(metric):
        raise InputError(
            f"a metric must be a name, a leafiqa metric or calibration, a module or a callable, got {metric!r}"
        )
    origins = {base.__module__.split(".")[0] for base in type(metric).__mro__}
    name = getattr(metric, "metric_name", None) or getattr(metric, "__name__", None) or type(metric).__name__
    turned = bool(getattr(metric, "lower_better", False)) or getattr(metric, "higher_is_better", None) is False
    sign = -1.0 if turned else 1.0
    takes_tensor = "torch" in origins and "pyiqa" not in origins

    def one(path: Path) -> float:
        if not takes_tensor:
            return sign * _number(metric(str(path)))
        import torch

        pixels = torch.from_numpy(decode(path).pixels.copy())
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        if hasattr(metric, "reset"):
            metric.reset()
        with torch.no_grad():
            return sign * _number(metric(pixels.permute(2, 0, 1)[None]))

    def score(paths: list[Path], advance: Advance, reasons: dict[str, str]) -> list[float]:
        found = []
        for path in paths:
            try:
                found.append(one(path))
            except Exception as error:  # somebody else's metric may raise anything; the others go on
                reasons[str(path)] = str(error) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"
                found.append(math.nan)
            advance()
        return found

    remark = f"{name}: lower is better: its scores are turned round" if turned else ""
    return Scorer(str(name), score, remark=remark)


def own_metric(metric: Any, device: Any = None) -> Metric | None:
    """Return leafiqa's metric that a name, a metric or a calibration means; None for what is another's."""
    if isinstance(metric, str):
        return load_metric(metric, device=device)
    if isinstance(metric, Metric):
        return metric
    # A calibration; not whatever of somebody else's has an attribute of that name.
    ours = type(metric).__module__.split(".")[0] == "leafiqa"
    inner = getattr(metric, "metric", None) if ours else None
    return inner if isinstance(inner, Metric) else None


def _of_leafiqa(metric: Metric) -> Scorer:
    def score(paths: list[Path], advance: Advance, reasons: dict[str, str]) -> list[float]:
        found = []
        for row in score_files(metric, paths):
            found.append(math.nan if row.score is None else row.score)
            if row.score is None:
                reasons[row.image] = row.error
            advance()
        return found

    labelled = metric.card.training.get("calibration")
    hashes = labelled.get("labelled_sha256", []) if isinstance(labelled, dict) else []
    known = frozenset(text for text in hashes if isinstance(text, str)) if isinstance(hashes, list) else frozenset()
    return Scorer(metric.metric_name, score, metric.card.sha256, known)


def _number(value: Any) -> float:
    if isinstance(value, Iterable) and not hasattr(value, "item"):
        value = next(iter(value))
    number = float(value.detach().reshape(-1)[0] if hasattr(value, "detach") else value)
    return number


def column_scorer(column: str, scores: dict[str, float | None]) -> Scorer:
    """Return a scorer that reads a column of the table of human scores.

    Args:
        column: the column's name.
        scores: by path, None where a cell is no number.
    """

    def score(paths: list[Path], advance: Advance, reasons: dict[str, str]) -> list[float]:
        found = []
        for path in paths:
            value = scores.get(str(path))
            if value is None:
                reasons[str(path)] = f"column {column} holds no number"
            found.append(math.nan if value is None else value)
            advance()
        return found

    return Scorer(column, score)
