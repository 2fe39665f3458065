"""Write the README's tables: `python -m benchmarks.readme [--check]`.

Accuracy and percentiles are the cards', speed is that of `python -m benchmarks.peers`. The cards are written by
`python -m benchmarks.accuracy --write-card`, so that README, `leafiqa info` and `leafiqa eval` give the same figures.
`--check` only tells whether the README is up to date.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.common import filled
from leafiqa.model.card import Card, read_card

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# In the README's order: each student and the sets that it is for.
STUDENTS = {
    "leaf_lite0.general": ("agiqa3k", "biq2021"),
    "leaf_lite2.general": ("agiqa3k", "biq2021"),
    "leaf_lite0.generated-10": ("agiqa3k",),
    "leaf_lite0.generated-30": ("agiqa3k",),
    "leaf_lite0.photo-10": ("biq2021",),
    "leaf_lite0.photo-30": ("biq2021",),
    "hub/leaf_lite2.generated-10": ("agiqa3k",),
    "hub/leaf_lite2.generated-30": ("agiqa3k",),
    "hub/leaf_lite2.photo-10": ("biq2021",),
    "hub/leaf_lite2.photo-30": ("biq2021",),
}
TITLES = {"agiqa3k": "AGIQA-3K, generated images", "biq2021": "BIQ2021, photographs"}


def figure(value: float, ends: list[float]) -> str:
    """Return a figure with its interval, as `leafiqa info` rounds it."""
    return re.sub(r"\b0\.", ".", f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]")


def cards() -> dict[str, Card]:
    """Return the cards of all students in `weights/`."""
    return {name: read_card(ROOT / "weights" / f"{name}.json") for name in STUDENTS}


def accuracy_table(known: dict[str, Card]) -> str:
    """Return the table of accuracy as Markdown."""
    lines = ["| metric | human scores in training | judged on | n | SRCC | PLCC |", "|---|---|---|---|---|---|"]
    for name, sets in STUDENTS.items():
        card = known[name]
        labels = card.training.get("calibration", {}).get("labels")
        share = "10 %" if name.endswith("-10") else "30 %"
        told = f"{labels} ({share})" if labels else "none"
        title = f"`{card.name}`" + (", for the hub" if name.startswith("hub/") else "")
        title = f"`leaf` ({title})" if card.name == "leaf_lite0.general" else title
        rows = {row["dataset"]: row for row in card.accuracy}
        for number, dataset in enumerate(sets):
            row = rows[dataset]
            first = (title, told) if not number else ("", "")
            srcc, plcc = (figure(row[m], row[f"{m}_interval"]) for m in ("srcc", "plcc"))
            lines.append(f"| {first[0]} | {first[1]} | {TITLES[dataset]} | {row['n']} | {srcc} | {plcc} |")
    return "\n".join(lines)


def percentile_table(card: Card) -> str:
    """Return what scores real pictures have, as Markdown."""
    kinds = card.score["percentiles"]
    shares = list(next(iter(kinds.values())))
    lines = [f"| `leaf` | {' | '.join(f'{share} % below' for share in shares)} |", "|---|" + "---|" * len(shares)]
    for kind, values in kinds.items():
        cells = " | ".join(re.sub(r"^0\.", ".", f"{values[share]:.2f}") for share in shares)
        lines.append(f"| {kind} | {cells} |")
    return "\n".join(lines)


def speed_table() -> str:
    """Return how long others take beside `leaf`, as Markdown; empty cells were not measured."""
    measured = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))["metrics"]
    conditions = [("2 threads", size) for size in ("512x512", "1080p", "12MP")] + [("1 threads", "512x512")]
    lines = [
        "| metric | 512x512 | 1920x1080 | 12 megapixels | 512x512, one thread | memory at 512x512 | start |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]

    def cell(found: dict[str, Any]) -> str:
        if not found:
            return ""
        if "failed" in found:
            return str(found["failed"])
        times = found["times_leaf"]
        return f"{times:.1f}" if times < 10 else f"{times:.0f}"

    for name, of in measured.items():
        cells = [cell(of.get(threads, {}).get(size, {})) for threads, size in conditions]
        at_rest = of.get("2 threads", {}).get("512x512", {})
        memory, start = at_rest.get("peak_mib"), at_rest.get("start_s")
        shown = f"`{name}`" if "(" not in name else f"`{name.split(' ')[0]}`, ONNX Runtime"
        shown += ", eight in a list" if "list" in name else ""
        more = [f"{memory} MiB" if memory else "", f"{start:.1f} s" if start else ""]
        lines.append(f"| {shown} | {' | '.join([*cells, *more])} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """Return the README with its tables made anew."""
    known = cards()
    for name, table in (
        ("accuracy", accuracy_table(known)),
        ("percentiles", percentile_table(known["leaf_lite0.general"])),
        ("speed", speed_table()),
    ):
        text = filled(text, name, table)
    return text


def main() -> None:
    """Write the tables, or tell whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    if not arguments.check:
        path.write_text(readme(text), encoding="utf-8")
    elif readme(text) != text:
        raise SystemExit("README.md is not up to date: run python -m benchmarks.readme")


if __name__ == "__main__":
    main()
