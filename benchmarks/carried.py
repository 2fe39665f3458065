"""How the calibrated students came to the new `leaf`: `python -m benchmarks.carried FOLDER`.

The first `leaf` was fine-tuned on parts of two train sets (`benchmarks.calibrated`). What that changed of the backbone
is added to the new `leaf`'s (task arithmetic, Ilharco et al., ICLR 2023), the two readers and their gate are taken as
they are, and the further readers, which know other origins, are put on the scale of the same human scores. Of the way
from the new `leaf` to that a part is gone (WiSE-FT, Wortsman et al., CVPR 2022): all of it forgets other pictures and
damage, and is hardly better for its own kind. Of photographs a function of the features is fitted on top, to the same
human scores and to what they and the teacher's evidence tell of the rest of the train set; left out by origin, it
helps with photographs of each origin that it was not fitted to, and did not with generators, which go without. What
is lost of the order of damaged images all the same is brought back (`leafiqa.calibration.damage`). Errors are made so
wide that they hold what was held out of folds, and as much more as `leaf` itself is further from its teacher on
pictures that it did not learn from. No other human score is read. Accuracy is measured on `val`, which nothing was
trained on. What was tried: docs/experiments.md.

The students are stored as what differs from `leaf`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import leafiqa
from benchmarks.budgets import RANGES
from benchmarks.calibrated import KINDS, LIMITS, STUDENTS, WHAT, drawn, evidence_of, judged_beside, on_val
from benchmarks.common import DATA, TEACHER, need_data
from benchmarks.leaf import BEGINS_AT
from leafiqa.calibration.calibrator import Calibration, card_fields, label_weights
from leafiqa.calibration.cross_validation import Choice, Labels, expected
from leafiqa.calibration.damage import keep_order_of_damage
from leafiqa.calibration.doubts import with_doubts
from leafiqa.calibration.features import extract
from leafiqa.calibration.fine_tuning import features_of, predict, prepare_images
from leafiqa.calibration.fit import Fit, fit_scale
from leafiqa.calibration.merging import with_fit
from leafiqa.calibration.teacher_labels import Judged, lend
from leafiqa.evidence.linking import read_on_common_scale
from leafiqa.evidence.reliability import targets as of_teacher
from leafiqa.labels.mos_table import Labelled, read_mos
from leafiqa.metric import Metric
from leafiqa.model.checkpoint import pack_student, unpack_student
from leafiqa.model.head import last_layers
from leafiqa.model.student import Student
from leafiqa.training.aspect_fits import residuals
from leafiqa.training.averaging import between

FIRST = "weights/hub/leaf_lite0.first{}.safetensors"
COMMON = TEACHER / "mixed.jsonl"
# How much of the way is gone, and how strongly the function of the features is held to zero, where there is one.
PART = {"agiqa3k": 0.5, "biq2021": 0.25}
RIDGE = {"biq2021": 0.15}


def carried(leaf: Student, first: Student, calibrated: Student, fit: Fit) -> Student:
    """Return the new `leaf` with what a calibration made of the first one.

    Args:
        leaf: the new one, of several readers.
        first: the first one, of two.
        calibrated: what calibration made of it.
        fit: from the new one's logits to the labels, for the readers that the first one had not.
    """
    found = copy.deepcopy(leaf)
    found.residual = copy.deepcopy(calibrated.residual)
    state, before, after = leaf.state_dict(), first.state_dict(), calibrated.state_dict()
    state.update({name: after[name] for name in after if name.startswith("residual.")})
    for name, value in leaf.state_dict().items():
        if name.startswith("backbone.") and value.is_floating_point():
            state[name] = value + after[name] - before[name]
        elif name.startswith(("head.experts.0.", "head.experts.1.")):
            state[name] = after[name]
        elif name.startswith("head.gate."):
            # Each reader counts as much against the one that it began at as it did.
            begun = list(BEGINS_AT)
            moved = after[name][begun] + value - value[begun]
            state[name] = torch.cat([after[name], moved[len(after[name]) :]])
    found.load_state_dict(state)
    with torch.no_grad():
        for last in last_layers(found.head)[len(last_layers(first.head)) :]:
            last.weight.mul_(fit.slope)
            last.bias.mul_(fit.slope).add_(fit.offset)
    return found


def part_of_the_way(start: Student, end: Student, part: float) -> Student:
    """Return the student that lies so far between two, whose weights are of one architecture but for a residual."""
    found = copy.deepcopy(end)
    found.load_state_dict(between(start.state_dict(), end.state_dict(), part))
    return found


def with_evidence(student: Student, images: list[Tensor], labels: Labels, judged: Judged, ridge: float) -> Student:
    """Return a student with a function of its features fitted to human scores, and to those estimated of other images.

    Args:
        student: the student; `labels` are as another one sees their images.
        images: the labelled images.
        labels: their scores.
        judged: images that the teacher judged and nobody rated.
        ridge: how strongly the function is held to zero.
    """
    seen = features_of(student, [*images, *judged.images])
    logits = student.read(torch.from_numpy(seen).float()).double().numpy()
    both = replace(lend(labels, judged, ("scale", "head"), 0), logits=logits, features=seen)
    return with_fit(student, Choice("head", ridge).fit(both))


def elsewhere(
    leaf: Metric, dataset: str, rows: list[Labelled], labels: Labels, held_out: np.ndarray, slope: float
) -> float:
    """Return how much larger errors are on other pictures than on the labelled ones, which `leaf` has learned from.

    It is nearer to its teacher there than on `val`. The difference of the mean squares, which takes no human score, is
    added to the mean square of the calibration's held-out errors.
    """
    evidence = read_on_common_scale(evidence_of(dataset), [COMMON])
    known = {name: target.score for name, target in of_teacher(evidence).items()}

    def square(some: list[Labelled], logits: np.ndarray) -> float:
        told = torch.tensor([known[f"{dataset}/{row.image}"] for row in some])
        return float(residuals(torch.from_numpy(logits).float(), told).square().mean())

    others = [
        row for row in read_mos(DATA / dataset / "mos.csv", split="val").rows if f"{dataset}/{row.image}" in known
    ]
    more = square(others, extract(leaf, [row.path for row in others]).logits) - square(rows, labels.logits)
    predicted = torch.from_numpy(held_out).float().clamp(1e-4, 1 - 1e-4).logit()
    off = residuals(predicted, torch.from_numpy(labels.targets).float())
    return math.sqrt(1 + max(0.0, slope**2 * more) / float(off.square().mean()))


def make(tag: str, leaf: Metric, folder: Path) -> None:
    """Make one student and write it."""
    dataset, share = STUDENTS[tag]
    (low, high), (title, unit) = RANGES[dataset], WHAT[dataset]
    first = leafiqa.create_metric(weights=FIRST.format(""), device="cpu")
    before = leafiqa.create_metric(weights=FIRST.format(f"-{tag}"), device="cpu")
    table = read_mos(DATA / dataset / "mos.csv", split="train")
    rows = drawn(table, share)
    targets = (np.array([row.mos for row in rows]) - low) / (high - low)
    weights = label_weights([row.standard_error for row in rows])
    known = extract(leaf, [row.path for row in rows])
    labels = Labels(known.logits, known.features, targets, weights, np.array([row.group or row.image for row in rows]))
    fit = fit_scale(labels.logits, labels.targets, labels.weights)
    student = part_of_the_way(
        with_fit(leaf.student, fit), carried(leaf.student, first.student, before.student, fit), PART[dataset]
    )
    images = prepare_images(leaf, [row.path for row in rows])
    judged = judged_beside([row.path for row in rows], leaf, table, dataset)
    if dataset in RIDGE:
        student = with_evidence(student, images, labels, judged, RIDGE[dataset])
    scores = predict(student, images).clip(1e-6, 1 - 1e-6)
    student = with_fit(student, fit_scale(np.log(scores / (1 - scores)), targets, weights))
    keep_order_of_damage(student, leaf.student, fit, [*images, *judged.images])
    # Fine-tuning was not cross-validated: how far refitting the head is off on other groups bounds its errors.
    held_out = expected(labels, ("scale", "head"), seed=0).predictions
    with_doubts(student, leaf.student, labels.logits, features_of(student, images), targets, weights, held_out)
    if student.aspects is not None:
        student.aspects.doubt.mul_(elsewhere(leaf, dataset, rows, labels, held_out, float(student.aspects.stretch)))
    told = before.card.training
    known_before = on_val(leaf, leaf.student, dataset)
    calibration = Calibration(
        student=student,
        base=replace(leaf.card, limitations=[*leaf.card.limitations, LIMITS[dataset]]),
        score_range=(low, high),
        choice=Choice("full"),
        labels=len(rows),
        before=known_before,
        expected=known_before,  # measured below, on what is stored
        expected_by=f"measured on {title} `val`, which was not trained on",
        problems=[],
        labelled=told["calibration"]["labelled_sha256"],
        data=f"{round(100 * share)} % of the train part of {title}, drawn at random by group",
        evidence="evidence",
        judged=told["calibration"]["judged_images"],
        runs=told["calibration"]["averaged_runs"],
    )
    stored = unpack_student(*pack_student(student, card_fields(calibration, "leaf_lite0.it"), base=leaf.card), "it")
    calibration = replace(calibration, expected=on_val(leaf, stored, dataset))
    description = f"EfficientNet-Lite0 for {KINDS[dataset]}, on the scale of people"
    name = f"leaf_lite0.{tag}"
    file = calibration.save(folder / name, unit=unit, description=description, difference=True, overwrite=True)
    card = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    card["training"]["data"] = told["data"]
    card["training"]["calibration"]["carried_over"] = (
        f"python -m benchmarks.carried: {PART[dataset]:g} of the way from leaf to the following: the backbone is "
        "leaf's and what calibrating the first leaf changed of its own; "
        f"two readers and their gate are those of {before.metric_name} {before.card.short_hash}; the other readers are "
        "leaf's, on the scale of the same human scores. A linear function of the features "
        + ("is fitted to these and to estimates for the other judged images, and " if dataset in RIDGE else "")
        + "brings back the order of damaged images; its errors are its own on the labelled pictures, made so wide "
        "that they hold what was held out of folds, and as much more as leaf is further from its teacher on `val` (no "
        "human score of it) than on the labelled pictures"
    )
    file.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(name, len(rows), calibration.expected, flush=True)


def main() -> None:
    """Make the students."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(STUDENTS), default=list(STUDENTS))
    arguments = parser.parse_args()
    need_data()
    for tag in arguments.only:
        make(tag, leafiqa.create_metric("leaf", device="cpu"), arguments.folder)


if __name__ == "__main__":
    main()
