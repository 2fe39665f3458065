"""Score a table's images with several metrics and report how well each agrees with the human scores."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from leafiqa.errors import InputError
from leafiqa.evaluate.agreement import Agreement, Array, agreement, srcc_difference
from leafiqa.evaluate.table import MosTable

# Below this many images a group's correlation says next to nothing.
_GROUP_LEAST = 10


@dataclass
class Comparison:
    """Metrics against human scores, on the images that every metric could score.

    Attributes:
        images: names of the images compared.
        mos: `(n,)` their human scores.
        scores: `(n,)` scores by metric.
        agreement: how well each metric agrees.
        differences: for each pair of metrics the paired difference in SRCC, as `srcc_difference` gives it.
        groups: agreement by group and metric, of groups with at least ten images.
        problems: images left out, and why.
    """

    images: list[str]
    mos: Array
    scores: dict[str, Array]
    agreement: dict[str, Agreement] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single scores, ready for JSON; undefined numbers are None."""
        return _without_nan(
            {
                "n": len(self.images),
                "interval": "95 % percentile bootstrap over images",
                "metrics": {name: asdict(value) for name, value in self.agreement.items()},
                "differences": self.differences,
                "groups": {g: {m: asdict(a) for m, a in by.items()} for g, by in self.groups.items()},
                "problems": self.problems,
            }
        )


def compare(
    table: MosTable,
    score: dict[str, Callable[[list[Path]], list[float]]],
    *,
    draws: int = 2000,
    seed: int = 0,
    by_group: bool = False,
) -> Comparison:
    """Score the table's images with each metric and compare.

    Args:
        table: images with human scores.
        score: for each metric a function from paths to as many scores, NaN where there is none.
        draws: bootstrap samples.
        seed: seeds them.
        by_group: also break the agreement down by the table's groups.

    Raises:
        InputError: fewer than three images have a score from every metric.
    """
    rows = table.rows
    scored = {
        name: np.array(function([row.path for row in rows]), dtype=np.float64) for name, function in score.items()
    }
    usable = np.all([np.isfinite(values) for values in scored.values()], axis=0)
    problems = list(table.problems)
    problems += [f"{row.image}: no score: left out" for row, good in zip(rows, usable) if not good]
    kept = [row for row, good in zip(rows, usable) if good]
    result = Comparison(
        images=[row.image for row in kept],
        mos=np.array([row.mos for row in kept], dtype=np.float64),
        scores={name: values[usable] for name, values in scored.items()},
        problems=problems,
    )
    if len(kept) < 3:
        raise InputError(f"only {len(kept)} of {len(rows)} images could be scored: {'; '.join(problems[:3])}")
    for name, values in result.scores.items():
        result.agreement[name] = agreement(values, result.mos, draws=draws, seed=seed)
    for first, second in combinations(result.scores, 2):
        paired = srcc_difference(result.scores[first], result.scores[second], result.mos, draws=draws, seed=seed)
        result.differences.append({"first": first, "second": second, **paired})
    if by_group:
        groups = np.array([row.group or "" for row in kept])
        for group in sorted(set(groups.tolist())):
            member = groups == group
            if member.sum() >= _GROUP_LEAST:
                result.groups[group or "(none)"] = {
                    name: agreement(values[member], result.mos[member], draws=draws, seed=seed)
                    for name, values in result.scores.items()
                }
    return result


def write_scores(comparison: Comparison, path: Path) -> None:
    """Write image, MOS and each metric's score as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "mos", *comparison.scores])
        for number, image in enumerate(comparison.images):
            values = [f"{scores[number]:.6f}" for scores in comparison.scores.values()]
            writer.writerow([image, f"{comparison.mos[number]:g}", *values])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
