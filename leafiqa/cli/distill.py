"""`leafiqa distill`: from a teacher's evidence to a student."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_LINE_SECONDS = 30


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
def distill(config: Path) -> None:
    """Distil a student from a teacher's evidence, as the TOML file CONFIG says; docs/recipe.md describes it.

    Killed at any moment, the same command goes on where it stopped. The student is written into the config's output
    folder, and its place is printed.
    """
    from leafiqa.distill.config import read_config
    from leafiqa.distill.curves import plot_curves
    from leafiqa.distill.export import export, student_name
    from leafiqa.distill.processes import connect
    from leafiqa.distill.train import train

    settings = read_config(config)
    name = student_name(settings)
    processes = connect(settings.device)
    if processes.rank:
        train(settings, processes, lambda line: None, lambda step, total: None)
        return
    with _progress() as progress:
        train(settings, processes, lambda line: click.echo(line, err=True), progress)
    card = export(settings, settings.output / f"epoch{settings.epochs}.pt", settings.output)
    plot_curves(settings.output / "losses.csv", settings.output / "losses.png")
    click.echo(f"weights {card.short_hash}; score with: leafiqa score --metric FILE PATH...", err=True)
    click.echo(settings.output / f"{name}.safetensors")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show steps and time left: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        began, first, told = time.monotonic(), -1, time.monotonic()

        def line(step: int, total: int) -> None:
            nonlocal began, first, told
            if first < 0:
                first, began = step, time.monotonic()
            elif time.monotonic() - told > _LINE_SECONDS or step == total:
                told = time.monotonic()
                left = (total - step) * (told - began) / (step - first)
                click.echo(f"step {step} of {total}, {left / 60:.0f} min left", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("distilling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Long steps: the speed of the last ten minutes tells the time left, not that of the last half minute.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task("", total=None)
        yield lambda step, total: bar.update(task, completed=step, total=total)
