"""Measure a metric: agreement with human scores on `val`, severity ladders, pictures of nothing.

    python -m benchmarks.accuracy --metric leaf --json benchmarks/results/accuracy.json [--write-card]

Needs the image sets in ../shared/data (or LEAFIQA_DATA). Agreement is what `leafiqa eval --split val` prints: raw
correlations, without any fitted mapping, with percentile bootstrap intervals over groups of images (2,000 draws).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

import leafiqa
from benchmarks.common import DATA, need_data, student
from leafiqa.cli.progress import progress
from leafiqa.distillation.data import pristine_paths
from leafiqa.images.decoding import decode
from leafiqa.metric import Metric
from leafiqa.model.places import is_place, resolve
from leafiqa.training.degradations.arrays import LEVELS
from leafiqa.training.degradations.ladders import DEGRADATIONS, ladder
from leafiqa.training.degradations.nothing import null_image

SHARES = (10, 25, 50, 75, 90)
KINDS = {"agiqa3k": "generated images (AGIQA-3K val, n=298)", "biq2021": "photographs (BIQ2021 val, n=400)"}


def agreement(metric: Metric, dataset: str, split: str = "val") -> dict:
    """Correlate scores with MOS on one split, and tell what the scores are."""
    with progress(f"{dataset} {split}") as bar:
        compared = leafiqa.evaluate(DATA / dataset / "mos.csv", metric, split=split, progress=bar)
    found = compared.agreement[metric.metric_name]
    return {
        "dataset": dataset,
        "split": split,
        "n": found.n,
        "srcc": round(found.srcc, 6),
        "srcc_interval": [round(end, 6) for end in found.srcc_interval],
        "plcc": round(found.plcc, 6),
        "plcc_interval": [round(end, 6) for end in found.plcc_interval],
        "interval_over": compared.over,
        "percentiles": {
            str(share): round(float(np.percentile(compared.scores[metric.metric_name], share)), 3) for share in SHARES
        },
    }


def ladders(metric: Metric) -> dict:
    """Kendall's tau between severity (0..5) and falling score, by degradation, over photographs that were held out."""
    paths = pristine_paths(DATA / "pristine" / "images", 3, held_out=True)
    taus: dict[str, list[float]] = {name: [] for name in DEGRADATIONS}
    with progress("ladders", "photographs") as bar:
        for number, path in enumerate(paths):
            pixels = np.asarray(decode(path).pixels)
            for name in DEGRADATIONS:
                scores = metric(ladder(pixels, name, seed=10_000 + number)).cpu().numpy()
                taus[name].append(float(kendalltau(np.arange(LEVELS + 1), -scores).statistic))
            bar(number + 1, len(paths))
    return {
        name: {"n": len(of), "median_tau": round(float(np.median(of)), 4), "mean_tau": round(float(np.mean(of)), 4)}
        for name, of in taus.items()
    }


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
    parser.add_argument("--metric", default="leaf", help="a name, or a place written with a / or an ending")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--write-card", action="store_true", help="put the accuracy into the model's card")
    parser.add_argument("--quick", action="store_true", help="agreement only")
    arguments = parser.parse_args()
    need_data()
    metric = student(arguments.metric)
    results: dict[str, Any] = {
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
        place = arguments.metric if is_place(arguments.metric) else None
        file, card = resolve(arguments.metric, place)
        path = file.with_suffix(".json")
        told = [dict(row) for row in results["accuracy"]]
        percentiles = {KINDS[row["dataset"]]: row.pop("percentiles") for row in told}
        written = replace(card, accuracy=told, score={**card.score, "percentiles": percentiles})
        path.write_text(written.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
