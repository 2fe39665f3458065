"""Score a table's images with several metrics and report how well each agrees with the human scores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leafiqa.errors import InputError
from leafiqa.evaluation.measures import (
    LEAST_UNITS,
    Agreement,
    Array,
    agreement,
    no_interval,
    pearson,
    spearman,
    srcc_difference,
    with_interval,
)
from leafiqa.files import check_output, printable, write_whole
from leafiqa.labels.copies import join_copies
from leafiqa.labels.mos_table import Labelled, MosTable
from leafiqa.scoring.rows import csv_line
from leafiqa.tables import cell_of, safe_cell, to_frame, without_nan

# Below this many images a part's correlation says next to nothing.
_PART_LEAST = 10
# Below this many parts their means are not correlated.
_SYSTEMS_LEAST = 3


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
        problems: images left out, and why; why there are no intervals.
        over: what the bootstrap draws: "images", or "groups of images" where the table has groups.
        on_another_scale: metrics whose scores are not on the scale of the MOS, so that their RMSE says nothing.
        systems: for each metric the correlations between the parts' mean scores and mean MOS, such as over
            generators: `n` parts, `srcc`, `plcc`; from three parts on.
        weights: sha256 of the weights, of metrics that have some.
        labels: the file with the human scores; None where they came from nowhere.
    """

    images: list[str]
    mos: Array
    scores: dict[str, Array]
    agreement: dict[str, Agreement] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    over: str = "images"
    on_another_scale: list[str] = field(default_factory=list)
    systems: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    labels: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single scores, ready for JSON; undefined numbers are None."""
        found: dict[str, Any] = without_nan(
            {
                "n": len(self.images),
                "interval": f"95 % percentile bootstrap over {self.over}",
                "metrics": {name: asdict(value) for name, value in self.agreement.items()},
                "differences": self.differences,
                "parts": {part: {m: asdict(a) for m, a in by.items()} for part, by in self.parts.items()},
                "systems": self.systems,
                "weights": self.weights,
                "on_another_scale": self.on_another_scale,
                "problems": self.problems,
            }
        )
        return found

    def measures(self) -> list[dict[str, Any]]:
        """Return a flat row for each metric, and each part and metric, with all that `Agreement` holds."""
        found = [("", name, of) for name, of in self.agreement.items()]
        found += [(part, name, of) for part, by in self.parts.items() for name, of in by.items()]
        rows = []
        for part, name, of in found:
            row: dict[str, Any] = {"part": part, "metric": name}
            for measure, value in asdict(of).items():
                if isinstance(value, tuple):
                    stem = measure.removesuffix("_interval")
                    row |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
                else:
                    row[measure] = value
            rows.append(row)
        return rows

    def to_csv(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write `measures()` as CSV; undefined numbers are empty.

        Raises:
            OutputError: the file exists already, or there is no such folder.
        """
        rows = self.measures()
        check_output(path, overwrite=overwrite, is_ours=lambda head: head.startswith(b"part,metric,n,srcc"))
        lines = [csv_line(rows[0])]
        for row in rows:
            lines.append(csv_line([cell_of(value) for value in row.values()]))
        write_whole(path, "".join(lines))

    def scores_to_csv(
        self, path: str | os.PathLike[str], *, inputs: Sequence[Path] = (), overwrite: bool = False
    ) -> None:
        """Write image, MOS and each metric's score as CSV.

        Args:
            path: the file.
            inputs: further files that it must not be written onto, beside the table of human scores.
            overwrite: whether a file that this function wrote of these metrics may be replaced.

        Raises:
            OutputError: the file exists already, is an input, or there is no such folder.
        """
        header = csv_line(["image", "mos", *map(safe_cell, self.scores)])
        read = [*inputs, *([] if self.labels is None else [self.labels])]
        check_output(path, inputs=read, overwrite=overwrite, is_ours=lambda head: head.startswith(header.encode()))
        lines = [header]
        for number, image in enumerate(self.images):
            values = [f"{scores[number]:.6f}" for scores in self.scores.values()]
            lines.append(csv_line([safe_cell(image), f"{self.mos[number]:g}", *values]))
        write_whole(path, "".join(lines))

    def to_pandas(self) -> Any:
        """Return `measures()` as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return to_frame(self.measures())

    def __str__(self) -> str:
        return report(self)


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
    than as many independent ones. Fewer than ten of them give no intervals and no p values.

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
    problems += [f"{printable(row.image)}: no score: left out" for row, good in zip(rows, usable) if not good]
    kept = [row for row, good in zip(rows, usable) if good]
    result = Comparison(
        images=[row.image for row in kept],
        mos=np.array([row.mos for row in kept], dtype=np.float64),
        scores={name: values[usable] for name, values in scored.items()},
        problems=problems,
        labels=table.file,
    )
    if len(kept) < 3:
        raise InputError(f"only {len(kept)} of {len(rows)} images could be scored: {'; '.join(problems[:3])}")
    own = np.array([row.group or f"image {row.image}" for row in kept])
    joined, copies = join_copies(own, [row.path for row in kept])
    result.problems += copies
    groups: list[str] = joined.tolist()
    if len(set(groups)) < len(groups):
        result.over = "groups of images"
    if (why := no_interval(len(set(groups)), result.over)) is not None:
        result.problems.append(why)
    for name, values in result.scores.items():
        result.agreement[name] = agreement(values, result.mos, draws=draws, seed=seed, groups=groups)
        if _on_another_scale(values, result.mos):
            result.on_another_scale.append(name)
    for first, second in combinations(result.scores, 2):
        values, other = result.scores[first], result.scores[second]
        paired = srcc_difference(values, other, result.mos, draws=draws, seed=seed, groups=groups)
        result.differences.append({"first": first, "second": second, **paired})
    if by is not None:
        _break_down(result, np.array([by(row) or "" for row in kept]), joined, draws, seed)
    return result


def _break_down(result: Comparison, parts: NDArray[np.str_], groups: NDArray[np.str_], draws: int, seed: int) -> None:
    """Add the agreement within each part, and that between the means of the parts."""
    names = sorted(set(parts.tolist()))
    small = 0
    for part in names:
        member = parts == part
        if member.sum() < _PART_LEAST:
            small += 1
            continue
        within = groups[member].tolist()
        result.parts[part or "(none)"] = {
            name: agreement(values[member], result.mos[member], draws=draws, seed=seed, groups=within)
            for name, values in result.scores.items()
        }
        if no_interval(len(set(within)), "groups") is not None:
            result.problems.append(
                f"{part or '(none)'}: {len(set(within))} independent group(s), fewer than {LEAST_UNITS}: no intervals"
            )
    if small:
        result.problems.append(f"{small} part(s) of fewer than {_PART_LEAST} images are not shown by themselves")
    if len(names) < _SYSTEMS_LEAST:
        return
    mos = np.array([result.mos[parts == part].mean() for part in names])
    for name, values in result.scores.items():
        means = np.array([values[parts == part].mean() for part in names])
        result.systems[name] = {"n": len(names), "srcc": spearman(means, mos), "plcc": pearson(means, mos)}


def _on_another_scale(scores: Array, mos: Array) -> bool:
    """Tell whether scores and MOS lie so far apart, or are so differently wide, that RMSE between them says nothing."""
    wide, other = float(mos.std()), float(scores.std())
    if wide == 0 or other == 0:
        return False
    return abs(float(scores.mean() - mos.mean())) > 2 * wide or not 0.25 < other / wide < 4


def report(result: Comparison) -> str:
    """Return a comparison as text for a terminal."""
    lines = [f"{len(result.images)} images, 95 % bootstrap intervals over {result.over}"]
    width = max(6, *(len(name) for name in result.agreement))
    lines.append(
        f"{'metric':{width}}  {'SRCC':24}{'PLCC':24}{'KRCC':24}{'PLCC mapped*':>12}{'RMSE':>10}{'RMSE mapped*':>14}"
    )

    def line(name: str, of: Agreement) -> str:
        rmse = f"{of.rmse:.3f}" + ("+" if name in result.on_another_scale else " ")
        return (
            f"{printable(name):{width}}  {with_interval(of.srcc, of.srcc_interval):24}"
            f"{with_interval(of.plcc, of.plcc_interval):24}{with_interval(of.krcc, of.krcc_interval):24}"
            f"{of.plcc_mapped:12.3f}{rmse:>10}{of.rmse_mapped:14.3f}"
        )

    lines += [line(name, of) for name, of in result.agreement.items()]
    for part, by_metric in result.parts.items():
        lines.append(f"\n{printable(part)}, n={next(iter(by_metric.values())).n}")
        lines += [line(name, of) for name, of in by_metric.items()]
    if result.systems:
        lines.append("\nbetween the parts' means")
        lines += [
            f"{printable(name):{width}}  SRCC {of['srcc']:.3f}, PLCC {of['plcc']:.3f}, n={of['n']}"
            for name, of in result.systems.items()
        ]
    if result.differences:
        lines.append("\npaired difference in SRCC")
    for pair in result.differences:
        ends = with_interval(pair["difference"], (pair["low"], pair["high"]))
        chance = f", p={pair['p']:.3f}" if math.isfinite(pair["p"]) else ""
        lines.append(f"{printable(pair['first'])} - {printable(pair['second'])}: {ends}{chance}")
    lines.append("\n* after a four-parameter logistic fitted on these same images: flatters, compare with papers only")
    if result.on_another_scale:
        lines.append("+ these scores are not on the scale of the MOS: their RMSE says nothing about the metric")
    return "\n".join(lines)
