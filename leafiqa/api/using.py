"""Verbs that use a metric: create, score, evaluate, tell what is known of it, give it away."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from leafiqa.api.arguments import Paths, Progress, as_columns, as_labels
from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.scoring.backends import as_metrics, load
from leafiqa.scoring.columns import check_columns, takes_torch

if TYPE_CHECKING:
    import torch

    from leafiqa.calibration.calibrator import Calibration
    from leafiqa.evaluation.comparison import Comparison
    from leafiqa.labels.mos_table import MosTable
    from leafiqa.metric import Metric
    from leafiqa.model.card import Card
    from leafiqa.onnx.onnx_metric import OnnxMetric
    from leafiqa.scoring.rows import Row
    from leafiqa.scoring.scores import Scores


@overload
def create_metric(
    name: str = "leaf",
    as_loss: bool = False,
    device: str | torch.device | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    inert: bool = True,
    backend: Literal["torch"] = "torch",
    draft: bool = False,
) -> Metric: ...


@overload
def create_metric(
    name: str = "leaf",
    as_loss: bool = False,
    device: str | torch.device | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    inert: bool = True,
    backend: Literal["onnx"],
    draft: bool = False,
) -> OnnxMetric: ...


def create_metric(
    name: str = "leaf",
    as_loss: bool = False,
    device: str | torch.device | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    inert: bool = True,
    backend: str = "torch",
    draft: bool = False,
) -> Metric | OnnxMetric:
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
        backend: "torch"; or "onnx" for ONNX Runtime on the CPU (`pip install 'leafiqa[onnx]'`), which is faster there,
            never imports torch, and returns arrays instead of tensors.
        draft: decode JPEG files at a half, a quarter or an eighth of their size as long as that is twice what the
            student looks at: several times as fast for camera pictures, and scores move a little (docs/speed.md).

    Returns:
        A `Metric`: call it with a tensor, file, PIL image, array, or any iterable of these. It may be called from
        several threads at once. With `backend="onnx"` an `OnnxMetric`, which is called in the same way.

    Raises:
        UnknownModelError: no model of that name; the message suggests near ones.
        WeightsError: the weights cannot be found, fetched or trusted.
        InputError: an unsupported dtype, a device or backend that is not there, or what ONNX Runtime has not: losses,
            another dtype or device.

    Example:
        >>> metric = leafiqa.create_metric("leaf")
        >>> metric(["a.jpg", "b.png"])
        tensor([0.7312, 0.4085])
    """
    if backend == "torch":
        from leafiqa.metric import load_metric

        return load_metric(name, as_loss=as_loss, device=device, weights=weights, dtype=dtype, inert=inert, draft=draft)
    if as_loss or dtype is not None or not inert:
        raise InputError("as_loss, dtype and inert=False need gradients or precisions of torch's: use backend='torch'")
    return load(name, weights, device, backend, draft)


def score(
    images: Paths,
    metric: str | Metric | Calibration | Sequence[str | Metric | Calibration] = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    device: str | torch.device | None = None,
    backend: str | None = None,
    draft: bool = False,
    columns: Sequence[str] = ("score",),
    batch_size: int = 64,
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
        backend: what computes them: "torch", "onnx", or None for the faster one that is installed, which on a CPU is
            ONNX Runtime (`pip install 'leafiqa[onnx]'`).
        draft: decode JPEG files at reduced scale; see `create_metric`.
        columns: of "score", "se" (its standard error), "defects" (severity of each, 0 to 3) and "details" (of large
            pictures at full size, see `Metric.explain`), what rows hold in `.beside`; more than the score takes torch,
            and a student that tells it.
        batch_size: images scored together on an accelerator.
        workers: threads, at most sixteen unless told: on a CPU each scores an image at a time, from its bytes to its
            score; for an accelerator they decode. None means one a core.
        progress: called with how many images are done, and how many there are.

    Returns:
        `Scores`: rows with `.image`, `.score` (float, or None), `.error`; prints as a table, converts with
        `.to_dict()`, `.to_csv(path)` and `.to_pandas()`.

    Raises:
        InputError: no image was found, or an unknown column, or details together with `draft`.
        UnknownModelError, WeightsError: see `create_metric`; or a column that the student does not tell.

    Example:
        >>> table = leafiqa.score("photos/", recursive=True)
        >>> table.best(5)
    """
    from leafiqa.images.find import need_images
    from leafiqa.scoring.pipeline import score_files
    from leafiqa.scoring.scores import Scores

    columns = check_columns(columns)
    found = need_images(images, recursive)
    metrics = as_metrics(metric, weights, device, backend, draft, without_torch=not takes_torch(columns))
    rows: list[Row] = []
    for row in score_files(metrics, found, batch_size, workers, columns):
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
    backend: str | None = None,
    draft: bool = False,
    columns: Sequence[str] = ("score",),
    batch_size: int = 64,
    workers: int | None = None,
) -> Iterator[Row]:
    """Score a stream of image files, perhaps without end, and yield rows as they come.

    Args:
        images: paths of files, taken one by one.
        metric: see `score`.
        weights: see `score`.
        device: see `score`.
        backend: see `score`.
        draft: see `score`.
        columns: see `score`.
        batch_size: images scored together on an accelerator; 1 yields each row once it is made. On a CPU so is each.
        workers: see `score`.

    Yields:
        A row an image and metric, in order.
    """
    from leafiqa.scoring.pipeline import score_files

    if isinstance(images, (str, os.PathLike)) or not isinstance(images, Iterable):
        raise InputError(f"images must be an iterable of paths of files, got {images!r}; folders are for score()")
    columns = check_columns(columns)
    metrics = as_metrics(metric, weights, device, backend, draft, without_torch=not takes_torch(columns))
    yield from score_files(metrics, images, batch_size, workers, columns)


def export(
    output: str | os.PathLike[str],
    name: str = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    float_pixels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a student as one self-contained ONNX file, preprocessing inside.

    Its input `image` is `(N, H, W, 3)` RGB of any size, its output `score` `(N,)`; scores equal those of
    `create_metric` to 1e-4. Metadata carries name, sha256, range and licences. See docs/onnx.md.

    Args:
        output: the `.onnx` file.
        name: a name from `list_models()`.
        weights: a student in some place, instead of a name; see `create_metric`.
        float_pixels: take float32 in [0, 1] instead of uint8.
        overwrite: replace a file that this function wrote.

    Returns:
        The file.

    Raises:
        InputError: the output does not end in .onnx, or the package onnx is not installed.
        OutputError: the output exists, or cannot be written.
        UnknownModelError, WeightsError: see `create_metric`; or torch cannot export the student.
    """
    from leafiqa.onnx.exporting import export_student

    return export_student(output, name, weights=weights, float_pixels=float_pixels, overwrite=overwrite)


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

    whole_number(draws, "draws", 100)
    whole_number(seed, "seed", 0)
    columns = as_columns(columns)
    if by is not None and not isinstance(by, str):
        raise InputError(f"by must be a column's name, got {by!r}")
    given = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    table = as_labels(
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


def model_card(name: str = "leaf", *, weights: str | os.PathLike[str] | None = None) -> Card:
    """Return a model's card: architecture, licences, training, accuracy, hash.

    Args:
        name: a name from `list_models()`.
        weights: a student in some place, instead of a name; see `create_metric`.

    Raises:
        UnknownModelError, WeightsError: see `create_metric`.
    """
    from leafiqa.model.places import resolve

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
    from leafiqa.model.uploading import upload

    return upload(Path(student), repo, private=private)
