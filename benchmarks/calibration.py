"""Accuracy on `val` against the number of human scores: distilled against undistilled features, several draws.

    python -m benchmarks.calibration --initial efficientnet-lite0.pth --cache CACHE --json OUT.json

For each set and budget, groups of train images are drawn at random until the budget is filled, the calibration chooses
its rung on them, and SRCC and PLCC are taken on `val`, which no fit sees. "undistilled" is the same backbone with its
ImageNet weights (`--initial`, the file that training starts from) and no head: the same fit, without a student's
prediction to hold on to. Features are extracted once and kept in `--cache`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np

import leafiqa
from benchmarks.accuracy import DATA
from leafiqa.calibrate.choose import choose
from leafiqa.calibrate.features import Seen, see
from leafiqa.calibrate.fit import fit_head, fit_scale
from leafiqa.distill.initial import load_imagenet
from leafiqa.evaluate.agreement import pearson, spearman
from leafiqa.metric import Metric

RANGES = {"agiqa3k": (0.0, 5.0), "biq2021": (0.0, 1.0)}
BUDGETS = (0.01, 0.05, 0.1, 0.3, 1.0)


def undistilled(metric: Metric, initial: Path) -> Metric:
    """Return a metric that sees with the ImageNet backbone and has no opinion of its own."""
    import torch

    plain = leafiqa.create_metric(weights=metric.card.name, device=metric.device)
    load_imagenet(plain.student, initial)
    with torch.no_grad():
        plain.student.head[-1].weight.zero_()
        plain.student.head[-1].bias.zero_()
        plain.student.feature_mean.zero_()
        plain.student.feature_std.fill_(1)
    return plain


def features(metric: Metric, dataset: str, rows: list[dict[str, str]], cache: Path) -> Seen:
    """Extract features of a set's images, or read them back."""
    if cache.exists():
        stored = np.load(cache)
        return Seen(stored["features"], stored["logits"], stored["index"], [])
    seen = see(metric, [DATA / dataset / row["image"] for row in rows])
    if seen.errors:
        raise RuntimeError(f"{dataset}: {seen.errors[:3]}")
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, features=seen.features.astype(np.float32), logits=seen.logits, index=seen.index)
    return seen


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


def one_draw(seen: Seen, targets: np.ndarray, groups: np.ndarray, chosen: np.ndarray, distilled: bool) -> tuple:
    """Calibrate on the chosen rows and return the rung and predictions for all rows."""
    part = (seen.logits[chosen], seen.features[chosen], targets[chosen], np.ones(len(chosen)))
    choice = choose(*part, groups[chosen], ("scale", "head") if distilled else ("head",))
    if not distilled and choice.ridge is None:  # too few labels for the head to be offered
        fit = fit_head(*part, ridge=0.1, start=fit_scale(part[0], part[2], part[3]))
    else:
        fit = choice.fit(*part)
    return choice.rung if distilled else "head", fit.predict(seen.logits, seen.features)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", default="leaf")
    parser.add_argument("--initial", type=Path, help="ImageNet weights; without them only the distilled student")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    metric = leafiqa.create_metric(weights=arguments.metric)
    students = {"distilled": metric}
    if arguments.initial:
        students["undistilled"] = undistilled(metric, arguments.initial)
    results: list[dict] = []
    for dataset, (low, high) in RANGES.items():
        with (DATA / dataset / "mos.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        mos = np.array([float(row["mos"]) for row in rows])
        train = np.array([row["split"] == "train" for row in rows])
        groups = np.array([row["group"] or row["image"] for row in rows])
        targets = (mos - low) / (high - low)
        for kind, student in students.items():
            digest = metric.card.short_hash if kind == "distilled" else "imagenet"
            seen = features(student, dataset, rows, arguments.cache / f"{dataset}-{digest}.npz")
            if kind == "undistilled":
                # Standardised on all train images, as a student's features are: no label is needed for that.
                mean, std = seen.features[train].mean(0), seen.features[train].std(0).clip(min=1e-3)
                seen = Seen((seen.features - mean) / std, np.zeros(len(rows)), seen.index, [])
            else:
                results.append(_row(dataset, kind, 0.0, 0, [("none", seen.logits)], mos, ~train))
                print(results[-1], flush=True)
            for share in BUDGETS:
                found = []
                for seed in range(arguments.draws if share < 1 else 1):
                    chosen = draw(groups, train, share, seed)
                    if len(chosen) >= 10:
                        found.append(one_draw(seen, targets, groups, chosen, kind == "distilled"))
                results.append(_row(dataset, kind, share, len(chosen), found, mos, ~train))
                print(results[-1], flush=True)
    text = json.dumps({"metric": metric.metric_name, "sha256": metric.card.sha256, "results": results}, indent=2)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


def _row(dataset: str, kind: str, share: float, labels: int, found: list, mos: np.ndarray, val: np.ndarray) -> dict:
    srcc = [spearman(predicted[val], mos[val]) for _, predicted in found]
    plcc = [pearson(predicted[val], mos[val]) for _, predicted in found]
    return {
        "dataset": dataset,
        "student": kind,
        "share": share,
        "labels": labels,
        "draws": len(found),
        "rungs": {rung: sum(r == rung for r, _ in found) for rung in sorted({r for r, _ in found})},
        "val_n": int(val.sum()),
        "srcc_mean": round(float(np.mean(srcc)), 4),
        "srcc_sd": round(float(np.std(srcc, ddof=1)), 4) if len(srcc) > 1 else None,
        "srcc_least": round(float(np.min(srcc)), 4),
        "plcc_mean": round(float(np.mean(plcc)), 4),
    }


if __name__ == "__main__":
    main()
