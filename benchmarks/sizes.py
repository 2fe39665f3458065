"""Sizes of the bundled students, and their times beside each other: `python -m benchmarks.sizes --json OUT.json`.

Times are of single images of 512x512 through the metric, resizing included, interleaved between the students and given
as ratios to the first one's: absolute times say more about the machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import leafiqa
from benchmarks.common import report
from leafiqa.model.places import resolve

STUDENTS = ("leaf_lite0.general", "leaf_lite2.general")
_ROUNDS, _WARM = 40, 5


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    metrics = {name: leafiqa.create_metric(name) for name in STUDENTS}
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 512, 512), dtype=np.uint8))
    seconds: dict[str, list[float]] = {name: [] for name in STUDENTS}
    for number in range(_WARM + _ROUNDS):
        for name, metric in metrics.items():
            began = time.perf_counter()
            metric(image)
            if number >= _WARM:
                seconds[name].append(time.perf_counter() - began)
    ratios = {name: np.array(taken) / np.array(seconds[STUDENTS[0]]) for name, taken in seconds.items()}
    results = [
        {
            "student": name,
            "parameters_millions": round(sum(p.numel() for p in metric.student.parameters()) / 1e6, 2),
            "file_mb": round(resolve(name)[0].stat().st_size / 1e6, 1),
            "device": str(metric.student.feature_mean.device),
            "time_ratio_median": round(float(np.median(ratios[name])), 2),
            "time_ratio_quartiles": [round(float(q), 2) for q in np.percentile(ratios[name], [25, 75])],
        }
        for name, metric in metrics.items()
    ]
    report(results, arguments.json)


if __name__ == "__main__":
    main()
