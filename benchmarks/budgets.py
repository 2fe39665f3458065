"""Accuracy on `val` against the number of human scores: students, ImageNet features, choosing against random.

    python -m benchmarks.budgets --student leaf --initial efficientnet-lite0.pth --cache CACHE --json OUT.json

For each set and budget, groups of train images are drawn at random until the budget is filled, the calibration chooses
its rung on them, and SRCC, PLCC and RMSE (as a share of the scale) are taken on `val`, which no fit sees. "imagenet" is
the same backbone with its ImageNet weights (`--initial`, the file that training starts from) and no head: the same fit,
without a student's prediction to hold on to. With `--select`, images chosen by `leafiqa select` are compared with
random ones at equal budgets. Features are extracted once and kept in `--cache`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.common import DATA, TEACHER, need_data, student
from leafiqa.calibration.cross_validation import RIDGES, Choice, Labels, choose, held_out_errors
from leafiqa.calibration.features import Extracted, extract
from leafiqa.calibration.fit import Array
from leafiqa.calibration.selection import DISAGREEMENT_LEAST, choose_rows, rank_disagreement
from leafiqa.distillation.start import load_imagenet
from leafiqa.evaluation.measures import pearson, spearman
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.reliability import targets as teacher_targets
from leafiqa.metric import Metric

RANGES = {"agiqa3k": (0.0, 5.0), "biq2021": (0.0, 1.0)}
BUDGETS = (0.01, 0.05, 0.1, 0.3, 1.0)
SELECTED = (15, 25, 50, 100, 200)
# What choosing gains is small beside the spread of draws, so it takes more of them to see it.
SELECTION_TIMES = 5
UNDISTILLED_RIDGES = (*RIDGES, 1e-2, 3e-3, 1e-3)


def undistilled(metric: Metric, initial: Path) -> Metric:
    """Return a metric that sees with the ImageNet backbone and has no opinion of its own."""
    import torch

    plain = copy.deepcopy(metric)
    load_imagenet(plain.student, initial)
    with torch.no_grad():
        plain.student.feature_mean.zero_()
        plain.student.feature_std.fill_(1)
    return plain


def features(metric: Metric, dataset: str, rows: list[dict[str, str]], cache: Path) -> Extracted:
    """Extract features of a set's images, or read them back."""
    if cache.exists():
        stored = np.load(cache)
        return Extracted(stored["features"], stored["logits"], stored["index"], [])
    extracted = extract(metric, [DATA / dataset / row["image"] for row in rows])
    if extracted.errors:
        raise RuntimeError(f"{dataset}: {extracted.errors[:3]}")
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, features=extracted.features.astype(np.float32), logits=extracted.logits, index=extracted.index)
    return extracted


def draw(groups: np.ndarray, train: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return row numbers of a random share of the train images, whole groups until the share is filled."""
    rng = np.random.default_rng(seed)
    wanted = math.ceil(share * int(train.sum()))
    chosen: list[int] = []
    names = rng.permutation(np.unique(groups[train]))
    for name in names:
        if len(chosen) >= wanted:
            break
        chosen += np.flatnonzero(train & (groups == name)).tolist()
    return np.array(sorted(chosen[:wanted]))


class Set:
    """A data set with human scores and what one student sees in it."""

    def __init__(self, name: str, metric: Metric, cache: Path, distilled: bool) -> None:
        with (DATA / name / "mos.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        low, high = RANGES[name]
        self.name, self.distilled = name, distilled
        self.images = [f"{name}/{row['image']}" for row in rows]
        self.mos = np.array([float(row["mos"]) for row in rows])
        self.targets = (self.mos - low) / (high - low)
        self.train = np.array([row["split"] == "train" for row in rows])
        self.groups = np.array([row["group"] or row["image"] for row in rows])
        digest = metric.card.short_hash if distilled else "imagenet"
        self.extracted = features(metric, name, rows, cache / f"{name}-{digest}.npz")
        if not distilled:
            # Standardised on all train images, as a student's features are: no label is needed for that.
            known = self.extracted.features[self.train]
            scaled = (self.extracted.features - known.mean(0)) / known.std(0).clip(min=1e-3)
            self.extracted = Extracted(scaled, np.zeros(len(rows)), self.extracted.index, [])

    def labels(self, chosen: np.ndarray) -> Labels:
        """Return some rows as labelled images."""
        extracted = self.extracted
        ones = np.ones(len(chosen))
        return Labels(
            extracted.logits[chosen], extracted.features[chosen], self.targets[chosen], ones, self.groups[chosen]
        )

    def calibrated(self, chosen: np.ndarray) -> tuple[str, float, float, float]:
        """Calibrate on some rows; return the rung, and SRCC, PLCC and RMSE on `val`."""
        labels = self.labels(chosen)
        choice = choose(labels) if self.distilled else _ridge_alone(labels)
        predicted = choice.fit(labels).predict(self.extracted.logits, self.extracted.features)
        return choice.rung, *self.on_val(predicted)

    def on_val(self, predicted: Array) -> tuple[float, float, float]:
        """Return SRCC, PLCC and RMSE on `val` of predictions in [0, 1]."""
        found, wanted = predicted[~self.train], self.targets[~self.train]
        return spearman(found, wanted), pearson(found, wanted), float(np.sqrt(np.mean((found - wanted) ** 2)))


def _ridge_alone(labels: Labels) -> Choice:
    """Choose a ridge where there is no student to hold on to: weak ones are offered too."""
    choices = [Choice("head", ridge) for ridge in UNDISTILLED_RIDGES]
    errors = held_out_errors(choices, labels, seed=0)
    return min(choices, key=lambda choice: float(errors[choice].mean()))


def curve(data: Set, draws: int) -> list[dict]:
    """Return accuracy at each budget."""
    results = [summary(0, [("none", *data.on_val(expit(data.extracted.logits)))])] if data.distilled else []
    for share in BUDGETS:
        chosen = [draw(data.groups, data.train, share, seed) for seed in range(draws if share < 1 else 1)]
        found = [data.calibrated(rows) for rows in chosen if len(rows) >= 10]
        results.append({"share": share, **summary(len(chosen[0]), found)})
    return results


def selection(data: Set, draws: int) -> list[dict]:
    """Return accuracy with chosen and with random images, at equal budgets, of `SELECTION_TIMES` as many draws."""
    rows = np.flatnonzero(data.train)
    part = Extracted(data.extracted.features[rows], data.extracted.logits[rows], rows, [])
    known = teacher_targets(read_evidence([TEACHER / f"{data.name}.jsonl"]))
    teacher = np.array([known[data.images[i]].score if data.images[i] in known else np.nan for i in rows])
    apart = rank_disagreement(teacher, part.logits)
    results = []
    draws *= SELECTION_TIMES
    for budget in SELECTED:
        ways = {
            "random": [np.random.default_rng(seed).permutation(rows)[:budget] for seed in range(draws)],
            "select": [rows[choose_rows(part, budget, seed=seed)[0]] for seed in range(draws)],
        }
        if budget >= DISAGREEMENT_LEAST:
            ways["select with evidence"] = [
                rows[choose_rows(part, budget, disagreement=apart, seed=seed)[0]] for seed in range(draws)
            ]
        for way, chosen in ways.items():
            results.append({"way": way, **summary(budget, [data.calibrated(np.sort(c)) for c in chosen])})
    return results


def summary(labels: int, found: list[tuple[str, float, float, float]]) -> dict:
    """Put draws together."""
    srcc, plcc, rmse = ([row[i] for row in found] for i in (1, 2, 3))
    return {
        "labels": labels,
        "draws": len(found),
        "rungs": {rung: sum(row[0] == rung for row in found) for rung in sorted({row[0] for row in found})},
        "srcc_mean": round(float(np.mean(srcc)), 4),
        "srcc_sd": round(float(np.std(srcc, ddof=1)), 4) if len(srcc) > 1 else None,
        "plcc_mean": round(float(np.mean(plcc)), 4),
        "rmse_mean": round(float(np.mean(rmse)), 5),
        "rmse_sd": round(float(np.std(rmse, ddof=1)), 5) if len(rmse) > 1 else None,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", nargs="*", default=["leaf"], help="names, files or folders")
    parser.add_argument("--initial", type=Path, help="ImageNet weights, to be compared with as well")
    parser.add_argument("--select", action="store_true", help="compare chosen with random images")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    students = [(student(name), True) for name in arguments.student]
    if arguments.initial:
        students.append((undistilled(students[0][0], arguments.initial), False))
    results: list[dict] = []
    for metric, distilled in students:
        for dataset in RANGES:
            data = Set(dataset, metric, arguments.cache, distilled)
            chosen = selection(data, arguments.draws) if arguments.select and distilled else []
            for row in [*curve(data, arguments.draws), *chosen]:
                label = metric.metric_name if distilled else "imagenet"
                results.append({"student": label, "dataset": dataset, "val_n": int((~data.train).sum()), **row})
                print(results[-1], flush=True)
            if arguments.json:  # after each set: all of it takes long
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
