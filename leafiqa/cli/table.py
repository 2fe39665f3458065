"""The options by which commands say what a table of human scores is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--mos",
        "table",
        type=click.Path(path_type=Path),
        required=True,
        help="CSV with columns image and mos (higher is better), perhaps mos_se or mos_std, and group; or the folder "
        "of a known data set.",
    ),
    click.option(
        "--images", type=click.Path(file_okay=False, path_type=Path), help="Folder that names are relative to."
    ),
    click.option("--image-column", help="The column with the image's name, if it is not called image."),
    click.option("--mos-column", help="The column with the human score, if it is not called mos."),
    click.option("--split", help="Only this split: of the table's column split, or official."),
)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--mos`, `--images`, `--image-column`, `--mos-column` and `--split`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
