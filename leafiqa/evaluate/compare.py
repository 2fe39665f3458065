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
from leafiqa.evaluate.copies import join_copies
from leafiqa.evaluate.table import Labelled, MosTable

# Below this many images a part's correlation says next to nothing.
_PART_LEAST = 10


@dataclass
class Comparison:
    """Metrics against human scores, on the images that every metric could score.

    Attributes:
        images: names of the images compared.
        mos: `(n,)` their human scores.
        scores: `(n,)` scores by metric.
        agreement: how well each metric agrees.
        differences: for each pair of metrics the paired difference in SRCC, as `srcc_difference` gives it.
        parts: agreement by part (a group, or what another column says) and metric, of parts with at least ten images.
        problems: images left out, and why.
        over: what the bootstrap draws: "images", or "groups of images" where the table has groups.
    """

    images: list[str]
    mos: Array
    scores: dict[str, Array]
    agreement: dict[str, Agreement] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    over: str = "images"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single scores, ready for JSON; undefined numbers are None."""
        return _without_nan(
            {
                "n": len(self.images),
                "interval": f"95 % percentile bootstrap over {self.over}",
                "metrics": {name: asdict(value) for name, value in self.agreement.items()},
                "differences": self.differences,
                "parts": {part: {m: asdict(a) for m, a in by.items()} for part, by in self.parts.items()},
                "problems": self.problems,
            }
        )


def compare(
    table: MosTable,
    score: dict[str, Callable[[list[Path]], list[float]]],
    *,
    draws: int = 2000,
    seed: int = 0,
    by: Callable[[Labelled], str | None] | None = None,
) -> Comparison:
    """Score the table's images with each metric and compare.

    Where the table has groups, the bootstrap draws whole groups: images of one scene, or copies of one file, say less
    than as many independent ones.

    Args:
        table: images with human scores.
        score: for each metric a function from paths to as many scores, NaN where there is none.
        draws: bootstrap samples.
        seed: seeds them.
        by: also break the agreement down by what this returns for each image, such as its group or its part.

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
    own = np.array([row.group or f"image {row.image}" for row in kept])
    joined, copies = join_copies(own, [row.path for row in kept])
    result.problems += copies
    groups: list[str] = joined.tolist()
    if len(set(groups)) < len(groups):
        result.over = "groups of images"
    for name, values in result.scores.items():
        result.agreement[name] = agreement(values, result.mos, draws=draws, seed=seed, groups=groups)
    for first, second in combinations(result.scores, 2):
        values, other = result.scores[first], result.scores[second]
        paired = srcc_difference(values, other, result.mos, draws=draws, seed=seed, groups=groups)
        result.differences.append({"first": first, "second": second, **paired})
    if by is not None:
        parts = np.array([by(row) or "" for row in kept])
        small = 0
        for part in sorted(set(parts.tolist())):
            member = parts == part
            if member.sum() < _PART_LEAST:
                small += 1
                continue
            within = joined[member].tolist()
            drawn = within if len(set(within)) > 1 else None  # a part that is one group holds nothing else to draw
            result.parts[part or "(none)"] = {
                name: agreement(values[member], result.mos[member], draws=draws, seed=seed, groups=drawn)
                for name, values in result.scores.items()
            }
        if small:
            result.problems.append(f"{small} part(s) of fewer than {_PART_LEAST} images are not shown by themselves")
    return result


def write_scores(comparison: Comparison, path: Path) -> None:
    """Write image, MOS and each metric's score as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "mos", *comparison.scores])
        for number, image in enumerate(comparison.images):
            values = [f"{scores[number]:.6f}" for scores in comparison.scores.values()]
            writer.writerow([image, f"{comparison.mos[number]:g}", *values])


def write_measures(comparison: Comparison, path: Path) -> None:
    """Write a row for each metric, and for each part and metric, with all that `Agreement` holds, as CSV."""
    rows = [("", name, found) for name, found in comparison.agreement.items()]
    rows += [(part, name, found) for part, by in comparison.parts.items() for name, found in by.items()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: Any = None
        for part, name, found in rows:
            row: dict[str, Any] = {"part": part, "metric": name}
            for measure, value in asdict(found).items():
                if isinstance(value, tuple):
                    stem = measure.removesuffix("_interval")
                    row |= {f"{stem}_low": f"{value[0]:.6g}", f"{stem}_high": f"{value[1]:.6g}"}
                else:
                    row[measure] = f"{value:.6g}"
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
