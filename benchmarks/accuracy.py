"""Measure a metric: agreement with human scores on `val`, severity ladders, pictures of nothing.

    python -m benchmarks.accuracy --metric leaf --json benchmarks/results/accuracy.json [--write-card]

Needs the image sets in ../shared/data (or LEAFIQA_DATA) and scipy. Correlations are raw, without any fitted mapping,
with percentile bootstrap intervals over images (2,000 draws).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import leafiqa
from leafiqa.distillation.data import pristine_paths
from leafiqa.evaluation.measures import agreement as measure
from leafiqa.images.decoding import decode
from leafiqa.metric import Metric
from leafiqa.model.places import resolve
from leafiqa.training.degradations import DEGRADATIONS, LEVELS, ladder, null_image

DATA = Path(os.environ.get("LEAFIQA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def agreement(metric: Metric, dataset: str, split: str = "val") -> dict:
    """Correlate scores with MOS on one split."""
    with (DATA / dataset / "mos.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    scores = metric(DATA / dataset / row["image"] for row in rows).cpu().double().numpy()
    mos = np.array([float(row["mos"]) for row in rows])
    found = measure(scores, mos, draws=2000, seed=0)
    return {
        "dataset": dataset,
        "split": split,
        "n": found.n,
        "srcc": round(found.srcc, 4),
        "srcc_interval": [round(end, 4) for end in found.srcc_interval],
        "plcc": round(found.plcc, 4),
        "plcc_interval": [round(end, 4) for end in found.plcc_interval],
    }


def ladders(metric: Metric) -> dict:
    """Kendall's tau between severity (0..5) and falling score, per degradation, over the pristine photographs."""
    result: dict = {}
    everything = pristine_paths(DATA / "pristine" / "images", 3, held_out=True)
    rest = pristine_paths(DATA / "pristine" / "images", 3, held_out=False)
    for degradation in DEGRADATIONS:
        taus: dict[str, list[float]] = {"held_out": [], "trained_on": []}
        for part, paths in (("held_out", everything), ("trained_on", rest)):
            for number, path in enumerate(paths):
                steps = ladder(np.asarray(decode(path).pixels), degradation, seed=10_000 + number)
                scores = metric(steps).cpu().numpy()
                taus[part].append(float(kendalltau(np.arange(LEVELS + 1), -scores).statistic))
        values = taus["held_out"] + taus["trained_on"]
        result[degradation] = {
            "n": len(values),
            "median_tau": round(float(np.median(values)), 4),
            "held_out_n": len(taus["held_out"]),
            "held_out_median_tau": round(float(np.median(taus["held_out"])), 4),
            "held_out_mean_tau": round(float(np.mean(taus["held_out"])), 4),
        }
    return result


def nothing(metric: Metric) -> dict:
    """Highest score of noise, flat colour and gradients (drawn anew, not those of the training)."""
    rng = np.random.default_rng(987)
    pictures = [null_image(int(rng.integers(64, 700)), rng) for _ in range(300)]
    flats = [np.full((300, 400, 3), level, np.uint8) for level in range(0, 256, 15)]
    white_noise = [rng.integers(0, 256, (256, 384, 3), dtype=np.uint8) for _ in range(30)]
    low, high = metric.score_range
    scores = metric([*pictures, *flats, *white_noise]).cpu().numpy()
    return {"n": len(scores), "highest": round(float(scores.max()), 4), "upper_half_from": (low + high) / 2}


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", default="leaf", help="a name, file or folder")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--write-card", action="store_true", help="put the accuracy into the model's card")
    parser.add_argument("--quick", action="store_true", help="agreement only")
    arguments = parser.parse_args()
    metric = leafiqa.create_metric(weights=arguments.metric)
    results = {
        "metric": metric.metric_name,
        "sha256": metric.card.sha256,
        "accuracy": [agreement(metric, name) for name in ("agiqa3k", "biq2021")],
    }
    if not arguments.quick:
        results["ladders"] = ladders(metric)
        results["nothing"] = nothing(metric)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")
    if arguments.write_card:
        file, card = resolve(arguments.metric)
        path = file.with_suffix(".json")
        path.write_text(replace(card, accuracy=results["accuracy"]).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
