"""Calibrate a metric on a few human scores and write it as a student of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import leafiqa
from leafiqa.calibrate.choose import HEAD_LEAST, Choice, Labels, choose, expected
from leafiqa.calibrate.features import see
from leafiqa.calibrate.fit import Array
from leafiqa.calibrate.fold_in import fold_in
from leafiqa.calibrate.full import FULL_LEAST, look_at
from leafiqa.calibrate.judged import Judged, gather
from leafiqa.calibrate.tune import Material, try_full
from leafiqa.errors import CalibrationError
from leafiqa.evaluate.agreement import Agreement, agreement
from leafiqa.evaluate.copies import join_copies
from leafiqa.evaluate.table import MosTable
from leafiqa.metric import Metric
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import save_student
from leafiqa.model.student import Student

LEAST_LABELS = 10
# How a limitation begins that calibration does away with.
TEACHERS_SCALE = "Its scale is the teacher's"
RUNGS = ("scale", "head")
# Of fewer groups none can be held out twice over, as choosing and measuring take.
_LEAST_GROUPS = 3
# How far beyond the labels' own span the scale reaches where the user does not name its ends.
_MARGIN = 0.1


@dataclass(frozen=True)
class Calibration:
    """A calibrated student and what to expect of it.

    Attributes:
        student: the student with the calibration folded into its weights.
        score_range: ends of the human scale.
        choice: the rung.
        labels: number of labels used.
        expected: held-out agreement with the labels, by cross-validation.
        expected_by: how that was found.
        problems: labels left out, and why.
        judged: number of images without a label that were learned from by a teacher's evidence.
        runs: trainings whose weights were averaged; 1 where nothing was fine-tuned.
    """

    student: Student
    score_range: tuple[float, float]
    choice: Choice
    labels: int
    expected: Agreement
    expected_by: str
    problems: list[str]
    judged: int = 0
    runs: int = 1


def pick_range(mos: Array, given: tuple[float, float] | None) -> tuple[float, float]:
    """Return the ends of the human scale: those given, else the labels' span widened by a tenth at each end.

    Raises:
        CalibrationError: the ends do not rise, are not finite, or do not hold the labels.
    """
    low, high = float(mos.min()), float(mos.max())
    if given is None:
        margin = _MARGIN * (high - low)
        return low - margin, high + margin
    if not (math.isfinite(given[0]) and math.isfinite(given[1]) and given[0] < given[1]):
        raise CalibrationError(f"the range must be two finite numbers that rise, got {given}")
    if low < given[0] or high > given[1]:
        raise CalibrationError(
            f"the range {given[0]:g} to {given[1]:g} does not hold the labels, which go from {low:g} to {high:g}"
        )
    return given


def check_labels(mos: Array, logits: Array, problems: Sequence[str] = ()) -> None:
    """Refuse labels that cannot support a calibration.

    Args:
        mos: `(n,)` the usable labels.
        logits: `(n,)` the student's logits of their images.
        problems: why others were left out, for the message that there are too few.

    Raises:
        CalibrationError: too few labels, no spread in them, or a student that runs against them.
    """
    if len(mos) < LEAST_LABELS:
        why = f"; {len(problems)} remarks, such as {'; '.join(problems[:3])}" if problems else ""
        raise CalibrationError(
            f"calibration needs at least {LEAST_LABELS} labelled images, got {len(mos)} usable ones{why}"
        )
    if len(np.unique(mos)) < 3:
        raise CalibrationError(
            f"the labels hold {len(np.unique(mos))} different value(s) ({mos.min():g} to {mos.max():g}): nothing to "
            "learn a scale from; label images of low, middling and high quality"
        )
    found = spearmanr(logits, mos)
    if found.statistic < 0 and found.pvalue < 0.05:
        raise CalibrationError(
            f"the labels run against the student (SRCC {found.statistic:.2f} on {len(mos)} images): are higher MOS "
            "better images here? Turn a difference score (DMOS) round first: mos = highest - dmos"
        )


def label_weights(spreads: list[float | None]) -> Array:
    """Return weights with mean one out of the labels' standard errors.

    The variance that the student cannot explain is about that of a typical label, so it is added to each: a label
    with a very small stated error gets at most twice the typical weight. A label without one counts as typical; all
    count the same if none has one.
    """
    known = [spread for spread in spreads if spread is not None]
    if not known:
        return np.ones(len(spreads))
    typical = float(np.median(known))
    variance = np.array([typical if spread is None else spread for spread in spreads]) ** 2
    weights = 1 / (variance + np.median(variance))
    return weights / weights.mean()


def calibrate(
    metric: Metric,
    table: MosTable,
    *,
    score_range: tuple[float, float] | None = None,
    rungs: tuple[str, ...] = RUNGS,
    full: bool = False,
    evidence: Mapping[Path, float] | None = None,
    runs: int = 1,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
    tuning: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Calibrate a metric on human scores.

    Args:
        metric: the metric to start from; left as it is.
        table: images with human scores; standard errors and groups are used where given.
        score_range: ends of the human scale, such as (1, 5); None means the table's scale where it is known, else the
            labels' span widened by a tenth.
        rungs: rungs to choose among, of `RUNGS`.
        full: also try to fine-tune the whole student, from `FULL_LEAST` images on; takes that many times longer.
        evidence: a teacher's scores in [0, 1] by resolved path; fine-tuning then also learns from the images that it
            judged and nobody rated, see `leafiqa.calibrate.judged`. Implies `full`.
        runs: how often to fine-tune, in different order; the mean of the weights is the student.
        seed: seeds the cross-validation and the fine-tuning.
        advance: called once for each image that is done.
        tuning: called with the number of images that fine-tuning has taken, and with how many it will take.

    Raises:
        CalibrationError: the labels cannot support it, or the evidence does not go with them; the message says why.
    """
    rows = table.rows
    seen = see(metric, [row.path for row in rows], advance)
    problems = table.problems + [f"{rows[i].image}: {why}: left out" for i, why in seen.errors]
    kept = [rows[i] for i in seen.index]
    mos = np.array([row.mos for row in kept])
    check_labels(mos, seen.logits, problems)
    if rungs == ("head",) and len(kept) < HEAD_LEAST:
        raise CalibrationError(f"the rung head needs at least {HEAD_LEAST} labelled images, got {len(kept)}")
    low, high = pick_range(mos, score_range or table.scale)
    targets = (mos - low) / (high - low)
    weights = label_weights([row.spread for row in kept])
    groups = np.array([row.group or f"image {row.image}" for row in kept])
    groups, copies = join_copies(groups, [row.path for row in kept])
    problems += copies
    if (count := len(np.unique(groups))) < _LEAST_GROUPS:
        raise CalibrationError(
            f"the labels are of {count} group(s), and images of one group stay on one side of each split: label images "
            f"of at least {_LEAST_GROUPS} groups, or leave the column group out"
        )
    labels = Labels(seen.logits, seen.features, targets, weights, groups)
    predicted = expected(labels, rungs, seed)
    choice = choose(labels, rungs, seed)
    student, by = fold_in(metric.student, choice.fit(labels)), "nested group-aware cross-validation on the labels"
    judged: Judged | None = None
    if evidence is not None:
        judged, unreadable = gather(metric, evidence, [row.path for row in kept], advance)
        problems += unreadable
    if full or judged is not None:
        count = len(labels) + (0 if judged is None else len(judged.images))
        if count < FULL_LEAST:
            problems.append(
                f"fine-tuning needs at least {FULL_LEAST} images with labels or evidence, got {count}: left out"
            )
        else:
            material = Material(
                metric.student, labels, look_at(metric, [row.path for row in kept]), judged, rungs, seed, runs
            )
            tuned, tuned_predicted = try_full(material, tuning)
            by = "group-aware cross-validation on the labels, which also decided whether to fine-tune"
            if tuned is not None:
                student, predicted, choice = tuned, tuned_predicted, Choice("full", choice.ridge)
            else:
                predicted = tuned_predicted
    return Calibration(
        student=student,
        score_range=(low, high),
        choice=choice,
        labels=len(kept),
        expected=agreement(low + (high - low) * predicted, mos, seed=seed, groups=groups.tolist()),
        expected_by=by,
        problems=problems,
        judged=len(judged.images) if judged is not None and choice.rung == "full" else 0,
        runs=runs if choice.rung == "full" else 1,
    )


def save_calibrated(
    calibration: Calibration,
    base: Card,
    name: str,
    folder: Path,
    *,
    data: str,
    evidence: str = "",
    unit: str | None = None,
    description: str | None = None,
) -> Card:
    """Write a calibrated student and its card.

    Args:
        calibration: what `calibrate` returned.
        base: the card of the metric that was calibrated.
        name: name of the new student, `arch.tag`.
        folder: where to write `name.safetensors` and `name.json`.
        data: what the labels were, for the card.
        evidence: what the evidence was, for the card, if there was any.
        unit: what one unit of the scale means, for the card.
        description: what the student is, for the card; None means the base's name, on a human scale.
    """
    fields: dict[str, Any] = {key: getattr(base, key) for key in base.__dataclass_fields__ if key != "sha256"}
    low, high = calibration.score_range
    measured = asdict(calibration.expected)
    labels = f"{calibration.labels} human scores ({data})"
    training = {
        "data": f"{calibration.labels} images with human scores ({data})"
        + (f", {calibration.judged} images judged by a teacher ({evidence})" if calibration.judged else ""),
        "label_budget": labels,
        "calibration": {
            "rung": calibration.choice.rung,
            **({"ridge": calibration.choice.ridge} if calibration.choice.ridge is not None else {}),
            "labels": calibration.labels,
            **({"judged_images": calibration.judged} if calibration.judged else {}),
            **({"averaged_runs": calibration.runs} if calibration.runs > 1 else {}),
            "expected": {key: measured[key] for key in ("n", "srcc", "srcc_interval", "plcc", "plcc_interval", "rmse")},
            "expected_by": calibration.expected_by,
        },
        # What the student that it began at has seen, this one has seen too.
        "initial_training": {"student": f"{base.name} {base.short_hash}", **base.training},
    }
    fields.update(
        name=name,
        description=f"{description or f'{base.name} on a human scale'}; calibrated on {labels}",
        limitations=[text for text in base.limitations if not text.startswith(TEACHERS_SCALE)],
        architecture={**base.architecture, "residual": calibration.student.residual is not None},
        score={"range": [low, high], "unit": unit or f"one unit of the human scale of the labels ({data})"},
        training=training,
        # Measured on the student before calibration, hence not this one's.
        accuracy=[],
        leafiqa_version=leafiqa.__version__,
    )
    return save_student(calibration.student, folder, fields)
