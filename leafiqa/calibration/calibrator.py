"""Calibrate a metric on a few human scores and write it as a student of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

import leafiqa
from leafiqa.arguments import two_rising
from leafiqa.calibration.cross_validation import HEAD_LEAST, Choice, Labels, choose, expected, held_out_agreement
from leafiqa.calibration.doubts import with_doubts
from leafiqa.calibration.features import extract
from leafiqa.calibration.fine_tuning import FULL_LEAST, features_of, prepare_images
from leafiqa.calibration.fine_tuning_rung import Material, try_full
from leafiqa.calibration.fit import Array
from leafiqa.calibration.lent_head import LENT_HEAD, try_lent
from leafiqa.calibration.merging import with_fit
from leafiqa.calibration.teacher_labels import Judged, gather
from leafiqa.errors import CalibrationError, InputError
from leafiqa.evaluation.measures import Agreement, agreement, no_interval, with_interval
from leafiqa.files import StrPath, as_path, sha256_if_readable
from leafiqa.labels.copies import join_copies
from leafiqa.labels.mos_table import MosTable
from leafiqa.metric import Metric
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import pack_student, unpack_student, write_student
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
        student: the student with the calibration merged into its weights.
        base: the card of the metric that was calibrated.
        score_range: ends of the human scale.
        choice: the rung.
        labels: number of labels used.
        before: agreement of the metric as it was with the same labels, each taken once.
        expected: held-out agreement of the calibrated one with the labels, by cross-validation. Where labels were
            chosen by `leafiqa select`, both are weighted to the images that they were chosen from.
        expected_by: how that was found.
        problems: labels left out, and why.
        labelled: first twelve digits of the sha256 of each labelled image.
        data: what the labels are called on the card.
        evidence: what the evidence is called on the card, empty without.
        judged: number of images without a label that were learned from by a teacher's evidence.
        runs: trainings whose weights were averaged; 1 where nothing was fine-tuned.
    """

    student: Student
    base: Card
    score_range: tuple[float, float]
    choice: Choice
    labels: int
    before: Agreement
    expected: Agreement
    expected_by: str
    problems: list[str]
    labelled: list[str] = field(default_factory=list)
    data: str = "labels"
    evidence: str = ""
    judged: int = 0
    runs: int = 1

    @property
    def metric(self) -> Metric:
        """The calibrated metric, exactly as `save` stores it."""
        arch = self.base.name.partition(".")[0]
        content, card = pack_student(self.student, card_fields(self, f"{arch}.calibrated"))
        device = self.student.feature_mean.device
        return Metric(unpack_student(content, card, card.name), card).to(device)

    def save(
        self,
        place: StrPath,
        *,
        unit: str | None = None,
        description: str | None = None,
        difference: bool = False,
        overwrite: bool = False,
    ) -> Path:
        """Write the student and its card.

        Args:
            place: `FOLDER/arch.tag`: `FOLDER/arch.tag.safetensors` and its `.json` are written.
            unit: what one unit of the scale means, for the card.
            description: what the student is, for the card; None means the base's name, on a human scale.
            difference: store only what differs from the bundled student that it began at: kilobytes, or half of the
                size where all layers were tuned. It then needs that very student, which comes with this leafiqa.
            overwrite: whether a student of that name may be replaced.

        Returns:
            The `.safetensors` file, for `create_metric(weights=...)`.

        Raises:
            InputError: the place is a folder, or its name does not read `arch.tag`.
            OutputError: there is a student of that name, and `overwrite` is False.
            WeightsError: the difference is wanted from a student that is not bundled.
        """
        folder, name = student_place(place)
        fields = card_fields(self, name, unit=unit, description=description)
        content, card = pack_student(self.student, fields, base=self.base if difference else None)
        return write_student(content, card, folder, overwrite=overwrite)

    def __str__(self) -> str:
        low, high = self.score_range
        ridge = f" (ridge {self.choice.ridge:g})" if self.choice.ridge is not None else ""
        lent = f" and {self.judged} lent scores" if self.judged else ""
        lines = [
            f"rung       {self.choice.rung}{ridge}, {self.labels} labels{lent}, scale {low:g} to {high:g}",
            f"before     {_brief(self.before)}, as {self.base.name} orders these same images",
            f"expect     {_brief(self.expected)}, RMSE {self.expected.rmse:.3g} on other images like these "
            f"({'weighted to the images that they were selected from, ' if self.weighted else ''}held out in "
            "cross-validation)",
        ]
        if self.choice.rung == "scale":
            lines.append("           the rung scale changes no order, so its SRCC is the one of before")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the rung, the scale and the agreement before and to be expected, ready for JSON."""
        return {
            "rung": self.choice.rung,
            "ridge": self.choice.ridge,
            "labels": self.labels,
            "scale": list(self.score_range),
            "before": asdict(self.before),
            "expected": asdict(self.expected),
            "expected_by": self.expected_by,
            "judged_images": self.judged,
            "problems": self.problems,
        }

    @property
    def weighted(self) -> bool:
        """Whether the labels stand for different numbers of images."""
        return "weighted" in self.expected_by


def _brief(of: Agreement) -> str:
    return f"SRCC {with_interval(of.srcc, of.srcc_interval)}, PLCC {with_interval(of.plcc, of.plcc_interval)}"


def student_place(place: StrPath) -> tuple[Path, str]:
    """Return folder and name of a student to be written.

    Raises:
        InputError: the place is a folder, or its name does not read `arch.tag`.
    """
    path = as_path(place, "the place of the student")
    if path.suffix in {".safetensors", ".json"}:
        path = path.with_suffix("")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the student in it, such as {path / 'leaf_lite0.mine'}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_.-]+", path.name):
        raise InputError(
            "a student's name must read arch.tag, of letters, digits, _ and -, such as leaf_lite0.mine, "
            f"got {path.name!r}"
        )
    return path.parent, path.name


def pick_range(mos: Array, given: tuple[float, float] | None, names: Sequence[str] = ()) -> tuple[float, float]:
    """Return the ends of the human scale: those given, else the labels' span widened by a tenth at each end.

    Args:
        mos: `(n,)` the labels.
        given: the ends that the caller names.
        names: the labelled images' names, for the message.

    Raises:
        CalibrationError: the ends do not rise, are not finite, or do not hold the labels; the message names one.
    """
    low, high = float(mos.min()), float(mos.max())
    if given is None:
        margin = _MARGIN * (high - low)
        return low - margin, high + margin
    try:
        given = two_rising(given, "the scale")
    except InputError as error:
        raise CalibrationError(str(error)) from error
    outside = np.flatnonzero((mos < given[0]) | (mos > given[1]))
    if len(outside):
        first = outside[0]
        which = f"{names[first]} has {mos[first]:g}" if len(names) else f"one is {mos[first]:g}"
        raise CalibrationError(
            f"the scale {given[0]:g} to {given[1]:g} does not hold the labels, which go from {low:g} to {high:g}: "
            f"{len(outside)} lie(s) outside, {which}"
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


def label_weights(errors: Sequence[float | None]) -> Array:
    """Return weights with mean one out of the labels' standard errors.

    The variance that the student cannot explain is about that of a typical label, so it is added to each: a label
    with a very small stated error gets at most twice the typical weight. A label without one counts as typical; all
    count the same if none has one.
    """
    known = [error for error in errors if error is not None]
    if not known:
        return np.ones(len(errors))
    typical = float(np.median(known))
    variance = np.array([typical if error is None else error for error in errors]) ** 2
    weights: Array = 1 / (variance + np.median(variance))
    return np.asarray(weights / weights.mean())


def check_rungs(rungs: Sequence[str]) -> tuple[str, ...]:
    """Return the rungs that are allowed.

    Raises:
        InputError: one is unknown, or there is none.
    """
    allowed = (rungs,) if isinstance(rungs, str) else tuple(rungs) if isinstance(rungs, Iterable) else ()
    if not allowed or set(allowed) - set(RUNGS):
        raise InputError(f"rungs must be some of {', '.join(RUNGS)}, got {rungs!r}")
    return allowed


def calibrate_metric(
    metric: Metric,
    table: MosTable,
    *,
    scale: tuple[float, float] | None = None,
    rungs: Sequence[str] = RUNGS,
    full: bool | None = None,
    evidence: Mapping[Path, float] | None = None,
    evidence_name: str = "",
    runs: int = 1,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
    tuning: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Calibrate a metric on human scores.

    Args:
        metric: the metric to start from; left as it is.
        table: images with human scores; standard errors and groups are used where given.
        scale: ends of the human scale, such as (1, 5); None means the table's scale where it is known, else the
            labels' span widened by a tenth.
        rungs: rungs to choose among, of `RUNGS`.
        full: also try to fine-tune the whole student, from `FULL_LEAST` images on; takes that many times longer. None
            means only with evidence.
        evidence: a teacher's scores in [0, 1] by resolved path; the head and fine-tuning then also learn from the
            images that it judged and nobody rated, see `leafiqa.calibration.teacher_labels`, but for those of the
            table's other splits, which are held out.
        evidence_name: what the evidence is called on the card.
        runs: how often to fine-tune, in different order; the mean of the weights is the student.
        seed: seeds the cross-validation and the fine-tuning.
        advance: called once for each image that is done.
        tuning: called with the number of images that fine-tuning has taken, and with how many it will take.

    Raises:
        CalibrationError: the labels cannot support it, or the evidence does not go with them; the message says why.
        InputError: a rung that there is not.
        TrainingError: fine-tuning failed.
    """
    rungs = check_rungs(rungs)
    rows = table.rows
    if scale is not None and rows:  # before all images are looked at
        pick_range(np.array([row.mos for row in rows]), scale, [row.image for row in rows])
    extracted = extract(metric, [row.path for row in rows], advance)
    problems = table.problems + [f"{rows[i].image}: {why}: left out" for i, why in extracted.errors]
    kept = [rows[i] for i in extracted.index]
    paths = [row.path for row in kept]
    mos = np.array([row.mos for row in kept])
    check_labels(mos, extracted.logits, problems)
    if rungs == ("head",) and len(kept) < HEAD_LEAST:
        raise CalibrationError(f"the rung head needs at least {HEAD_LEAST} labelled images, got {len(kept)}")
    low, high = pick_range(mos, scale or table.scale, [row.image for row in kept])
    targets = (mos - low) / (high - low)
    weights = label_weights([row.standard_error for row in kept])
    groups = np.array([row.group or f"image {row.image}" for row in kept])
    groups, copies = join_copies(groups, paths)
    problems += copies
    if (count := len(np.unique(groups))) < _LEAST_GROUPS:
        raise CalibrationError(
            f"the labels are of {count} group(s), and images of one group stay on one side of each split: label images "
            f"of at least {_LEAST_GROUPS} groups, or leave the column group out"
        )
    if (why := no_interval(count, "groups of images")) is not None:
        problems.append(why)
    labels = Labels(extracted.logits, extracted.features, targets, weights, groups)
    predicted = expected(labels, rungs, seed)
    choice = choose(labels, rungs, seed)
    fit, by = choice.fit(labels), "nested group-aware cross-validation on the labels"
    full = evidence is not None if full is None else full
    judged: Judged | None = None
    lent = None
    if evidence is not None:
        held_out = {path.resolve() for path in table.elsewhere}
        evidence = {path: score for path, score in evidence.items() if path not in held_out}
        judged, unreadable = gather(metric, evidence, paths, advance, held_out=held_out, prepared=full)
        problems += unreadable
        lent, predicted = try_lent(labels, judged, rungs, seed, predicted)
        if lent is not None:
            fit, choice = lent, LENT_HEAD
            by = "group-aware cross-validation on the labels, which also decided whether to learn from lent scores"
    student, seen = with_fit(metric.student, fit), labels.features
    if full:
        count = len(labels) + (0 if judged is None else len(judged.scores))
        if count < FULL_LEAST:
            problems.append(
                f"fine-tuning needs at least {FULL_LEAST} images with labels or evidence, got {count}: left out"
            )
        else:
            images = prepare_images(metric, paths)
            material = Material(metric.student, labels, images, judged, rungs, seed, runs, lent=lent is not None)
            tuned, tuned_predicted = try_full(material, tuning)
            by = "group-aware cross-validation on the labels, which also decided whether to fine-tune"
            if tuned is not None:
                student, predicted, choice = tuned, tuned_predicted, Choice("full", choice.ridge)
                seen = features_of(student, images)
            else:
                predicted = tuned_predicted
    with_doubts(student, metric.student, labels.logits, seen, targets, weights, predicted.predictions)
    stands_for = np.array([row.stands_for for row in kept])
    weighted = bool(np.ptp(stands_for) > 0)
    own_low, own_high = metric.score_range

    return Calibration(
        student=student,
        base=metric.card,
        score_range=(low, high),
        choice=choice,
        labels=len(kept),
        before=agreement(
            own_low + (own_high - own_low) * expit(extracted.logits),
            mos,
            seed=seed,
            groups=groups.tolist(),
            weights=stands_for if weighted else None,
        ),
        expected=held_out_agreement(
            predicted, labels, (low, high), seed=seed, weights=stands_for if weighted else None
        ),
        expected_by=by + (", weighted to the images that they were selected from" if weighted else ""),
        problems=problems,
        labelled=[(sha256_if_readable(path) or "")[:12] for path in paths],
        data=table.name,
        evidence=evidence_name,
        judged=len(judged.scores) if judged is not None and (lent is not None or choice.rung == "full") else 0,
        runs=runs if choice.rung == "full" else 1,
    )


def card_fields(
    calibration: Calibration, name: str, *, unit: str | None = None, description: str | None = None
) -> dict[str, Any]:
    """Return the card of a calibrated student, but for the hash of its weights.

    Args:
        calibration: what `calibrate_metric` returned.
        name: name of the new student, `arch.tag`.
        unit: what one unit of the scale means; None says that it is the labels'.
        description: what the student is; None means the base's name, on a human scale.
    """
    base, data = calibration.base, calibration.data
    evidence = calibration.evidence or "evidence"
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
            # So that an evaluation on these very images is noticed.
            "labelled_sha256": calibration.labelled,
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
    return fields
