"""What comparing costs beyond scoring: `python -m benchmarks.compare_speed --json FILE`.

Three folders of pictures (AGIQA-3K and BIQ2021, 512 pixels): in turn `leafiqa score -r`, `leafiqa compare`, and
`leafiqa compare --html` with the page, each as a command of its own and without a cache; then once more with the cache.
Ratios of wall times of one run, and the page's size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import DATA, need_data


def folders(place: Path, count: int) -> None:
    """Make three folders of `count` pictures each, as links."""
    pictures = sorted((DATA / "agiqa3k" / "images").glob("*.jpg")) + sorted((DATA / "biq2021").rglob("*.jpg"))
    for g in range(3):
        (place / f"g{g}").mkdir(parents=True)
        for number in range(count):
            (place / f"g{g}" / f"{number:05}.jpg").symlink_to(pictures[g * count + number].resolve())


def seconds(*arguments: str | Path, cache: Path) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "leafiqa", *map(str, arguments)],
        check=True,
        capture_output=True,
        env={**os.environ, "LEAFIQA_CACHE": str(cache)},
    )
    return time.perf_counter() - began


def main() -> None:
    """Time the commands in turn and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--count", type=int, default=1000, help="pictures in each of the three folders")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    need_data()
    took: dict[str, list[float]] = {"score": [], "compare": [], "compare with page": []}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folders(place / "out", arguments.count)
        for number in range(arguments.rounds):
            page = place / f"{number}.html"
            fresh = place / f"{number}.sqlite"
            took["score"].append(seconds("score", "-r", place / "out", "-o", place / f"{number}.csv", cache=fresh))
            took["compare"].append(seconds("compare", place / "out", "--no-cache", cache=fresh))
            took["compare with page"].append(seconds("compare", place / "out", "--html", page, cache=fresh))
            print({name: round(of[-1], 1) for name, of in took.items()}, flush=True)
        again = seconds("compare", place / "out", "--html", place / "again.html", cache=fresh)
        size = page.stat().st_size
    base = took["score"]
    found = {
        "pictures": 3 * arguments.count,
        "rounds": arguments.rounds,
        "cores": os.cpu_count(),
        "compare / score": statistics.median(a / b for a, b in zip(took["compare"], base)),
        "compare with page / score": statistics.median(a / b for a, b in zip(took["compare with page"], base)),
        "again, from the cache, with page / score": again / statistics.median(base),
        "page in MB": size / 1e6,
    }
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
