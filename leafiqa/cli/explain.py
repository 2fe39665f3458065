"""`leafiqa explain`: how sure a score is, what is wrong with the picture, and where."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from leafiqa.cli.options import (
    FOLDER,
    device_option,
    json_option,
    metric_options,
    need_no_metric_among,
    overwrite_option,
    recursive_option,
)
from leafiqa.cli.output import note, remarks, result, result_json
from leafiqa.cli.progress import progress
from leafiqa.errors import OutputError
from leafiqa.files import printable


@click.command("explain", short_help="Say how sure a score is, what is wrong, and where.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@recursive_option
@metric_options
@device_option
@click.option("--details", is_flag=True, help="Also look at windows of large pictures at full size.")
@click.option("-o", "--output", "folder", type=FOLDER, help="Folder for a picture of each explanation, as PNG.")
@overwrite_option
@json_option
def command(
    paths: tuple[str, ...],
    recursive: bool,
    name: str,
    weights: str | None,
    device: str,
    details: bool,
    folder: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Explain scores: standard error, interval, defects and their severity, and a map of good and bad places.

    PATH is a file, a folder or a quoted glob pattern. A file that cannot be read is told, and makes the exit status 1.
    With --details also whether a large photograph is out of focus, noisy or compressed where a look at the whole of it
    cannot tell.
    """
    from leafiqa.images.find import need_images

    need_no_metric_among(paths)
    found = need_images(list(paths), recursive)
    files = list(found)
    places = picture_names(files)
    if folder is not None:
        there = [folder / place for place in places if (folder / place).exists()]
        if there and not overwrite:
            raise OutputError(f"{there[0]} exists already: choose another folder, or --overwrite")
        folder.mkdir(parents=True, exist_ok=True)

    import leafiqa

    warnings.simplefilter("ignore")  # of decoders; what cannot be read is told below
    metric = leafiqa.create_metric(name, weights=weights, device=device)
    failed, told = 0, []
    with progress("explaining") as bar:
        for number, (file, place) in enumerate(zip(files, places), 1):
            try:
                explanation = metric.explain(file, details=details)
            except leafiqa.ImageError as error:
                failed += 1
                told.append({"image": file, "error": str(error)})
                bar.say(f"  error  {printable(file)}: {error}")
            else:
                if folder is not None:
                    explanation.picture().save(folder / place)
                if as_json:
                    told.append({"image": file, **explanation.to_dict()})
                else:
                    # On one terminal with the bar, above it.
                    say = bar.say if bar.shares_terminal_with_stdout else result
                    for line in f"{printable(file)}: {explanation}".split("\n"):
                        say(line)
                    if details and explanation.details is None:
                        say("  details at full size: none, the picture is too small or too narrow")
            bar(number, len(files))
    if as_json:
        result_json(told)
    if folder is not None:
        note(f"# pictures in {folder}: {len(files) - failed}")
    remarks(found.remarks())
    if failed or found.unreadable:
        raise click.exceptions.Exit(1)


def picture_names(files: Sequence[str]) -> list[str]:
    """Return a file name for each file's picture: its path from the folder that all are in, in one piece."""
    absolute = [os.path.abspath(file) for file in files]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute]) if absolute else ""
    return [os.path.relpath(path, shared).replace(os.sep, "_") + ".png" for path in absolute]
