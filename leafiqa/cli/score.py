"""`leafiqa score`: score files and folders."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from leafiqa.cli.progress import progress
from leafiqa.folder.find import find_images
from leafiqa.folder.rows import FORMATS, Row, header, read_scored, render

if TYPE_CHECKING:
    from leafiqa.metric import Metric


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Look into the folders of a folder, too.")
@click.option("--metric", "name", default="leaf", show_default=True, help="A name that `leafiqa models` lists.")
@click.option("--weights", help="Weights in place of the metric's: a file, a folder or hf-hub:owner/repo[@revision].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Output format; table, or from the ending of -o.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of stdout."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted -o file: score what it lacks.")
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=16, show_default=True, help="Images scored together."
)
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that decode.  [default: cores, at most 4]")
@click.option("--sort", is_flag=True, help="Best first. Rows come at the end instead of as they are made.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the best N, best first.")
def score(
    paths: tuple[str, ...],
    recursive: bool,
    name: str,
    weights: str | None,
    device: str,
    format_: str | None,
    output: Path | None,
    resume: bool,
    batch_size: int,
    workers: int | None,
    sort: bool,
    top: int | None,
) -> None:
    """Score images: a number each, higher is better.

    PATH is a file, a folder, a quoted glob pattern, or - to read a list of paths, one a line, from stdin. A file that
    cannot be scored is a row with its error, and makes the exit status 1.
    """
    format_ = format_ or {".csv": "csv", ".jsonl": "jsonl"}.get(output.suffix.lower() if output else "", "table")
    if resume and (output is None or format_ == "table"):
        raise click.UsageError("--resume goes on with a file: give -o FILE.csv or -o FILE.jsonl")
    if resume and (sort or top):
        raise click.UsageError("--resume and --sort/--top exclude each other: rows are appended in the order scored")

    listed = [line for path in paths for line in (_stdin_lines() if path == "-" else [path])]
    files = list(find_images(listed, recursive))
    if not files:
        deeper = "" if recursive else " (add -r to look into folders)"
        raise click.UsageError(f"no images found in {', '.join(paths)}{deeper}")

    import leafiqa
    from leafiqa.folder.pipeline import score_files

    # Warnings of decoders (a 95 megapixel picture, odd EXIF) would tear the progress bar; errors are rows.
    warnings.simplefilter("ignore")
    metric = leafiqa.create_metric(name, weights=weights, device=device)

    done: list[Row] = []
    if resume and output is not None and output.exists():
        done = read_scored(output, format_, metric.metric_name, metric.card.short_hash)
        scored = {os.path.abspath(row.image) for row in done if row.score is not None}
        files = [file for file in files if os.path.abspath(file) not in scored]
        again = {os.path.abspath(file) for file in files}
        done = [row for row in done if row.score is not None or os.path.abspath(row.image) not in again]
        click.echo(f"{len(scored)} images scored before, {len(files)} to go", err=True)

    failed = 0
    held: list[Row] = []
    workers = workers or min(4, os.cpu_count() or 1)
    with _open(output, done, format_, metric, resume) as stream:
        try:
            with progress(len(files), "scoring") as bar:
                for row in score_files(metric, files, batch_size, workers):
                    failed += row.score is None
                    if sort or top:
                        held.append(row)
                    elif output is None and bar.shares_terminal_with_stdout:
                        bar.print(render(row, format_))
                    else:
                        stream.write(render(row, format_))
                        stream.flush()
                    bar()
        finally:
            held.sort(key=lambda row: float("-inf") if row.score is None else row.score, reverse=True)
            for row in held[:top]:
                stream.write(render(row, format_))
            stream.flush()
            for row in held[top:] if top else []:
                if row.score is None:  # cut from the list, but not to be lost
                    click.echo(render(row, "table"), err=True, nl=False)
    if failed:
        click.echo(f"leafiqa: {failed} of {len(files)} images have no score; see their errors", err=True)
        raise click.exceptions.Exit(1)


def _stdin_lines() -> Iterator[str]:
    for line in sys.stdin:
        if line := line.rstrip("\r\n"):
            yield line


@contextlib.contextmanager
def _open(output: Path | None, done: list[Row], format_: str, metric: Metric, resume: bool) -> Iterator[IO[str]]:
    """Open the output with its header and the rows kept from an earlier run in it."""
    start = header(format_, metric.metric_name, metric.card.short_hash) + "".join(render(row, format_) for row in done)
    if output is None:
        sys.stdout.write(start)
        yield sys.stdout
        return
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    try:
        if resume and output.is_file():
            # Through a temporary file, so that a kill right now does not lose what an earlier run scored.
            place = Path(os.path.realpath(output))
            handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=place.name, suffix=".tmp")
            with open(handle, "w", **text) as file:
                file.write(start)
            shutil.copymode(place, temporary)
            os.replace(temporary, place)
            stream = open(place, "a", **text)
        else:
            stream = open(output, "w", **text)
            stream.write(start)
    except OSError as error:
        raise click.UsageError(f"cannot write {output}: {error.strerror}") from error
    with stream:
        yield stream
