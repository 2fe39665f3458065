"""Write the tables of docs/speed.md out of `benchmarks/results`: `python -m benchmarks.speed_tables`."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"


def ways_table() -> str:
    """Return how long a picture takes in each way, as Markdown."""
    found = json.loads((RESULTS / "throughput.json").read_text(encoding="utf-8"))["throughput"]
    lines = [f"| way ({found['images']} pictures, {found['rounds']} rounds) | times the network |", "|---|---:|"]
    for name, times in found["times_network"].items():
        lines.append(f"| {name} | {times:.2f} |")
    return "\n".join(lines)


def draft_table() -> str:
    """Return what reduced decoding changes, as Markdown."""
    found = json.loads((RESULTS / "draft.json").read_text(encoding="utf-8"))
    return "\n".join(
        [
            "| photographs | mean difference of scores | largest difference | time, of whole decoding |",
            "|---:|---:|---:|---:|",
            f"| {found['photographs']} | {found['mean_difference']:.4f} | {found['largest_difference']:.4f} | "
            f"{found['time_share']:.2f} |",
        ]
    )


def page() -> str:
    """Return the page with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("ways", ways_table()), ("draft", draft_table())):
        pattern = rf"(<!-- {name}: made by [^>]*-->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
