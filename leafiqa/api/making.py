"""Verbs that make a metric of one's own: choose what to rate, calibrate, collect evidence, distil."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leafiqa.api.arguments import Paths, Progress, as_files, as_labels
from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.scoring.backends import as_metric

if TYPE_CHECKING:
    import torch

    from leafiqa.calibration.calibrator import Calibration
    from leafiqa.calibration.selection import Selection
    from leafiqa.distillation.config import Config
    from leafiqa.distillation.run import Distillation
    from leafiqa.evidence.summary import Summary
    from leafiqa.labels.mos_table import MosTable
    from leafiqa.metric import Metric


def select(
    images: Paths,
    budget: int,
    metric: str | Metric | Calibration = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    evidence: Paths = (),
    evidence_images: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Selection:
    """Choose the images that are worth a human rating.

    Args:
        images: a file, folder or pattern, or several.
        budget: how many to choose.
        metric: the metric that is to be calibrated.
        weights: a student in some place, instead of `metric`; see `create_metric`.
        recursive: look into the folders of a folder, too.
        evidence: files of a teacher's evidence, used from a budget of 100 on.
        evidence_images: folder that its names are relative to; None means each file's own folder.
        device: where a metric given by name or place computes.
        seed: seeds the clustering.
        progress: called with how many images are looked at, and how many there are.

    Returns:
        `Selection`: `.images`, `.to_csv("ratings.csv")`, whose empty column `mos` is to be filled in; `calibrate`
        reads it. Its column `stands_for` lets `calibrate` tell what to expect on all candidates.

    Raises:
        InputError: no image was found, or the budget does not fit their number.
    """
    from leafiqa.calibration.selection import select_images
    from leafiqa.images.find import need_images

    whole_number(budget, "budget", 1)
    whole_number(seed, "seed", 0)
    found = need_images(images, recursive)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, len(found))

    chosen = select_images(
        as_metric(metric, weights, device),
        [Path(path) for path in found],
        budget,
        evidence=as_files(evidence),
        folder=None if evidence_images is None else Path(evidence_images),
        seed=seed,
        advance=advance,
    )
    chosen.problems = [*found.remarks(), *chosen.problems]
    chosen.failed += len(found.unreadable)
    return chosen


def calibrate(
    metric: str | Metric | Calibration,
    labels: str | os.PathLike[str] | MosTable,
    *,
    weights: str | os.PathLike[str] | None = None,
    scale: tuple[float, float] | None = None,
    images: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    mos_column: str | None = None,
    split: str | None = None,
    rungs: Sequence[str] = ("scale", "head"),
    full: bool | None = None,
    evidence: Paths = (),
    evidence_images: str | os.PathLike[str] | None = None,
    runs: int = 1,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    tuning: Progress = lambda done, total: None,
) -> Calibration:
    """Put a metric on a human scale with as few as ten rated images.

    Cross-validation chooses between refitting the scale alone, refitting the head and, with `full` or `evidence`,
    fine-tuning the whole student.

    Args:
        metric: a name, a metric or an earlier calibration; left as it is.
        labels: a CSV table of human scores, the folder of a known data set, or a `MosTable`; see
            `leafiqa.labels.datasets.read_labels`.
        weights: a student in some place, instead of `metric`; see `create_metric`.
        scale: ends of the human scale, such as (1, 5); None means the data set's where it is known, else the labels'
            span widened by a tenth.
        images: folder that the table's names are relative to.
        image_column: column with the image's name, if it is not called image.
        mos_column: column with the human score, if it is not called mos.
        split: use only this split; nothing is learned from images of the others, rated or judged.
        rungs: what may be refitted, of "scale" and "head".
        full: also try to fine-tune the whole student, from 100 images on; None means only with evidence.
        evidence: files of a teacher's evidence: the head and fine-tuning then also learn from images that it judged and
            nobody rated.
        evidence_images: folder that the evidence's names are relative to; None means `images`, else the table's folder.
        runs: fine-tune so many times, in different order, and average the weights.
        device: where to compute, of a metric given by name or place.
        seed: seeds the cross-validation and the fine-tuning.
        progress: called with how many images are looked at, and how many there are.
        tuning: called with how many images fine-tuning has taken, and how many it will take.

    Returns:
        `Calibration`: `.metric`, `.before` and `.expected` (agreement with held-out labels), `.problems`,
        `.save("mine/leaf_lite0.mine")`; prints as a report.

    Raises:
        CalibrationError: the labels cannot support it.
        InputError: the table cannot be used, or an argument is not of the documented form.
        EvidenceError: the evidence cannot be used.
        TrainingError: fine-tuning failed.

    Example:
        >>> mine = leafiqa.calibrate("leaf", "ratings.csv", scale=(1, 5))
        >>> mine.save("mine/leaf_lite0.mine")
    """
    from leafiqa.calibration.calibrator import calibrate_metric, check_rungs
    from leafiqa.evidence.files import cite
    from leafiqa.evidence.scores import read_scores

    rungs = check_rungs(rungs)
    whole_number(runs, "runs", 1)
    whole_number(seed, "seed", 0)
    table = as_labels(labels, images, image_column, mos_column, split)
    files = as_files(evidence)
    judged: dict[Path, float] | None = None
    if files:
        judged, left_out = read_scores(files, evidence_images or images or table.folder)
        table = replace(table, problems=[*table.problems, *left_out])
    places = {row.path.resolve() for row in table.rows}
    total, done = len(table.rows) + len(set(judged or {}) - places), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return calibrate_metric(
        as_metric(metric, weights, device),
        table,
        scale=scale,
        rungs=rungs,
        full=full,
        evidence=judged,
        evidence_name=cite(files) if files else "",
        runs=runs,
        seed=seed,
        advance=advance,
        tuning=tuning,
    )


def summarise_evidence(files: Paths, images: str | os.PathLike[str] | None = None) -> Summary:
    """Summarise evidence: counts, coverage, agreement, position bias, reliability.

    Args:
        files: a JSON-lines file of evidence, or several.
        images: folder that names are relative to: also tell how much of it is judged, and what was moved or replaced.

    Returns:
        `Summary`: its attributes, `.remarks`, `.to_dict()`.

    Raises:
        EvidenceError: a file cannot be read, or nothing in it can be used.
    """
    from leafiqa.evidence.summary import summarise_files

    return summarise_files(as_files(files), None if images is None else Path(images))


def export_conversations(
    files: Paths,
    output: str | os.PathLike[str],
    *,
    prompts: str | os.PathLike[str] | None = None,
    least_reliability: float = 0.0,
    overwrite: bool = False,
) -> int:
    """Write evidence as an instruction-tuning set for vision-language models: scores, comparisons, defects in words.

    Args:
        files: a JSON-lines file of evidence, or several.
        output: a `.json` file, in the layout that LLaVA's and Qwen-VL's trainers read; images' names are as in the
            evidence.
        prompts: TOML file with prompts of your own, see docs/label.md.
        least_reliability: leave out judgments that are trusted less, from 0 to 1.
        overwrite: whether `output` may be replaced.

    Returns:
        How many conversations were written.

    Raises:
        EvidenceError: a file cannot be read, or nothing in it can be used.
        OutputError: `output` is there already.
        InputError: the prompts cannot be read.
    """
    import json

    from leafiqa.evidence.files import read_evidence
    from leafiqa.files import as_path, check_output, write_whole
    from leafiqa.teachers.conversations import as_conversations
    from leafiqa.teachers.prompts import read_prompts

    if not 0 <= least_reliability <= 1:
        raise InputError(f"least_reliability must be from 0 to 1, got {least_reliability!r}")
    given = as_files(files)
    check_output(output, inputs=given, overwrite=overwrite)
    asked = read_prompts(None if prompts is None else as_path(prompts, "prompts"))
    told = as_conversations(read_evidence(given), asked, least_reliability)
    write_whole(Path(output), json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return len(told)


def import_judgments(
    table: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    kind: str,
    teacher: str | None = None,
    scale: tuple[float, float] | None = None,
    lower_better: bool = False,
) -> list[str]:
    """Write judgments made elsewhere as evidence: another metric's scores, votes, rankings, people's ratings.

    Args:
        table: CSV or JSON lines; columns by kind, see `leafiqa.evidence.foreign_tables.read_judgments`.
        output: the evidence file; must not exist.
        kind: "scores", "votes", "rankings" or "ratings".
        teacher: who judged; None means the table's name.
        scale: ends of the scale of scores or ratings; None means the lowest and highest that occur.
        lower_better: scores or ratings are lower for better images.

    Returns:
        What was left out, one sentence each.

    Raises:
        InputError: the table cannot be used.
        OutputError: the output exists already, or there is no such folder.
    """
    from leafiqa.evidence.files import append_evidence
    from leafiqa.evidence.foreign_tables import read_judgments
    from leafiqa.files import check_output

    check_output(output, inputs=[table], overwrite=None)
    records, problems = read_judgments(table, kind, scale=scale, lower_better=lower_better, teacher=teacher)
    append_evidence(Path(output), records)
    return problems


def distill(
    config: str | os.PathLike[str] | Config,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda step, total: None,
) -> Distillation | None:
    """Distil a student from a teacher's evidence. Killed at any moment, the same call goes on where it stopped.

    Args:
        config: a TOML file, see docs/distill.md, or a `leafiqa.distillation.config.Config`.
        overwrite: whether another student of that name in the output folder may be replaced.
        log: takes lines for the reader.
        progress: called with the step reached and the number of steps.

    Returns:
        `Distillation`: `.metric`, `.path`, `.card`, `.before` and `.after`: agreement with the teacher on images that
        were not learned from. None in all processes but the first of several.

    Raises:
        EvidenceError: evidence, images or config cannot be used, or a checkpoint is of another run.
        TrainingError: the training cannot be done as asked, or failed.
        WeightsError: the student to begin at cannot be found or read.
        OutputError: there is another student of that name.
    """
    from leafiqa.distillation.config import Config, read_config
    from leafiqa.distillation.run import distil

    settings = config if isinstance(config, Config) else read_config(config)
    return distil(settings, log=log, progress=progress, overwrite=overwrite)
