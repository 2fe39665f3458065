"""What the teacher's evidence is worth, measured against human scores on `val` only.

    python benchmarks/evidence.py

Prints, for each set: the correlation of the teacher's scores with MOS, its error by stated confidence, and how often
its rankings differ from its own scores. Needs ../shared/data and ../shared/teacher (or LEAFIQA_DATA, LEAFIQA_TEACHER).
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

from benchmarks.accuracy import DATA
from leafiqa.evidence.files import read_evidence

TEACHER = Path(os.environ.get("LEAFIQA_TEACHER", DATA.parent / "teacher"))


def main() -> None:
    """Print the figures of both sets."""
    for dataset in ("agiqa3k", "biq2021"):
        with (DATA / dataset / "mos.csv").open(newline="", encoding="utf-8") as file:
            mos = {f"{dataset}/{r['image']}": float(r["mos"]) for r in csv.DictReader(file) if r["split"] == "val"}
        evidence = read_evidence([TEACHER / f"{dataset}.jsonl"], keep=set(mos))
        names = sorted(evidence.points)
        score, confidence = np.array([evidence.target(name) for name in names]).T
        human = np.array([mos[name] for name in names])
        print(f"{dataset} val, n={len(names)}: SRCC {spearmanr(score, human).statistic:.4f}, ", end="")
        print(f"PLCC {pearsonr(score, human).statistic:.4f}")
        error = np.abs(human - np.polyval(np.polyfit(score, human, 1), score)) / human.std()
        for low, high in ((0, 0.475), (0.475, 0.525), (0.525, 0.575), (0.575, 1.01)):
            part = (confidence >= low) & (confidence < high)
            print(f"  confidence [{low}, {high}): n={part.sum()}, mean error {error[part].mean():.3f} MOS sd")
        gaps = np.array([evidence.target(a)[0] - evidence.target(b)[0] for a, b in evidence.pairs])
        against, ties = np.mean(gaps < 0), np.mean(gaps == 0)
        print(f"  ranked pairs {len(gaps)}: against the scores {against:.4f}, of equal score {ties:.4f}")


if __name__ == "__main__":
    main()
