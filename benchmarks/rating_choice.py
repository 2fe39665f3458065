"""Which pictures to rate: does choosing them while rating pay: `python -m benchmarks.rating_choice --json FILE`.

Simulated raters on the `val` parts of AGIQA-3K and BIQ2021: answers around each picture's MOS, brought to 1 to 5, with
a bias and an inconsistency, in whole levels. In each draw a random half of the part may be rated, and 50 of it are: at
random, by `leafiqa select`, or as `leafiqa rate` chooses (half by select, the rest as answers come in). The student is
calibrated on each 50, and judged on the other half: RMSE in levels and SRCC, with the difference to random ones and its
interval over draws.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import leafiqa
from benchmarks.common import DATA, need_data
from leafiqa.calibration.cross_validation import choose
from leafiqa.calibration.features import Extracted, extract
from leafiqa.calibration.selection import choose_rows, points_of
from leafiqa.generators.paired_statistics import mean_interval
from leafiqa.rating.knowledge import labels_of
from leafiqa.rating.next_pictures import Teaching

BUDGET, DRAWS, BEFOREHAND = 50, 40, 25
SETS = {"agiqa3k": 5.0, "biq2021": 1.0}


def part(name: str) -> tuple[Extracted, np.ndarray]:
    """Return the student's view of a `val` part and its qualities on the scale 1 to 5."""
    folder = DATA / name
    with (folder / "mos.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    seen = extract(leafiqa.create_metric("leaf", device="cpu"), [folder / row["image"] for row in rows])
    mos = np.array([float(rows[i]["mos"]) for i in seen.index])
    return seen, 1 + 4 * mos / SETS[name]


def of_rows(seen: Extracted, rows: np.ndarray) -> Extracted:
    """Return some of the pictures."""
    return Extracted(seen.features[rows], seen.logits[rows], np.arange(len(rows)), [])


def while_rating(pool: Extracted, ratings: np.ndarray, seed: int) -> np.ndarray:
    """Return the pictures that a session asks about: half chosen beforehand, the rest as answers come in."""
    chosen = choose_rows(pool, BEFOREHAND, seed=seed)[0].tolist()
    teaching = Teaching(pool.logits, points_of(pool), seed)
    while len(chosen) < BUDGET:
        error = np.full(len(chosen), 0.6)
        new = teaching.next(chosen, ratings[chosen], error, set(range(len(ratings))) - set(chosen))
        assert new is not None
        chosen.append(new)
    return np.array(chosen)


def main() -> None:
    """Simulate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--draws", type=int, default=DRAWS)
    arguments = parser.parse_args()
    need_data()
    found: dict = {"budget": BUDGET, "draws": arguments.draws}
    for name in SETS:
        seen, quality = part(name)
        errors: dict[str, list[tuple[float, float]]] = {"random": [], "select": [], "while rating": []}
        for draw in range(arguments.draws):
            rng = np.random.default_rng([draw, len(quality)])
            order = rng.permutation(len(quality))
            half, rest = order[: len(order) // 2], order[len(order) // 2 :]
            pool = of_rows(seen, half)
            rated = quality[half] + rng.normal(0, 0.3) + rng.uniform(0.5, 0.9) * rng.normal(size=len(half))
            rated = np.clip(np.round(rated), 1, 5)
            ways = {
                "random": rng.choice(len(half), BUDGET, replace=False),
                "select": choose_rows(pool, BUDGET, seed=draw)[0],
                "while rating": while_rating(pool, rated, draw),
            }
            for way, rows in ways.items():
                labels = labels_of(pool, rows, rated[rows], [0.7] * len(rows))
                fit = choose(labels).fit(labels)
                predicted = 1 + 4 * fit.predict(seen.logits[rest], seen.features[rest])
                # A rater's bias moves all predictions; it is no fault of the pictures chosen.
                away = predicted - quality[rest]
                rmse = float(np.sqrt(((away - away.mean()) ** 2).mean()))
                errors[way].append((rmse, float(spearmanr(predicted, quality[rest]).statistic)))
        random = np.array(errors["random"])
        row = {}
        for way, values in errors.items():
            own = np.array(values)
            gap = own - random
            row[way] = {
                "rmse": float(own[:, 0].mean()),
                "srcc": float(own[:, 1].mean()),
                "rmse against random": [float(gap[:, 0].mean()), *mean_interval(gap[:, 0])],
                "srcc against random": [float(gap[:, 1].mean()), *mean_interval(gap[:, 1])],
            }
            print(name, way, json.dumps(row[way]), flush=True)
        found[name] = row
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
