"""`leafiqa import`: judgments made elsewhere, as evidence."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["scores", "votes", "rankings", "ratings"]),
    required=True,
    help="Columns of scores: image, score; of votes: first, second, winner; of rankings: view, image, rank; "
    "of ratings: image, rater, rating.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Evidence file to write."
)
@click.option("--teacher", help="Who judged.  [default: the table's name]")
@click.option("--scale", type=float, nargs=2, help="Ends of the scale.  [default: the lowest and highest that occur]")
@click.option("--lower-better", is_flag=True, help="Scores or ratings are lower for better images.")
def import_(
    table: Path, kind: str, output: Path, teacher: str | None, scale: tuple[float, float] | None, lower_better: bool
) -> None:
    """Turn TABLE, CSV or JSON lines, into evidence: another metric's scores, votes, rankings, people's ratings."""
    from leafiqa.evidence.files import append_evidence
    from leafiqa.teachers.tables import read_judgments

    if output.exists():
        raise click.UsageError(f"-o {output} exists already; name another file, several may teach one student")
    who = teacher or table.stem
    records, problems = read_judgments(table, kind, scale=scale, lower_better=lower_better, teacher=who)
    for problem in problems:
        click.echo(f"leafiqa: {problem}", err=True)
    append_evidence(output, records)
    click.echo(f"{len(records)} records; see what they are worth: leafiqa evidence {output}", err=True)
    click.echo(output)
