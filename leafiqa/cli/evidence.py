"""`leafiqa evidence`: what is in a teacher's evidence."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.options import FILE, FOLDER, json_option
from leafiqa.cli.output import remarks, result, result_json


@click.command("evidence", short_help="Summarise a teacher's evidence.")
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option(
    "--images",
    type=FOLDER,
    help="Folder that names are relative to: also tell how much of it is judged, and what was moved or replaced.",
)
@json_option
def command(files: tuple[Path, ...], images: Path | None, as_json: bool) -> None:
    """Summarise evidence: counts, coverage, agreement, position bias, reliability.

    FILE is JSON lines of point-wise judgments, pairs and rankings; docs/evidence.md describes them.
    """
    import leafiqa

    summary = leafiqa.summarise_evidence(files, images)
    remarks(summary.remarks)
    if as_json:
        result_json(summary.to_dict())
    else:
        result(str(summary))
