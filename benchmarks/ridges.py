"""How strong a ridge the rung `head` wants: `python -m benchmarks.ridges --student leaf FILE... --cache CACHE`.

For random draws of the train images, whole groups at a time, the head is fitted with each ridge, and RMSE (as a share
of the scale) and SRCC are taken on `val`. "chosen" is what cross-validation makes of it.
`leafiqa.calibration.cross_validation` takes its ridges from here. Students that do not know a set are those of
`benchmarks.ablation --only generated photos`, on the other set (`--dataset`). Features are shared with
`benchmarks.budgets` (`--cache`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.budgets import RANGES, Set, draw
from benchmarks.common import need_data, student
from leafiqa.calibration.cross_validation import RIDGES, Choice, choose, fits

COUNTS = (15, 25, 50, 100, 250, 750)
WIDER = (1.2, 0.6, *RIDGES, 0.01, 0.005)


def measure(data: Set, count: int, draws: int) -> dict[str, tuple[float, float]]:
    """Return RMSE and SRCC on `val` of the scale, of each ridge and of the choice, means over draws."""
    found: dict[str, list[tuple[float, float]]] = {}
    choices = {"scale": Choice("scale"), **{f"{ridge:g}": Choice("head", ridge) for ridge in WIDER}}
    for seed in range(draws):
        rows = draw(data.groups, data.train, count / data.train.sum(), seed)
        labels = data.labels(rows)
        named = [*zip(choices, fits(choices.values(), labels)), ("chosen", choose(labels).fit(labels))]
        for name, fit in named:
            srcc, _, rmse = data.on_val(fit.predict(data.extracted.logits, data.extracted.features))
            found.setdefault(name, []).append((rmse, srcc))
    return {name: tuple(np.mean(values, axis=0).round(5).tolist()) for name, values in found.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", nargs="+", default=["leaf"], help="names, files or folders")
    parser.add_argument("--dataset", nargs="*", choices=list(RANGES), default=list(RANGES))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    results = []
    for name in arguments.student:
        metric = student(name)
        for dataset in arguments.dataset:
            data = Set(dataset, metric, arguments.cache, distilled=True)
            for count in COUNTS:
                found = measure(data, count, arguments.draws)
                row = {"student": metric.metric_name, "dataset": dataset, "labels": count, "draws": arguments.draws}
                results.append({**row, "rmse_srcc": found})
                print(results[-1], flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
