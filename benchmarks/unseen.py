"""How do students agree with their teacher on pictures of origins that they never saw? `python -m benchmarks.unseen`.

The pictures of `benchmarks.varied_pictures`: generated ones (`gallery`) and photographs (`snaps`) of many repositories.
SRCC and PLCC with the teacher's scores, with intervals over whole repositories, and the mean of the SRCC within
repositories of at least 12 pictures, where what they show and how they were made is alike. And how many of its scores
of `val` lie in the students' intervals of 90 %. `val` are repositories that no student is to learn from, `train` those
that the present students have learned from and the earlier ones have not. And how the teacher agrees with itself: its
first scores with its second ones, and its scores of the anchors with those of other sheets.

`--table` writes the table of docs/models.md from the last results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import TEACHER, filled, need_data, report, student
from benchmarks.readme import figure
from benchmarks.varied_pictures import EVIDENCE, KINDS, PICTURES, read_table
from leafiqa.cli.progress import progress
from leafiqa.evaluation.measures import Agreement, agreement
from leafiqa.evidence.files import Evidence, read_evidence
from leafiqa.evidence.linking import read_on_common_scale
from leafiqa.evidence.reliability import targets
from leafiqa.metric import Metric

RESULT = Path(__file__).with_name("results") / "unseen.json"
PAGE = Path(__file__).parents[1] / "docs" / "models.md"
STUDENTS = (
    "leaf",
    "weights/hub/leaf_lite0.second.safetensors",
    "leaf_lite2.general",
    "weights/hub/leaf_lite2.third.safetensors",
    "weights/hub/leaf_lite2.second.safetensors",
    "weights/hub/leaf_lite0.first.safetensors",
)
COMMON = TEACHER / "mixed.jsonl"
SPLITS = ("train", "val")
# Students that have learned from `train`.
LEARNED = ("leaf_lite0.general", "leaf_lite2.general", "leaf_lite2.third")
LEAST = 12

Array = NDArray[np.float64]


def judged() -> tuple[list[dict[str, str]], Array]:
    """Return the pictures' rows and the teacher's scores of them, on the common scale."""
    rows = read_table()
    told = targets(read_on_common_scale(EVIDENCE, [COMMON]))
    return rows, np.array([told[row["image"]].score for row in rows])


def measure(scores: Array, wanted: Array, origins: list[str]) -> dict[str, Any]:
    """Return how scores agree with the teacher's, over all pictures and within each repository."""
    together = agreement(scores, wanted, groups=origins)
    named = np.array(origins)
    large = [name for name in sorted(set(origins)) if (named == name).sum() >= LEAST]
    within = [agreement(scores[named == name], wanted[named == name], draws=0).srcc for name in large]
    return {**_rounded(together), "repositories": len(set(origins)), "within": round(float(np.nanmean(within)), 4)}


def teacher_again(evidence: Evidence) -> dict[str, Any]:
    """Return how the teacher's scores of anchors agree with its scores of the same pictures on other sheets."""
    before, now = targets(read_evidence([COMMON])), targets(evidence)
    shared = sorted(set(now) & set(before))
    found = {}
    for source in ("", *sorted({name.partition("/")[0] for name in shared})):
        names = [name for name in shared if name.startswith(source)]
        values = [np.array([of[name].score for name in names]) for of in (now, before)]
        found[source or "all"] = _rounded(agreement(*values))
    return found


def twice(evidence: Evidence, rows: list[dict[str, str]], split: str, kind: str) -> dict[str, Any]:
    """Return how the teacher's first scores of pictures agree with its second ones, in other company."""
    chosen = of_part(rows, split, kind)
    first, second = (
        np.array([evidence.points[rows[place]["image"]][time].score for place in chosen]) for time in (0, 1)
    )
    return measure(first, second, [rows[place]["repository"] for place in chosen])


def of_part(rows: list[dict[str, str]], split: str, kind: str) -> list[int]:
    """Return the places of the pictures of a split and kind."""
    return [n for n, row in enumerate(rows) if row["split"] == split and row["image"].startswith(f"{kind}/")]


def coverage(metric: Metric, images: list[Path], wanted: Array) -> float:
    """Return what part of the teacher's scores lies in a student's intervals of 90 %."""
    held = 0
    with progress(metric.card.name, "pictures") as bar:
        for number, (image, score) in enumerate(zip(images, wanted), 1):
            low, high = metric.explain(image).interval
            held += low <= score <= high
            bar(number, len(images))
    return round(held / len(images), 3)


def table(results: dict[str, Any]) -> str:
    """Return the table of the students' agreement."""
    lines = ["| | gallery | within | held | snaps | within | held |", "|---|---|---|---|---|---|---|"]
    rows = [(name, f"`{name}`", of) for name, of in results["students"].items()]
    rows.append(("teacher", "the teacher, first and second score", results["teacher twice"]))
    for name, title, of in rows:
        for split in SPLITS:
            cells = []
            for kind in KINDS:
                one = of[split][kind]
                held = f"{100 * one['coverage_of_90']:.0f} %" if "coverage_of_90" in one else ""
                cells += [figure(one["srcc"], one["srcc_interval"]), f"{one['within']:.2f}".lstrip("0"), held]
            learned = ", learned from" if split == "train" and name in LEARNED else ""
            lines.append(f"| {title}, `{split}`{learned} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """Return docs/models.md with the table of the last results."""
    return filled(PAGE.read_text(encoding="utf-8"), "unseen", table(json.loads(RESULT.read_text(encoding="utf-8"))))


def _rounded(told: Agreement) -> dict[str, Any]:
    return {
        "n": told.n,
        "srcc": round(told.srcc, 4),
        "srcc_interval": [round(end, 4) for end in told.srcc_interval],
        "plcc": round(told.plcc, 4),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", nargs="+", default=list(STUDENTS), help="names or files of students")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        PAGE.write_text(page(), encoding="utf-8")
        return
    need_data(TEACHER)
    if not (PICTURES / KINDS[0]).is_dir():
        raise SystemExit(
            f"{PICTURES / KINDS[0]} is not there: write it by python -m benchmarks.varied_pictures MIRRORS"
        )
    rows, wanted = judged()
    evidence = read_evidence(EVIDENCE)
    found: dict[str, Any] = {
        "teacher again": teacher_again(evidence),
        "teacher twice": {split: {kind: twice(evidence, rows, split, kind) for kind in KINDS} for split in SPLITS},
        "students": {},
    }
    for name in arguments.metric:
        metric = student(name)
        scores = metric([PICTURES / row["image"] for row in rows]).double().numpy()
        told: dict[str, Any] = {"sha256": metric.card.short_hash}
        for split in SPLITS:
            told[split] = {}
            for kind in KINDS:
                chosen = of_part(rows, split, kind)
                origins = [rows[place]["repository"] for place in chosen]
                told[split][kind] = measure(scores[chosen], wanted[chosen], origins)
                if split == "val" and metric.student.aspects is not None:
                    images = [PICTURES / rows[place]["image"] for place in chosen]
                    told[split][kind]["coverage_of_90"] = coverage(metric, images, wanted[chosen])
        found["students"][metric.card.name] = told
    report(found, arguments.json)


if __name__ == "__main__":
    main()
