"""Folder throughput against the bare forward pass, and memory against the number of images.

    python -m benchmarks.throughput --json benchmarks/results/throughput.json

Ratios within one run; absolute times say more about the machine. The folder holds 512x512 JPEGs made on the spot.
Memory is the peak resident size of `leafiqa score` in a process of its own, on as many links to the same pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import leafiqa
from leafiqa.cli.demo import PICTURES
from leafiqa.scoring.pipeline import score_files

BATCH = 16


def draw(folder: Path, count: int) -> list[str]:
    """Make `count` different JPEGs of 512x512 out of the demo's photographs: turned, flipped, shifted, grained."""
    photographs = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(PICTURES.glob("*.jpg"))]
    paths = []
    for index in range(count):
        path, rng = folder / f"{index:04}.jpg", np.random.default_rng(index)
        pixels = np.roll(
            np.rot90(photographs[index % len(photographs)], int(rng.integers(4))), int(rng.integers(512)), axis=1
        )
        grained = (pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grained).save(path, quality=90)
        paths.append(str(path))
    return paths


def throughput(paths: list[str], rounds: int) -> dict:
    """Time the network alone and the whole folder, alternating; report the median of the paired ratios."""
    metric = leafiqa.create_metric("leaf")
    with torch.no_grad():
        ready = [metric.preprocess.resize(torch.zeros(BATCH, 3, 512, 512, dtype=torch.uint8)) for _ in range(2)]
        metric.student(ready[0])
        ratios = []
        for _ in range(rounds):
            began = time.perf_counter()
            for start in range(0, len(paths), BATCH):
                metric.student(ready[0][: len(paths[start : start + BATCH])])
            bare = time.perf_counter() - began
            began = time.perf_counter()
            done = sum(row.score is not None for row in score_files(metric, paths, BATCH, workers=2))
            folder = time.perf_counter() - began
            if done != len(paths):
                raise RuntimeError("some image was not scored")
            ratios.append(bare / folder)
    return {
        "images": len(paths),
        "rounds": rounds,
        "ratios": [round(r, 3) for r in ratios],
        "median_ratio": round(float(np.median(ratios)), 3),
    }


def peak_memory(folder: Path, sources: list[str], count: int) -> float:
    """Return the peak resident MiB of `leafiqa score` on `count` files."""
    place = folder / f"many_{count}"
    place.mkdir()
    for index in range(count):
        (place / f"{index:06}.jpg").symlink_to(sources[index % len(sources)])
    code = (
        "import re, sys; from leafiqa.cli.main import cli; sys.argv[0] = 'leafiqa';"
        "cli(['score', sys.argv[1], '--format', 'csv', '-o', sys.argv[2]], standalone_mode=False);"
        # Not ru_maxrss: a process inherits that of the one that started it.
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 1024)"
    )
    command = [sys.executable, "-c", code, str(place), str(folder / f"{count}.csv")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5, help="0 keeps the throughput that the file holds")
    parser.add_argument("--counts", type=int, nargs="*", default=[100, 1000, 10_000], help="for memory; none keeps it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = draw(Path(name), arguments.images)
        results = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
        if arguments.rounds:
            results["throughput"] = throughput(paths, arguments.rounds)
            print(results["throughput"], file=sys.stderr, flush=True)
        if arguments.counts:
            results["peak_memory_mib"] = {
                str(count): round(peak_memory(Path(name), paths, count), 1) for count in arguments.counts
            }
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
