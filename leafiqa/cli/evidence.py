"""`leafiqa evidence`: what is in a teacher's evidence."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE...")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that names are relative to: also tell how much of it is judged, and what was moved or replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def evidence(files: tuple[Path, ...], images: Path | None, as_json: bool) -> None:
    """Summarise evidence: counts, coverage, agreement, position bias, reliability.

    FILE is JSON lines of point-wise judgments, pairs and rankings; docs/evidence.md describes them.
    """
    from leafiqa.evidence.files import read_evidence
    from leafiqa.evidence.present import fit_to_folder
    from leafiqa.evidence.summary import coverage, summarise

    found = read_evidence(files)
    for where, why in found.skipped[:20]:
        click.echo(f"leafiqa: {where}: {why}: left out", err=True)
    if len(found.skipped) > 20:
        click.echo(f"leafiqa: and {len(found.skipped) - 20} more lines left out", err=True)
    for name in found.torn:
        click.echo(f"leafiqa: {name}: its last line is torn: left out", err=True)
    there: dict[str, int] = {}
    if images is not None:
        found, said = fit_to_folder(found, images)
        for line in said:
            click.echo(f"leafiqa: {line}", err=True)
        there = coverage(found, images)
    summary = {**summarise(found).to_dict(), **there}
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    for name, value in summary.items():
        text = "-" if value is None else _plain(value)
        click.echo(f"{name.replace('_', ' '):20} {text}")


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{item:.3f}" for item in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
