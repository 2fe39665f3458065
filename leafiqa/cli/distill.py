"""`leafiqa distill`: from a teacher's evidence to a student."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.progress import steps


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
def distill(config: Path) -> None:
    """Distil a student from a teacher's evidence, as the TOML file CONFIG says; docs/recipe.md describes it.

    Killed at any moment, the same command goes on where it stopped. The student is written into the config's output
    folder, and its place is printed.
    """
    from leafiqa.distill.config import read_config
    from leafiqa.distill.distill import distill as run
    from leafiqa.distill.processes import connect

    settings = read_config(config)
    processes = connect(settings.device)
    if processes.rank:
        run(settings, processes, lambda line: None)
        return
    with steps("distilling") as progress:
        card = run(settings, processes, lambda line: click.echo(line, err=True), progress)
    if card is not None:
        click.echo(f"weights {card.short_hash}; score with: leafiqa score --metric FILE PATH...", err=True)
        click.echo(settings.output / f"{card.name}.safetensors")
