"""Put results of `benchmarks.budgets` together: a Markdown table, and a figure of accuracy against human scores.

    python -m benchmarks.report RESULTS.json... [--png FIGURE.png]

Students that differ in their seed alone (`leaf_lite0.both_0`, `leaf_lite0.both_1`) make one row: the mean over their
draws, and the standard deviation over seeds and draws together.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.budgets import BUDGETS

SETS = {"agiqa3k": "AGIQA-3K", "biq2021": "BIQ2021"}
NAMES = {
    "imagenet": "no distillation (ImageNet)",
    "leaf_lite0.point": "point-wise only",
    "leaf_lite0.pair": "pair-wise only",
    "leaf_lite0.unweighted": "both, reliability ignored",
    "leaf_lite0.both": "both",
    "leaf_lite0.general": "`leaf`",
}
Cell = tuple[float, float, int]


def cells(results: list[dict[str, Any]]) -> dict[tuple[str, str, float], Cell]:
    """Return mean, standard deviation and number of values by student, data set and share of the human scores."""
    parts: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in results:
        if "way" not in row:  # not of the comparison of ways to choose
            student = re.sub(r"_\d+$", "", row["student"])
            parts[student, row["dataset"], row.get("share", 0.0)].append(row)
    return {key: pooled(rows) for key, rows in parts.items()}


def pooled(rows: list[dict[str, Any]]) -> Cell:
    """Return mean, standard deviation and number of all the values whose means and deviations are given."""
    total = sum(row["draws"] for row in rows)
    mean = sum(row["draws"] * row["srcc_mean"] for row in rows) / total
    squares = sum(
        (row["draws"] - 1) * (row["srcc_sd"] or 0.0) ** 2 + row["draws"] * (row["srcc_mean"] - mean) ** 2
        for row in rows
    )
    return mean, math.sqrt(squares / (total - 1)) if total > 1 else float("nan"), total


def table(found: dict[tuple[str, str, float], Cell]) -> str:
    """Return one Markdown table for each data set."""
    shares = (0.0, *BUDGETS)
    lines = []
    for dataset, title in SETS.items():
        heads = ["none", *(f"{round(100 * share)} %" for share in BUDGETS)]
        lines += [f"| {title} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for student, name in NAMES.items():
            row = [found.get((student, dataset, share)) for share in shares]
            if any(row):
                lines.append(f"| {name} | " + " | ".join(_text(cell) for cell in row) + " |")
        lines.append("")
    return "\n".join(lines)


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    mean, deviation, _ = cell
    text = f"{mean:.3f}".lstrip("0")
    return text if math.isnan(deviation) else f"{text} ± {f'{deviation:.3f}'.lstrip('0')}"


def draw(found: dict[tuple[str, str, float], Cell], path: Path) -> None:
    """Draw SRCC against the share of human scores, one panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharex=True, layout="constrained")
    shares = (0.0, *BUDGETS)
    for axis, (dataset, title) in zip(axes, SETS.items()):
        for student, name in NAMES.items():
            known = [(i, found[student, dataset, s]) for i, s in enumerate(shares) if (student, dataset, s) in found]
            if known:
                spread = [0.0 if math.isnan(cell[1]) else cell[1] for _, cell in known]
                axis.errorbar(
                    [i for i, _ in known],
                    [cell[0] for _, cell in known],
                    spread,
                    marker="o",
                    markersize=4,
                    capsize=3,
                    label=name.strip("`"),
                )
        axis.set_title(f"{title}, val")
        axis.set_xticks(range(len(shares)), ["none", *(f"{round(100 * share)} %" for share in BUDGETS)])
        axis.set_xlabel("share of the train set's human scores")
        axis.set_ylabel("SRCC, mean ± standard deviation")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    found = cells([row for file in arguments.results for row in json.loads(file.read_text())])
    print(table(found))
    if arguments.png:
        draw(found, arguments.png)


if __name__ == "__main__":
    main()
