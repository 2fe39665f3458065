"""What comparing costs beyond scoring: `python -m benchmarks.compare_speed --json FILE`.

Three folders of pictures (AGIQA-3K and BIQ2021, 512 pixels): in turn `leafiqa.score`, `leafiqa.compare` without a
cache, and the page of it, in one process, with memory kept as the command line does; then `compare` and the page once
more with a cache that knows all scores. Ratios of wall times of one run, and the page's size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import leafiqa
from benchmarks.common import DATA, need_data
from leafiqa.cli.memory import keep_freed_memory


def folders(place: Path, count: int) -> None:
    """Make three folders of `count` pictures each, as links."""
    pictures = sorted((DATA / "agiqa3k" / "images").glob("*.jpg")) + sorted((DATA / "biq2021").rglob("*.jpg"))
    for g in range(3):
        (place / f"g{g}").mkdir(parents=True)
        for number in range(count):
            (place / f"g{g}" / f"{number:05}.jpg").symlink_to(pictures[g * count + number].resolve())


def main() -> None:
    """Time the verbs in turn and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--count", type=int, default=1000, help="pictures in each of the three folders")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    need_data()
    keep_freed_memory()
    metric = leafiqa.create_metric("leaf", device="cpu")
    compared, with_page = [], []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folders(place / "out", arguments.count)
        for number in range(arguments.rounds):
            marks = [time.perf_counter()]
            leafiqa.score(place / "out", metric, recursive=True)
            marks.append(time.perf_counter())
            found = leafiqa.compare(place / "out", metric, cache=None)
            marks.append(time.perf_counter())
            page = leafiqa.report(found, place / f"{number}.html")
            marks.append(time.perf_counter())
            base = marks[1] - marks[0]
            compared.append((marks[2] - marks[1]) / base)
            with_page.append((marks[3] - marks[1]) / base)
            print(f"score {base:.1f} s, compare {compared[-1]:.3f}, with page {with_page[-1]:.3f}", flush=True)
        leafiqa.compare(place / "out", metric, cache=place / "scores.sqlite")
        began = time.perf_counter()
        again = leafiqa.compare(place / "out", metric, cache=place / "scores.sqlite")
        leafiqa.report(again, place / "again.html")
        cached = (time.perf_counter() - began) / base
        size = page.stat().st_size
    result = {
        "pictures": 3 * arguments.count,
        "rounds": arguments.rounds,
        "cores": os.cpu_count(),
        "compare / score": statistics.median(compared),
        "compare with page / score": statistics.median(with_page),
        "again, from the cache, with page / score": cached,
        "page in MB": size / 1e6,
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
