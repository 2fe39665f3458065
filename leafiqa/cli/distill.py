"""`leafiqa distill`: from a teacher's evidence to a student."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.options import FILE, overwrite_option
from leafiqa.cli.output import note
from leafiqa.cli.progress import progress


@click.command("distill", short_help="Distil a student from a teacher's evidence.")
@click.argument("config", type=FILE)
@overwrite_option
def command(config: Path, overwrite: bool) -> None:
    """Distil a student from a teacher's evidence, as the TOML file CONFIG says; docs/distill.md describes it.

    Killed at any moment, the same command goes on where it stopped. The student is written into the config's output
    folder, and its place is printed.
    """
    import os

    import leafiqa

    if os.environ.get("RANK", "0") != "0":
        leafiqa.distill(config, overwrite=overwrite)
        return
    with progress("distilling", "steps") as bar:
        made = leafiqa.distill(config, overwrite=overwrite, log=bar.say, progress=bar)
    if made is not None:
        for line in str(made).splitlines():
            note(line)
        note(f"score with: leafiqa score --weights {made.path} PATH...")
        click.echo(made.path)
