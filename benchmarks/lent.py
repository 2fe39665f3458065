"""What lent scores are worth to the head: `python -m benchmarks.lent --cache CACHE --json FILE`.

Groups of train images are drawn at random until a budget of human scores is filled. The rung `head` is then fitted to
these alone, as cross-validation chooses, and to these and the scores that they and the teacher's evidence lend the rest
of the train set, with several ridges and as `leafiqa calibrate --evidence --no-full` decides. On `val`, which no fit
sees: SRCC with human scores of the own kind and of the other one, and RMSE as a share of the scale. Features are
extracted once and kept in `--cache`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.budgets import RANGES, Set, draw
from benchmarks.calibrated import evidence_of
from benchmarks.common import need_data, report, student
from leafiqa.calibration.cross_validation import RIDGES, Choice, choose, expected
from leafiqa.calibration.fit import Fit
from leafiqa.calibration.lent_head import LENT_HEAD, try_lent
from leafiqa.calibration.teacher_labels import Judged, lend
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.reliability import targets

BUDGETS = (0.02, 0.05, 0.1, 0.3)
RUNGS = ("scale", "head")


def fits_of(data: Set, teacher: np.ndarray, chosen: np.ndarray) -> dict[str, Fit]:
    """Return the fits to some rows of a set, by name; `teacher` has the evidence's score of each row."""
    labels = data.labels(chosen)
    others = np.flatnonzero(data.train)
    others = others[~np.isin(data.groups[others], data.groups[chosen]) & np.isfinite(teacher[others])]
    extracted = data.extracted
    judged = Judged(teacher[chosen], teacher[others], extracted.logits[others], extracted.features[others], [])
    alone = choose(labels, RUNGS, 0).fit(labels)
    both = lend(labels, judged, RUNGS, 0)
    found = {f"lent, ridge {ridge:g}": Choice("head", ridge).fit(both) for ridge in RIDGES}
    taken, _ = try_lent(labels, judged, RUNGS, 0, expected(labels, RUNGS, 0))
    return {"labels alone": alone, **found, "as decided": alone if taken is None else taken}


def measured(data: Set, other: Set, draws: int) -> list[dict]:
    """Return what fits of each budget are worth."""
    known = targets(read_evidence(evidence_of(data.name)))
    teacher = np.array([known[name].score if name in known else np.nan for name in data.images])
    results = []
    for share in BUDGETS:
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(draws):
            chosen = draw(data.groups, data.train, share, seed)
            for name, fit in fits_of(data, teacher, chosen).items():
                own, elsewhere = (
                    one.on_val(fit.predict(one.extracted.logits, one.extracted.features)) for one in (data, other)
                )
                found.setdefault(name, []).append((own[0], elsewhere[0], own[2]))
        for name, rows in found.items():
            mean, spread = np.mean(rows, 0), np.std(rows, 0, ddof=1)
            values = {
                key: [round(float(mean[place]), 4), round(float(spread[place]), 4)]
                for place, key in enumerate(("srcc", "srcc_other_kind", "rmse"))
            }
            results.append({"dataset": data.name, "labels": len(chosen), "draws": draws, "fit": name, **values})
            print(results[-1], flush=True)
    return results


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="leaf")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    metric = student(arguments.student)
    first, second = (Set(name, metric, arguments.cache, distilled=True) for name in RANGES)
    rows = measured(first, second, arguments.draws) + measured(second, first, arguments.draws)
    report(
        {"student": metric.metric_name, "hash": metric.card.short_hash, "ridge": LENT_HEAD.ridge, "rows": rows},
        arguments.json,
    )


if __name__ == "__main__":
    main()
