"""The verbs: what the command line can, in a line of Python. Each is thin; the rooms below do the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.errors import InputError

if TYPE_CHECKING:
    import torch

    from leafiqa.calibration.calibrator import Calibration
    from leafiqa.calibration.selection import Selection
    from leafiqa.distillation.config import Config
    from leafiqa.distillation.run import Distillation
    from leafiqa.evaluation.comparison import Comparison
    from leafiqa.evidence.summary import Summary
    from leafiqa.labels.mos_table import MosTable
    from leafiqa.metric import Metric
    from leafiqa.model.card import Card
    from leafiqa.scoring.rows import Row
    from leafiqa.scoring.scores import Scores

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Progress = Callable[[int, int], None]


def create_metric(
    name: str = "leaf",
    as_loss: bool = False,
    device: str | torch.device | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    inert: bool = True,
) -> Metric:
    """Create a no-reference image quality metric.

    Args:
        name: a name from `list_models()`. A name is never a place: a file or folder of that name is not looked at.
        as_loss: return a scalar to minimise, differentiable with respect to the pixels, instead of scores.
        device: where to compute; None means CUDA where there is one, else the CPU. The metric moves with `.to()`.
        weights: a student in some place, instead of a name: a `.safetensors` file with its `.json` card beside it, a
            folder holding one such pair, or `hf-hub:owner/repo[@revision]`.
        dtype: precision of the network, `torch.float32` (None), `torch.float16` or `torch.bfloat16`. Preprocessing
            and scores are float32 always.
        inert: keep the network out of the modules, parameters and `state_dict` of a module that the metric is put
            into, so that nothing that is done to that module changes scores; it follows to another device. False makes
            it an ordinary child module.

    Returns:
        A `Metric`: call it with a tensor, file, PIL image, array, or any iterable of these. It may be called from
        several threads at once.

    Raises:
        UnknownModelError: no model of that name; the message suggests near ones.
        WeightsError: the weights cannot be found, fetched or trusted.
        InputError: an unsupported dtype, or a device that is not there.

    Example:
        >>> metric = leafiqa.create_metric("leaf")
        >>> metric(["a.jpg", "b.png"])
        tensor([0.7312, 0.4085])
    """
    from leafiqa.metric import load_metric

    return load_metric(name, as_loss=as_loss, device=device, weights=weights, dtype=dtype, inert=inert)


def _metric(metric: Any, weights: str | os.PathLike[str] | None, device: Any = None) -> Metric:
    """Return the metric that a verb's arguments mean: a name, a metric, a calibration, or a place."""
    from leafiqa.metric import Metric, load_metric

    if weights is not None:
        return load_metric(weights=weights, device=device)
    if isinstance(metric, str):
        return load_metric(metric, device=device)
    metric = metric if isinstance(metric, Metric) else getattr(metric, "metric", metric)
    if not isinstance(metric, Metric):
        raise InputError(f"metric must be a name, a metric or a calibration, got {metric!r}; a place goes into weights")
    return metric


def score(
    images: Paths,
    metric: str | Metric | Calibration | Sequence[str | Metric | Calibration] = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    device: str | torch.device | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """Score image files, folders and glob patterns. A bad file is a row with its error; it never stops the others.

    Args:
        images: a file, folder or pattern, or several; see `leafiqa.images.find.find_images`.
        metric: a name, a metric or calibration, or several: each image is decoded once.
        weights: a student in some place, instead of `metric`; see `create_metric`.
        recursive: look into the folders of a folder, too.
        device: where metrics given by name compute.
        batch_size: images scored together.
        workers: threads that decode; None means one a core, at most four.
        progress: called with how many images are done, and how many there are.

    Returns:
        `Scores`: rows with `.image`, `.score` (float, or None), `.error`; prints as a table, converts with
        `.to_dict()`, `.to_csv(path)` and `.to_pandas()`.

    Raises:
        InputError: no image was found.
        UnknownModelError, WeightsError: see `create_metric`.

    Example:
        >>> table = leafiqa.score("photos/", recursive=True)
        >>> table.best(5)
    """
    from leafiqa.images.find import need_images
    from leafiqa.scoring.pipeline import score_files
    from leafiqa.scoring.scores import Scores

    found = need_images(images, recursive)
    metrics = _metrics(metric, weights, device)
    rows: list[Row] = []
    for row in score_files(metrics, found, batch_size, workers):
        rows.append(row)
        if len(rows) % len(metrics) == 0:
            progress(len(rows) // len(metrics), len(found))
    return Scores(rows, found.remarks())


def iter_scores(
    images: Iterable[str | os.PathLike[str]],
    metric: str | Metric | Calibration | Sequence[str | Metric | Calibration] = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 16,
    workers: int | None = None,
) -> Iterator[Row]:
    """Score a stream of image files, perhaps without end, and yield rows as they come.

    Args:
        images: paths of files, taken one by one.
        metric: see `score`.
        weights: see `score`.
        device: see `score`.
        batch_size: images scored together; 1 yields each row at once.
        workers: threads that decode ahead.

    Yields:
        A row an image and metric, in order.
    """
    from leafiqa.scoring.pipeline import score_files

    yield from score_files(_metrics(metric, weights, device), images, batch_size, workers)


def _metrics(metric: Any, weights: str | os.PathLike[str] | None, device: Any) -> list[Metric]:
    given = list(metric) if isinstance(metric, (list, tuple)) else [metric]
    return [_metric(one, weights, device) for one in given] if weights is None else [_metric("", weights, device)]


def evaluate(
    labels: str | os.PathLike[str] | MosTable,
    metrics: Any = "leaf",
    *,
    columns: Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    mos_column: str | None = None,
    split: str | None = None,
    by: str | None = None,
    device: str | torch.device | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Compare metrics with human scores: SRCC, PLCC, KRCC, RMSE with 95 % intervals, and paired differences.

    Args:
        labels: a CSV table of human scores, the folder of a known data set, or a `MosTable`; see
            `leafiqa.labels.datasets.read_labels`.
        metrics: a metric or several: names, metrics, calibrations, metrics of pyiqa or torchmetrics, any callable from
            a path to a number; see `leafiqa.evaluation.scorers.as_scorer`.
        columns: columns of the table with the scores of other metrics.
        images: folder that the table's names are relative to.
        image_column: column with the image's name, if it is not called image.
        mos_column: column with the human score, if it is not called mos.
        split: use only this split.
        by: also by this column of the table, such as "generator" or "group".
        device: where metrics given by name compute.
        draws: bootstrap samples.
        seed: seeds them.
        progress: called with how many images and metrics are done, and how many there are.

    Returns:
        `Comparison`: prints as a report; `.agreement["leaf_lite0.general"].srcc`, `.to_dict()`, `.to_csv(path)`,
        `.to_pandas()`.

    Raises:
        InputError: the table cannot be used, a metric stands twice, or too few images could be scored.
    """
    from leafiqa.evaluation.evaluator import evaluate_table

    given = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    table = _labels(
        labels, images, image_column, mos_column, split, None if by in (None, "group") else by, tuple(columns)
    )
    total, done = len(table.rows) * (len(given) + len(columns)), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    kind = None if by is None else "group" if by == "group" else "part"
    return evaluate_table(
        table, given, columns=columns, by=kind, draws=draws, seed=seed, device=device, advance=advance
    )


def _labels(
    labels: Any,
    images: Any,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    part_column: str | None = None,
    score_columns: tuple[str, ...] = (),
) -> MosTable:
    from leafiqa.labels.datasets import read_labels
    from leafiqa.labels.mos_table import MosTable

    if isinstance(labels, MosTable):
        return labels
    return read_labels(
        labels,
        images=images,
        image_column=image_column,
        mos_column=mos_column,
        split=split,
        part_column=part_column,
        score_columns=score_columns,
    )


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
    full: bool = False,
    evidence: Paths = (),
    evidence_images: str | os.PathLike[str] | None = None,
    runs: int = 1,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    tuning: Progress = lambda done, total: None,
) -> Calibration:
    """Put a metric on a human scale with as few as ten rated images.

    Cross-validation chooses between refitting the scale alone, refitting the head and, with `full`, fine-tuning the
    whole student.

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
        full: also try to fine-tune the whole student, from 100 images on.
        evidence: files of a teacher's evidence: fine-tuning then also learns from images that it judged and nobody
            rated.
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
    table = _labels(labels, images, image_column, mos_column, split)
    files = _files(evidence)
    judged: dict[Path, float] | None = None
    if files:
        judged, left_out = read_scores(files, evidence_images or images or table.folder)
        table.problems = [*table.problems, *left_out]
    places = {row.path.resolve() for row in table.rows}
    total, done = len(table.rows) + len(set(judged or {}) - places), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return calibrate_metric(
        _metric(metric, weights, device),
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


def _files(files: Any) -> list[Path]:
    return [Path(files)] if isinstance(files, (str, os.PathLike)) else [Path(file) for file in files]


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

    found = need_images(images, recursive)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, len(found))

    chosen = select_images(
        _metric(metric, weights, device),
        [Path(path) for path in found],
        budget,
        evidence=_files(evidence),
        folder=None if evidence_images is None else Path(evidence_images),
        seed=seed,
        advance=advance,
    )
    chosen.problems = [*found.remarks(), *chosen.problems]
    return chosen


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

    return summarise_files(_files(files), None if images is None else Path(images))


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


def model_card(name: str = "leaf", *, weights: str | os.PathLike[str] | None = None) -> Card:
    """Return a model's card: architecture, licences, training, accuracy, hash.

    Args:
        name: a name from `list_models()`.
        weights: a student in some place, instead of a name; see `create_metric`.

    Raises:
        UnknownModelError, WeightsError: see `create_metric`.
    """
    from leafiqa.model.resolve import resolve

    return resolve(name, weights)[1]


def push(student: str | os.PathLike[str], repo: str, *, private: bool = False) -> str:
    """Upload a student of yours to the Hugging Face Hub.

    Args:
        student: the `.safetensors` file, the card or their folder.
        repo: `owner/repo`; made if it does not exist.
        private: make a new repository private.

    Returns:
        `hf-hub:owner/repo@commit`, which `create_metric(weights=...)` fetches.

    Raises:
        WeightsError: the student is damaged, the repository holds another one, or the hub refuses.
    """
    from leafiqa.model.upload import upload

    return upload(Path(student), repo, private=private)
