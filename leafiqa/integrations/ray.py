"""Score millions of images on a cluster, with Ray Data.

>>> from leafiqa.integrations.ray import score
>>> score("s3://bucket/images", output="s3://bucket/scores")
Written(rows=..., failed=..., skipped=0, folder='s3://bucket/scores/run-0001')

Workers hold the student; each reads, decodes and scores its share of the images, decoding ahead in threads. Rows are
those of `leafiqa score`: image, score, error, note, metric, weights, sha256. A bad image is a row with its error. A
worker that dies is started again and its images are scored by another.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError, OutputError
from leafiqa.integrations.ray_images import Images, find_images_for_ray, shown
from leafiqa.integrations.ray_tables import Known, count_rows, finished_rows, hash_of, new_run, table_of
from leafiqa.model.differences import bases
from leafiqa.model.places import resolve
from leafiqa.scoring.backends import load
from leafiqa.scoring.contents import Content
from leafiqa.scoring.pipeline import score_files
from leafiqa.scoring.rows import COLUMNS, digits_of

try:
    import pyarrow as pa
    import ray
    import ray.data
except ImportError as error:
    raise InputError("leafiqa.integrations.ray needs Ray Data: pip install 'leafiqa[ray]'") from error

FORMATS = ("parquet", "csv")
_SKIPPED = "scored before"


@dataclass(frozen=True)
class Written:
    """What a run wrote.

    Attributes:
        rows: images that now have a row of this run.
        failed: of these, images without a score.
        skipped: images that an earlier run scored, unchanged since.
        folder: the folder of this run's parts.
        torn: parts of earlier runs that were cut off while they were written; their images are scored again.
    """

    rows: int
    failed: int
    skipped: int
    folder: str
    torn: tuple[str, ...] = ()


def score(
    images: Any,
    metric: str = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    column: str | None = None,
    name_column: str | None = None,
    filesystem: Any = None,
    output: str | os.PathLike[str] | None = None,
    format: str = "parquet",
    resume: bool = False,
    batch_size: int = 64,
    workers: int | tuple[int, int] | None = None,
    cpus: float = 1,
    gpus: float = 0,
    backend: str | None = None,
    draft: bool = False,
) -> Any:
    """Score images on the Ray cluster that this program is connected to; without one, Ray starts on this machine.

    Args:
        images: a folder, file, glob pattern or address that pyarrow reads (`s3://...`, `gs://...`, `hdfs://...`), or
            a list of these; a Parquet file or folder; or a Ray dataset with a column of paths or bytes.
        metric: a name from `leafiqa.list_models()`; leafiqa must be installed on each node.
        weights: a student in some place, instead of a name; the driver reads it and the workers get it from there.
        column: the column of a dataset or Parquet file with paths, bytes, or dicts with `bytes` and `path`; None
            means the first of image, bytes, content, path, file and url that there is.
        name_column: the column that rows of bytes are named by; None means path, name, key or id, else the sha256.
        filesystem: of pyarrow or fsspec, where addresses alone do not tell how to read.
        output: a folder that all nodes share, or an address, for the scores: each run writes its parts into a folder
            `run-NNNN` in it.
            None returns a Ray dataset of rows instead, which is computed when it is consumed.
        format: of the parts, "parquet" or "csv".
        resume: skip images that an earlier run in `output` scored with the same weights, if their content is the
            same still: they are read and hashed, not decoded. Without it an output with earlier runs is refused.
        batch_size: images that a worker is given at a time.
        workers: processes, a number or the fewest and the most; None lets Ray use all that the cluster has CPUs for.
        cpus: of each worker. With 1, as many workers as cores are the fastest.
        gpus: of each worker; with any, torch computes on them.
        backend: see `leafiqa.score`; None is the faster one that is installed where the worker runs.
        draft: decode JPEG files at reduced scale; see `leafiqa.create_metric`.

    Returns:
        `Written`, or without `output` a Ray dataset with the columns of `leafiqa score`.

    Raises:
        InputError: no image is found, a column is missing, an argument is out of range, or Ray is not installed.
        OutputError: `output` holds earlier runs and `resume` is False.
        UnknownModelError, WeightsError: see `leafiqa.create_metric`.
    """
    whole_number(batch_size, "batch_size", 1)
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if resume and output is None:
        raise InputError("resume goes on with an output folder: give output, too")
    found = find_images_for_ray(images, column, name_column, filesystem)
    student = _Student.read(metric, weights, backend if not gpus else "torch", draft, bool(gpus))
    known: Known = Known.nothing()
    torn: tuple[str, ...] = ()
    if output is not None:
        output = os.fspath(output)
        known, torn = finished_rows(output, filesystem, student.short_hash)
        if known.runs and not resume:
            raise OutputError(
                f"output {shown(output)} holds {known.runs} earlier runs; go on with resume=True (--resume), or name "
                "another"
            )
    fewest, most = _pool(workers, cpus)
    # Held until the end: a worker that is started again fetches it again.
    shared = ray.put(known) if len(known.names) else None
    dataset = found.dataset.map_batches(
        _Worker,
        fn_constructor_args=(student, found.without_dataset(), shared),
        batch_size=batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    if output is None:
        return dataset
    folder, place, system = new_run(output, filesystem)
    skipped = _Skipped.remote()  # type: ignore[attr-defined]
    keep = partial(_kept, skipped)
    rows = dataset.map_batches(keep, batch_format="pyarrow", batch_size=None, num_cpus=0.01)
    write = rows.write_parquet if format == "parquet" else rows.write_csv
    write(place, filesystem=system)
    written, failed = count_rows(system, place)
    return Written(written, failed, ray.get(skipped.names.remote()), folder, torn)


def table(output: str | os.PathLike[str], filesystem: Any = None) -> Any:
    """Return the scores in an output folder as a pyarrow table: of each image the row of the latest run.

    Args:
        output: the folder or address that `score` wrote to.
        filesystem: see `score`.

    Raises:
        InputError: there are no scores.
    """
    return table_of(os.fspath(output), filesystem)


def _pool(workers: int | tuple[int, int] | None, cpus: float) -> tuple[int, int]:
    """Return the fewest and the most workers."""
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    if workers is None:
        room = float(ray.cluster_resources().get("CPU", 1)) / max(cpus, 1e-3)
        return 1, max(1, int(room))
    fewest, most = (workers, workers) if isinstance(workers, int) else workers
    return whole_number(fewest, "workers", 1), whole_number(most, "workers", fewest)


@ray.remote(num_cpus=0)
class _Skipped:
    """Counts skipped images by what they are, so that a task that is run again counts none twice."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def add(self, images: list[int]) -> None:
        self.seen.update(images)

    def names(self) -> int:
        return len(self.seen)


def _kept(skipped: Any, batch: Any) -> Any:
    """Return the rows of images that were not scored before, and tell of the others."""
    import pyarrow.compute as compute

    before = compute.equal(batch["error"], _SKIPPED)
    if images := batch.filter(before)["image"].to_pylist():
        ray.get(skipped.add.remote([hash_of(image) for image in images]))
    return batch.filter(compute.invert(before))


@dataclass(frozen=True)
class _Student:
    """What a worker needs to load the metric: a bundled name, or a student's files by name."""

    name: str
    short_hash: str
    backend: str | None
    draft: bool
    on_gpu: bool
    files: dict[str, bytes]

    @classmethod
    def read(cls, name: str, weights: Any, backend: str | None, draft: bool, on_gpu: bool) -> _Student:
        file, card = resolve(name, weights)
        if weights is None:
            return cls(name, card.short_hash, backend, draft, on_gpu, {})
        needed = [file, *(base for base, _ in bases(card, file.parent))]
        pairs = [part for weights in needed for part in (weights, weights.with_suffix(".json"))]
        files: dict[str, bytes] = {}
        for part in pairs:  # a bundled base that is called as the student is stays where it is: each worker has it, too
            if part.name not in files:
                files[part.name] = part.read_bytes()
        return cls(file.name, card.short_hash, backend, draft, on_gpu, files)

    def load(self, threads: int) -> Any:
        device = "cuda" if self.on_gpu else "cpu"
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            name, place = ("leaf", Path(folder, self.name)) if self.files else (self.name, None)
            return load(name, place, device, self.backend, self.draft, threads, without_torch=not self.on_gpu)


class _Worker:
    """Holds the student in a process of its own, and scores batches of images."""

    def __init__(self, student: _Student, images: Images, known: Any) -> None:
        self.threads = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        self.metric = student.load(self.threads)
        # The arrays lie in the node's shared memory.
        self.images, self.known = images, Known.nothing() if known is None else ray.get(known)

    def __call__(self, batch: dict[str, Any]) -> Any:
        rows = list(self._rows(self.images.contents(batch)))
        kinds = {name: pa.float64() if name == "score" else pa.string() for name in COLUMNS}
        return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})

    def _rows(self, contents: list[Content]) -> Iterator[dict[str, Any]]:
        asked = [_Unless(content, self.known) for content in contents]
        sources = [Content(content.name, one.read) for content, one in zip(contents, asked)]
        for one, row in zip(asked, score_files(self.metric, sources, workers=max(2, self.threads))):
            skipped = {"error": _SKIPPED, "sha256": one.digest} if one.skipped else {}
            yield {**row.to_dict(), "score": row.score, **skipped}


class _Unless:
    """Reads an image, unless it was scored before and is the same still."""

    def __init__(self, content: Content, known: Known) -> None:
        self.content, self.known, self.skipped, self.digest = content, known, False, ""

    def read(self) -> bytes:
        data = self.content.read()
        self.digest = digits_of(data)
        self.skipped = self.known.holds(self.content.name, self.digest)
        return b"" if self.skipped else data
