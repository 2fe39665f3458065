"""`leafiqa distill`: from a teacher's evidence to a student."""

from __future__ import annotations

from collections.abc import Callable
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
    from leafiqa.distill.crossfit import crossfit
    from leafiqa.distill.curves import plot_curves
    from leafiqa.distill.export import export, student_name
    from leafiqa.distill.processes import connect
    from leafiqa.distill.train import train

    settings = read_config(config)
    name = student_name(settings)
    processes = connect(settings.device)

    def run(log: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
        train(crossfit(settings, processes, log, progress) if settings.crossfit else settings, processes, log, progress)

    if processes.rank:
        run(lambda line: None, lambda step, total: None)
        return
    with steps("distilling") as progress:
        run(lambda line: click.echo(line, err=True), progress)
    card = export(settings, settings.output / f"epoch{settings.epochs}.pt", settings.output)
    plot_curves(settings.output / "losses.csv", settings.output / "losses.png")
    click.echo(f"weights {card.short_hash}; score with: leafiqa score --metric FILE PATH...", err=True)
    click.echo(settings.output / f"{name}.safetensors")
