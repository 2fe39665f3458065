"""Calibrate students on parts of two train sets: `python -m benchmarks.calibrated FOLDER --metric STUDENT`.

Each is a label-free student fine-tuned on a random part of a train set's human scores, whole groups (prompts,
near-duplicates) at a time, drawn with seed 0 and not chosen among draws, and on the teacher's evidence on the rest of
the train set, brought to the human scale by those scores (`leafiqa.calibration.teacher_labels`). Accuracy is
measured on `val`, which nothing was trained on; `python -m benchmarks.accuracy --quick --write-card` puts it into the
card too.
`--runs N` averages the weights of N trainings, in different order. `--evidence DATASET=FILE...` adds evidence, such as
second opinions, to the teacher's.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.budgets import RANGES, draw
from benchmarks.common import DATA, TEACHER, need_data, student
from leafiqa.calibration.calibrator import Calibration, label_weights
from leafiqa.calibration.cross_validation import Choice, Labels
from leafiqa.calibration.features import extract
from leafiqa.calibration.fine_tuning import predict, prepare_images
from leafiqa.calibration.fine_tuning_rung import Material
from leafiqa.calibration.teacher_labels import Judged, gather
from leafiqa.evaluation.measures import Agreement
from leafiqa.evaluation.measures import agreement as measure
from leafiqa.evidence.files import cite, read_evidence
from leafiqa.evidence.reliability import targets
from leafiqa.files import sha256_if_readable
from leafiqa.labels.mos_table import Labelled, MosTable, read_mos
from leafiqa.metric import Metric
from leafiqa.model.card import read_card
from leafiqa.model.student import Student

STUDENTS = {
    "generated-10": ("agiqa3k", 0.1),
    "generated-30": ("agiqa3k", 0.3),
    "photo-10": ("biq2021", 0.1),
    "photo-30": ("biq2021", 0.3),
}
WHAT = {
    "agiqa3k": ("AGIQA-3K (MIT)", "one point of AGIQA-3K's mean opinion score, 0 to 5"),
    "biq2021": ("BIQ2021", "one unit of BIQ2021's mean opinion score, 0 to 1"),
}
KINDS = {"agiqa3k": "generated images", "biq2021": "photographs"}
BACKBONES = {"leaf_lite0": "EfficientNet-Lite0", "leaf_lite2": "EfficientNet-Lite2"}
LIMITS = {
    "agiqa3k": "For generated pictures: of photographs the label-free student it comes from judges better.",
    "biq2021": "For photographs: of generated pictures the label-free student it comes from judges better.",
}


def drawn(table: MosTable, share: float) -> list[Labelled]:
    """Return a random share of a train set, whole groups at a time."""
    groups = np.array([row.group or row.image for row in table.rows])
    return [table.rows[i] for i in draw(groups, np.ones(len(groups), dtype=bool), share, seed=0)]


def material(metric: Metric, table: MosTable, dataset: str, share: float, extra: list[Path]) -> Material:
    """Return a random share of a train set's human scores, and the evidence on the rest of the train set."""
    rows = drawn(table, share)
    low, high = RANGES[dataset]
    paths = [row.path for row in rows]
    extracted = extract(metric, paths)
    labels = Labels(
        extracted.logits,
        extracted.features,
        (np.array([row.mos for row in rows]) - low) / (high - low),
        label_weights([row.standard_error for row in rows]),
        np.array([row.group or row.image for row in rows]),
    )
    judged = judged_beside(paths, metric, table, dataset, extra)
    return Material(metric.student, labels, prepare_images(metric, paths), judged, ("scale", "head"), seed=0)


def judged_beside(
    labelled: list[Path], metric: Metric, table: MosTable, dataset: str, extra: Sequence[Path] = ()
) -> Judged:
    """Return the images of a train set that the teacher judged, but for those whose human scores are used."""
    known = targets(read_evidence([*evidence_of(dataset), *extra]))
    told = {row.path.resolve(): known[f"{dataset}/{row.image}"].score for row in table.rows}
    return gather(metric, told, labelled)[0]


def note_labels(path: Path, dataset: str, share: float) -> None:
    """Write into a card the first digits of the sha256 of the images whose human scores were learned from."""
    if not path.exists():
        return
    card = read_card(path)
    rows = drawn(read_mos(DATA / dataset / "mos.csv", split="train"), share)
    if len(rows) != card.training["calibration"]["labels"]:
        raise SystemExit(f"{path}: {len(rows)} images drawn, the card says {card.training['calibration']['labels']}")
    hashes = [(sha256_if_readable(row.path) or "")[:12] for row in rows]
    training = {**card.training, "calibration": {**card.training["calibration"], "labelled_sha256": hashes}}
    path.write_text(replace(card, training=training).to_json(), encoding="utf-8")


def main() -> None:
    """Calibrate, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metric", default="leaf")
    parser.add_argument("--only", nargs="*", choices=list(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--runs", type=int, default=1, help="trainings whose weights are averaged")
    parser.add_argument("--note-labels", action="store_true", help="only write into the cards which images were rated")
    parser.add_argument("--evidence", nargs="*", default=[], metavar="DATASET=FILE", help="more evidence")
    arguments = parser.parse_args()
    need_data()
    metric = student(arguments.metric)
    extra = [item.split("=", 1) for item in arguments.evidence]
    for tag in arguments.only:
        dataset, share = STUDENTS[tag]
        name = f"{metric.metric_name.split('.')[0]}.{tag}"
        if arguments.note_labels:
            note_labels(arguments.folder / f"{name}.json", dataset, share)
            continue
        if (arguments.folder / f"{name}.safetensors").exists():
            continue
        table = read_mos(DATA / dataset / "mos.csv", split="train")
        more = [Path(file) for where, file in extra if where == dataset]
        paths = [row.path for row in drawn(table, share)]
        given = replace(material(metric, table, dataset, share, more), runs=arguments.runs)
        tuned, _ = given.tune()
        title, unit = WHAT[dataset]
        calibration = Calibration(
            student=tuned,
            base=replace(metric.card, limitations=[*metric.card.limitations, LIMITS[dataset]]),
            score_range=RANGES[dataset],
            choice=Choice("full"),
            labels=len(given.labels),
            before=on_val(metric, metric.student, dataset),
            expected=on_val(metric, copy.deepcopy(tuned).half().float().eval(), dataset),  # stored in half precision
            expected_by=f"measured on {title} `val`, which was not trained on",
            problems=[],
            labelled=[(sha256_if_readable(path) or "")[:12] for path in paths],
            data=f"{round(100 * share)} % of the train part of {title}, drawn at random by group",
            evidence=cite([*evidence_of(dataset), *more]) + ", by the teacher",
            judged=len(given.judged.images) if given.judged else 0,
            runs=arguments.runs,
        )
        backbone = BACKBONES[metric.metric_name.split(".")[0]]
        file = calibration.save(
            arguments.folder / name, unit=unit, description=f"{backbone} for {KINDS[dataset]}, on the scale of people"
        )
        print(file, calibration.labels, calibration.expected, flush=True)


def evidence_of(dataset: str) -> list[Path]:
    """Return the files of the teacher's evidence on a data set."""
    return [TEACHER / f"{dataset}.jsonl", TEACHER / f"{dataset}-repeat.jsonl"]


def on_val(metric: Metric, student: Student, dataset: str) -> Agreement:
    """Measure a student on a data set's `val`."""
    rows = read_mos(DATA / dataset / "mos.csv", split="val").rows
    low, high = RANGES[dataset]
    scores = low + (high - low) * predict(student, prepare_images(metric, [row.path for row in rows]))
    return measure(scores, np.array([row.mos for row in rows]), seed=0)


if __name__ == "__main__":
    main()
