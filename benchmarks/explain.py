"""How good is what a student says beside its score: `python -m benchmarks.explain [--config TOML] [--metric NAME]`.

On pictures that were not learned from: defects against those that the teacher named, on `val`; whether the right one
rises most when a picture is degraded; whether the map finds the part that was degraded, on 300 pictures; and how many
of the teacher's scores lie in intervals of 90 %, on `val` without the held-out pictures that errors were fitted to.
Of calibrated students: how many of people's scores on `val` lie in their intervals.
`--table` writes the table of docs/explain.md from the last results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from benchmarks.calibrated import STUDENTS
from benchmarks.common import DATA, filled, need_data, student
from benchmarks.readme import figure
from leafiqa.cli.progress import progress
from leafiqa.distillation.config import Config, Source, read_config
from leafiqa.distillation.data import pristine_paths, read_source, read_splits
from leafiqa.evaluation.measures import agreement
from leafiqa.evidence.linking import read_on_common_scale
from leafiqa.evidence.reliability import severities, targets
from leafiqa.images.decoding import decode
from leafiqa.labels.mos_table import read_mos
from leafiqa.metric import Metric
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "explain.json"
PAGE = ROOT / "docs" / "explain.md"
# From this severity on the teacher saw a defect clearly.
CLEAR = 1.5
# Fewer pictures with a clear defect say nothing of it.
LEAST = 8
CALIBRATED = [f"leaf_lite0.{tag}" for tag in STUDENTS]
REGIONS = ("blur", "noise", "jpeg", "underexposed")


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve."""
    ranks = rankdata(scores)
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))


def held_out(config: Config, source: Source) -> dict[str, tuple[float, dict[str, float], bool]]:
    """Return the teacher's score and defects of each `val` picture, and whether the errors were fitted to it."""
    evidence = read_on_common_scale(source.evidence, config.common)
    of_split = {name for name, split in read_splits(source).items() if split == "val"}
    scores, named = targets(evidence), severities(evidence)
    fitted = read_source(config, source).held_out
    return {name: (scores[name].score, named.get(name, {}), name in fitted) for name in sorted(of_split & set(scores))}


def measure_source(metric: Metric, config: Config, source: Source) -> dict[str, Any]:
    """Measure defects, coverage and agreement on a source's `val` pictures."""
    known = held_out(config, source)
    found = []
    with progress(source.name, "pictures") as bar:
        for number, name in enumerate(known, 1):
            found.append(metric.explain(source.images / name))
            bar(number, len(known))
    scores = np.array([one.score for one in found])
    wanted = np.array([of[0] for of in known.values()])
    within = np.array([one.interval[0] <= score <= one.interval[1] for one, score in zip(found, wanted)])
    fresh = np.array([not of[2] for of in known.values()])
    of = agreement(scores, wanted)
    aucs: dict[str, dict[str, Any]] = {}
    for defect in found[0].defects:
        asked = np.array([defect in of[1] for of in known.values()])
        severity = np.array([of[1].get(defect, np.nan) for of in known.values()])
        positive, negative = asked & (severity >= CLEAR), asked & (severity == 0)
        if positive.sum() >= LEAST and negative.sum() >= LEAST:
            told = np.array([one.defects[defect] for one in found])
            both = positive | negative
            aucs[defect] = {"auc": round(auc(told[both], positive[both]), 3), "n_clear": int(positive.sum())}
    return {
        "n": len(known),
        "srcc_with_teacher": round(of.srcc, 3),
        "srcc_interval": [round(end, 3) for end in of.srcc_interval],
        "coverage_of_90": round(float(within[fresh].mean()), 3) if fresh.any() else None,
        "n_coverage": int(fresh.sum()),
        "coverage_on_fitted": round(float(within[~fresh].mean()), 3) if (~fresh).any() else None,
        "mean_interval": round(float(np.mean([one.interval[1] - one.interval[0] for one in found])), 3),
        "defects": aucs,
    }


def measure_people(name: str) -> dict[str, Any]:
    """Measure how many of people's scores on `val` lie in a calibrated student's intervals."""
    dataset = STUDENTS[name.split(".", 1)[1]][0]
    metric = student(name)
    rows = read_mos(DATA / dataset / "mos.csv", split="val").rows
    with progress(name, "pictures") as bar:
        found = []
        for number, row in enumerate(rows, 1):
            found.append(metric.explain(row.path))
            bar(number, len(rows))
    within = [one.interval[0] <= row.mos <= one.interval[1] for one, row in zip(found, rows)]
    low, high = metric.score_range
    widths = [(one.interval[1] - one.interval[0]) / (high - low) for one in found]
    return {
        "dataset": dataset,
        "sha256": metric.card.sha256,
        "n": len(rows),
        "coverage_of_90": round(float(np.mean(within)), 3),
        "mean_interval": round(float(np.mean(widths)), 3),
    }


def measure_ladders(metric: Metric, paths: list[Path]) -> dict[str, Any]:
    """Measure how often the defect that a degradation causes rises most, at level 4 of each photograph."""
    found: dict[str, list[bool]] = {}
    with progress("degradations", "photographs") as bar:
        for number, path in enumerate(paths):
            pixels = np.asarray(decode(path).pixels)
            before = metric.explain(pixels).defects
            for name, degradation in DEGRADATIONS.items():
                if degradation.defect is not None:
                    after = metric.explain(degrade(pixels, name, 4.0, 900 + number)).defects
                    rises = {defect: after[defect] - before[defect] for defect in after}
                    found.setdefault(name, []).append(max(rises, key=rises.__getitem__) == degradation.defect)
            bar(number + 1, len(paths))
    shares = {name: round(float(np.mean(of)), 3) for name, of in found.items()}
    return {
        "photographs": len(paths),
        "share": round(float(np.mean([one for of in found.values() for one in of])), 3),
        "by_kind": shares,
    }


def measure_map(metric: Metric, paths: list[Path], count: int) -> dict[str, Any]:
    """Measure how well the map tells a degraded rectangle from the rest, as an area under the ROC curve."""
    rng = np.random.default_rng(77)
    found: dict[str, list[float]] = {name: [] for name in REGIONS}
    with progress("maps", "pictures") as bar:
        for number in range(count):
            pixels = np.asarray(decode(paths[number % len(paths)]).pixels)
            name = REGIONS[number % len(REGIONS)]
            damaged = degrade(pixels, name, float(rng.uniform(2.5, 4.5)), 5000 + number)
            height, width = pixels.shape[:2]
            high, wide = (int(side * rng.uniform(0.25, 0.5)) for side in (height, width))
            top, left = int(rng.integers(height - high)), int(rng.integers(width - wide))
            part = (slice(top, top + high), slice(left, left + wide))
            mixed, mask = pixels.copy(), np.zeros((height, width), np.float32)
            mixed[part], mask[part] = damaged[part], 1
            cells = metric.explain(mixed).map
            share = np.asarray(Image.fromarray(mask).resize(cells.shape[::-1], Image.Resampling.BOX))
            found[name].append(auc(-cells.ravel(), share.ravel() > 0.5))
            bar(number + 1, count)
    return {
        "n": count,
        "auc": round(float(np.mean([one for of in found.values() for one in of])), 3),
        "by_kind": {name: round(float(np.mean(of)), 3) for name, of in found.items()},
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| pictures | n | agreement with the teacher, SRCC | 90 % intervals hold | defects, mean AUC |",
        "|---|---|---|---|---|",
    ]
    for name, of in results["sources"].items():
        aucs = [one["auc"] for one in of["defects"].values()]
        mean = f"{np.mean(aucs):.3f}".removeprefix("0") if aucs else ""
        srcc = figure(of["srcc_with_teacher"], of["srcc_interval"])
        holds = f"{100 * of['coverage_of_90']:.0f} % of {of['n_coverage']}" if of["coverage_of_90"] is not None else ""
        lines.append(f"| {name}, val | {of['n']} | {srcc} | {holds} | {mean} |")
    each = {
        f"{name} ({source})": one["auc"]
        for source, of in results["sources"].items()
        for name, one in of["defects"].items()
    }
    told = ", ".join(f"{name} {value:.2f}".replace(" 0.", " .") for name, value in each.items())
    ladders, maps = results["ladders"], results["map"]
    kinds = ", ".join(f"{name} {value:.2f}".replace(" 0.", " .") for name, value in maps["by_kind"].items())
    of_ladders = f"{100 * ladders['share']:.0f} % of cases, {ladders['photographs']} held-out photographs"
    of_map = f"an AUC of {maps['auc']:.2f}, {maps['n']} pictures: {kinds}".replace(" 0.", " .")
    lines += ["", f"Each defect: {told}.", ""]
    lines.append(f"The right defect rises most when a picture is degraded (level 4): {of_ladders}.")
    lines.append(f"The map tells one degraded part from the rest: {of_map}.")
    held = ", ".join(
        f"{name.split('.')[1]} {100 * of['coverage_of_90']:.0f} %" for name, of in results["calibrated"].items()
    )
    lines.append(f"Of calibrated students, 90 % intervals hold so many of people's scores on `val`: {held}.")
    return "\n".join(lines)


def page() -> str:
    """Return docs/explain.md with the table of the last results."""
    results = json.loads(RESULT.read_text(encoding="utf-8"))
    return filled(PAGE.read_text(encoding="utf-8"), "explain", table(results))


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "benchmarks" / "distill_leaf_wide.toml")
    parser.add_argument("--metric", default="leaf")
    parser.add_argument("--maps", type=int, default=300)
    parser.add_argument("--json", type=Path, default=RESULT, help="where results go; the table is made of leaf's")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        PAGE.write_text(page(), encoding="utf-8")
        return
    need_data()
    config, metric = read_config(arguments.config), student(arguments.metric)
    if config.pristine is None:
        raise SystemExit("the config names no pristine photographs")
    everything = [pristine_paths(config.pristine, config.pristine_holdout, held_out=out) for out in (True, False)]
    results = {
        "metric": metric.metric_name,
        "sha256": metric.card.sha256,
        "sources": {source.name: measure_source(metric, config, source) for source in config.sources},
        "ladders": measure_ladders(metric, everything[0]),
        "map": measure_map(metric, everything[0], arguments.maps),
        "calibrated": {name: measure_people(name) for name in CALIBRATED},
    }
    arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
