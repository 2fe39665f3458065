"""`leafiqa score`: score files and folders."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import click

from leafiqa.cli.options import (
    device_option,
    metrics_of,
    need_no_metric_among,
    overwrite_option,
    recursive_option,
    several_metrics_options,
)
from leafiqa.cli.output import note, remarks
from leafiqa.cli.progress import progress
from leafiqa.errors import InputError
from leafiqa.files import check_output, locked, printable, write_whole
from leafiqa.images.find import need_images
from leafiqa.scoring.backends import BACKENDS
from leafiqa.scoring.columns import check_columns, extra_columns, takes_torch
from leafiqa.scoring.rows import FORMATS, Row, Writer, format_of

_ADDRESS = re.compile(r"(auto|ray://.+|[\w.-]+:\d+)$")


@click.command("score", short_help="Score files and folders.")
@click.argument("paths", nargs=-1, metavar="PATH...")
@recursive_option
@several_metrics_options
@device_option
@click.option(
    "--backend",
    type=click.Choice(["auto", *BACKENDS]),
    default="auto",
    show_default=True,
    help="What computes; auto is the faster one that is installed: on a CPU ONNX Runtime.",
)
@click.option(
    "--columns",
    "asked",
    default="score",
    metavar="LIST",
    help="Of score, se, defects and details, with commas between: also the standard error, the severity of each "
    "defect, and what is seen of large pictures at full size.",
)
@click.option("--draft", is_flag=True, help="Decode JPEG files at reduced scale: faster, scores move a little.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(sorted({*FORMATS.values(), "parquet"})),
    help="Output format.  [default: table, or from the ending of -o]",
)
@click.option(
    "-o", "--output", "output_", metavar="FILE", help=f"File to write instead of stdout: {', '.join(FORMATS)}."
)
@overwrite_option
@click.option("--resume", is_flag=True, help="Go on with an interrupted -o file: score what it lacks, or what changed.")
@click.option(
    "--ray",
    "cluster",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Score on a Ray cluster, or with Ray on this machine. Then -o is a folder, and PATH may be an address.",
)
@click.option("--column", help="With --ray: the column of Parquet files that holds paths or bytes.")
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images scored together on a GPU."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Images scored at the same time, each by one core; for a GPU, threads that decode.  "
    "[default: cores, at most 16]",
)
@click.option("--sort", is_flag=True, help="Best first. Rows come at the end instead of as they are made.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the best N, best first.")
@click.option("--bottom", type=click.IntRange(1), metavar="N", help="Only the worst N, worst first.")
@click.option("--min", "least", type=float, metavar="SCORE", help="Only images with at least this score.")
def command(
    paths: tuple[str, ...],
    recursive: bool,
    names: tuple[str, ...],
    places: tuple[str, ...],
    device: str,
    backend: str,
    asked: str,
    draft: bool,
    format_: str | None,
    output_: str | None,
    overwrite: bool,
    resume: bool,
    cluster: str | None,
    column: str | None,
    batch_size: int,
    workers: int | None,
    sort: bool,
    top: int | None,
    bottom: int | None,
    least: float | None,
) -> None:
    """Score images: a number each, higher is better.

    PATH is a file, a folder, a quoted glob pattern, or - to read a list of paths, one a line, from stdin. A file that
    cannot be scored is a row with its error, and makes the exit status 1. With several metrics an image has a row, or
    a column, for each. A summary of the scores goes to stderr.
    """
    columns = check_columns(name.strip() for name in asked.split(",") if name.strip())
    held = sort or top is not None or bottom is not None or least is not None
    if cluster is not None and cluster != "local" and not _ADDRESS.match(cluster):
        paths, cluster = (cluster, *paths), "local"  # `--ray PATH`: what follows is no cluster's address
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    need_no_metric_among(paths)
    if cluster is not None:
        several, elsewhere = len(names) + len(places) > 1, device not in ("auto", "cpu")
        if held or output_ is None or elsewhere or several or overwrite or takes_torch(columns):
            raise click.UsageError(
                "--ray takes -o FOLDER and one metric; not --device, --columns, --overwrite, --sort, --min, ..."
            )
        if "-" in paths:
            raise click.UsageError("--ray reads no list from stdin: name folders, addresses or Parquet files")
        _on_cluster(
            cluster, paths, names, places, output_, format_, resume, column, backend, draft, batch_size, workers
        )
        return
    if column is not None or format_ == "parquet":
        raise click.UsageError("--column and --format parquet are for --ray")
    output = None if output_ is None else Path(output_)
    if output is not None and output.is_dir():
        raise click.UsageError(f"-o {output} is a folder; name a file in it")
    format_ = format_of(output, format_)
    if top is not None and bottom is not None:
        raise click.UsageError("--top and --bottom exclude each other")
    if resume and (output is None or format_ not in ("csv", "jsonl")):
        raise click.UsageError("--resume goes on with a file: give -o FILE.csv or -o FILE.jsonl")
    if resume and held:
        raise click.UsageError("--resume and --sort/--top/--bottom/--min exclude each other: rows are appended")
    listed = [line for path in paths for line in (_stdin_lines() if path == "-" else [path])]
    if not listed and set(paths) == {"-"}:
        note("no paths on stdin: nothing to score")
        return
    found = need_images(listed, recursive)
    files = list(found)

    from leafiqa.scoring.pipeline import score_files
    from leafiqa.scoring.resuming import resume as go_on
    from leafiqa.scoring.scores import Summariser, choose, is_scores

    if output is not None:
        there = resume and output.is_file()
        check_output(output, inputs=files, overwrite=overwrite or there, is_ours=is_scores)
    # Warnings of decoders (odd EXIF) would tear the progress bar; errors are rows.
    warnings.simplefilter("ignore")
    named = None if backend == "auto" else backend
    metrics = metrics_of(names, places, device, named, draft, without_torch=not takes_torch(columns))
    for metric in metrics:
        note(f"# {printable(metric.metric_name)}: computed by {metric.engine}")
    known = [(metric.metric_name, metric.card.short_hash) for metric in metrics]
    if len(set(known)) < len(known):
        raise InputError(f"the metric {known[0][0]} is given twice")
    extra = extra_columns(metrics, columns)
    with locked(output) if output is not None and _is_file(output) else contextlib.nullcontext():
        if output is not None:  # once more: another process may have written it while the models were loaded
            check_output(output, inputs=files, overwrite=overwrite or there, is_ours=is_scores)
        kept: list[Row] = []
        if resume and output is not None and output.is_file():
            before = go_on(output, format_, files, known, extra)
            kept, files = before.kept, before.files
            note(f"{before.scored} images scored before, {len(files)} to go")
            remarks(f"{file} changed since it was scored: scored again" for file in before.changed)
        failed, summary = 0, Summariser()
        rows: list[Row] = []
        writer = Writer(format_, known, extra)
        folder = os.path.dirname(os.path.abspath(output)) if output is not None else None
        with _open(output, writer, kept, going_on=resume) as stream:
            try:
                with progress("scoring") as bar:
                    for number, row in enumerate(score_files(metrics, files, batch_size, workers, columns)):
                        failed += row.score is None and number % len(metrics) == 0
                        summary.add(row)
                        if held:
                            rows.append(row)
                        else:
                            _write(stream, writer.row(_named(row, folder)), bar if output is None else None)
                        bar(number // len(metrics) + 1, len(files))
            finally:
                # Interrupted, what was held is written all the same.
                chosen = choose(rows, top=top, bottom=bottom, least=least)
                left = [row for row in rows if row.score is None]
                for row in [*chosen, *(left if top is None and bottom is None else [])]:
                    stream.write(writer.row(_named(row, folder)))
                stream.write(writer.footer())
                stream.flush()
                if top is not None or bottom is not None:
                    for row in left:  # cut from the list, but not to be lost
                        note(f"  error  {row.image}: {row.error}")
    for of in summary.summaries():
        note(f"# {of}")
    remarks(found.remarks())
    if failed:
        note(f"leafiqa: {failed} of {len(files)} images have no score; see their errors")
    if failed or found.unreadable:
        raise click.exceptions.Exit(1)


def _on_cluster(
    cluster: str,
    paths: tuple[str, ...],
    names: tuple[str, ...],
    places: tuple[str, ...],
    output: str,
    format_: str | None,
    resume: bool,
    column: str | None,
    backend: str,
    draft: bool,
    batch_size: int,
    workers: int | None,
) -> None:
    """Score with Ray, and tell what was written."""
    import logging

    if format_ not in (None, "csv", "parquet"):
        raise click.UsageError(f"--ray writes parquet or csv, not {format_}")
    from leafiqa.integrations import ray as scoring_on_ray

    ray = scoring_on_ray.ray
    for logger in ("ray", "ray.data"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
    ray.init(address=None if cluster == "local" else cluster, log_to_driver=False, logging_level=logging.ERROR)
    try:
        found = scoring_on_ray.score(
            list(paths),
            names[0] if names else "leaf",
            weights=places[0] if places else None,
            column=column,
            output=output,
            format=format_ or "parquet",
            resume=resume,
            backend=None if backend == "auto" else backend,
            draft=draft,
            batch_size=batch_size,
            workers=workers,
        )
    finally:
        ray.shutdown()
    remarks(f"{part} was cut off while it was written: its images are scored again" for part in found.torn)
    skipped = f", {found.skipped} scored before" if found.skipped else ""
    note(f"# {found.rows} rows in {found.folder}{skipped}")
    if found.failed:
        note(f"leafiqa: {found.failed} of {found.rows} images have no score; see their errors")
        raise click.exceptions.Exit(1)


def _named(row: Row, folder: str | None) -> Row:
    """Return a row whose relative name is relative to the output's folder, so that it means one file everywhere."""
    from leafiqa.scoring.scores import name_in

    return row if folder is None else replace(row, image=name_in(row.image, folder))


def _write(stream: IO[str], text: str, bar: object) -> None:
    if text and bar is not None and getattr(bar, "shares_terminal_with_stdout", False):
        bar.say(text)  # type: ignore[attr-defined]
    else:
        stream.write(text)
        stream.flush()


def _stdin_lines() -> Iterator[str]:
    for line in sys.stdin:
        if line := line.rstrip("\r\n"):
            yield line


def _is_file(output: Path) -> bool:
    return output.is_file() or not output.exists()


@contextlib.contextmanager
def _open(output: Path | None, writer: Writer, kept: list[Row], going_on: bool) -> Iterator[IO[str]]:
    """Open the output with its header and the rows kept from an earlier run in it."""
    start = writer.header() + "".join(map(writer.row, kept))
    if output is None:
        sys.stdout.write(start)
        yield sys.stdout
        return
    try:
        if going_on and output.is_file():
            # Whole or not at all, so that a kill right now does not lose what an earlier run scored.
            write_whole(output, start)
            stream = open(os.path.realpath(output), "a", encoding="utf-8", errors="surrogateescape", newline="")
        else:
            stream = open(output, "w", encoding="utf-8", errors="surrogateescape", newline="")
            stream.write(start)
    except OSError as error:
        raise click.UsageError(f"cannot write {output}: {error.strerror}") from error
    with stream:
        yield stream
