"""Calibrate `leaf` on parts of two train sets: `python -m benchmarks.calibrated FOLDER`.

Each is `leaf` calibrated on a random part of a train set, whole groups (prompts, near-duplicates) at a time, drawn
with seed 0 and not chosen among draws. Their accuracy is then measured with `python -m benchmarks.accuracy --quick`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import leafiqa
from benchmarks.accuracy import DATA
from benchmarks.budgets import RANGES, draw
from leafiqa.calibrate.calibrate import calibrate, save_calibrated
from leafiqa.evaluate.table import read_mos

STUDENTS = {
    "leaf_lite0.generated-10": ("agiqa3k", 0.1),
    "leaf_lite0.generated-30": ("agiqa3k", 0.3),
    "leaf_lite0.photo-10": ("biq2021", 0.1),
    "leaf_lite0.photo-30": ("biq2021", 0.3),
}
WHAT = {
    "agiqa3k": ("AGIQA-3K (MIT)", "one point of AGIQA-3K's mean opinion score, 0 to 5"),
    "biq2021": ("BIQ2021", "one unit of BIQ2021's mean opinion score, 0 to 1"),
}


def main() -> None:
    """Calibrate and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metric", default="leaf")
    arguments = parser.parse_args()
    metric = leafiqa.create_metric(weights=arguments.metric)
    for name, (dataset, share) in STUDENTS.items():
        table = read_mos(DATA / dataset / "mos.csv", split="train")
        groups = np.array([row.group or row.image for row in table.rows])
        chosen = draw(groups, np.ones(len(groups), dtype=bool), share, seed=0)
        part = replace(table, rows=[table.rows[i] for i in chosen])
        result = calibrate(metric, part, score_range=RANGES[dataset])
        title, unit = WHAT[dataset]
        data = f"{round(100 * share)} % of the train part of {title}, drawn at random by group"
        card = save_calibrated(result, metric.card, name, arguments.folder, data=data, unit=unit)
        expected = result.expected
        print(name, card.short_hash, result.choice, result.labels, f"expect SRCC {expected.srcc:.3f}", flush=True)


if __name__ == "__main__":
    main()
