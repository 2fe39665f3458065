"""`leafiqa import`: judgments made elsewhere, as evidence."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.options import FILE
from leafiqa.cli.output import note, remarks


@click.command("import", short_help="Turn scores, votes, rankings or ratings into evidence.")
@click.argument("table", type=FILE)
@click.option(
    "--kind",
    type=click.Choice(["scores", "votes", "rankings", "ratings"]),
    required=True,
    help="Columns of scores: image, score; of votes: first, second, winner; of rankings: view, image, rank; "
    "of ratings: image, rater, rating.",
)
@click.option("-o", "--output", type=FILE, required=True, help="Evidence file to write; must not exist.")
@click.option("--teacher", help="Who judged.  [default: the table's name]")
@click.option("--scale", type=float, nargs=2, help="Ends of the scale.  [default: the lowest and highest that occur]")
@click.option("--lower-better", is_flag=True, help="Scores or ratings are lower for better images.")
def command(
    table: Path, kind: str, output: Path, teacher: str | None, scale: tuple[float, float] | None, lower_better: bool
) -> None:
    """Turn TABLE, CSV or JSON lines, into evidence: another metric's scores, votes, rankings, people's ratings."""
    import leafiqa

    problems = leafiqa.import_judgments(
        table, output, kind=kind, teacher=teacher, scale=scale, lower_better=lower_better
    )
    remarks(problems)
    note(f"see what it is worth: leafiqa evidence {output}")
    click.echo(output)
