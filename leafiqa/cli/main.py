"""`leafiqa`: the command and its subcommands. Heavy imports wait until a subcommand needs them."""

from __future__ import annotations

import os
import sys

import click

import leafiqa
from leafiqa.cli import (
    best,
    calibrate,
    compare,
    demo,
    distill,
    eval,
    evidence,
    explain,
    export,
    import_,
    label,
    models,
    rate,
    report,
    score,
    select,
)
from leafiqa.cli.memory import keep_freed_memory
from leafiqa.cli.output import note
from leafiqa.errors import LeafiqaError

COMMANDS = (
    score.command,
    models.models,
    models.info,
    explain.command,
    demo.command,
    compare.command,
    report.command,
    best.command,
    label.command,
    import_.command,
    evidence.command,
    distill.command,
    select.command,
    rate.command,
    rate.mos,
    calibrate.command,
    eval.command,
    export.command,
    models.push,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(leafiqa.__version__, prog_name="leafiqa")
def cli() -> None:
    """No-reference image quality: how good does an image look to people?"""


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line: exit status 0, 1 (some image failed), 2 (usage or set-up), 130 (interrupted)."""
    for stream in (sys.stdout, sys.stdin):
        # File names are bytes; let any of them through.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        if "_LEAFIQA_COMPLETE" in os.environ:
            cli()  # a shell asks for completions
        keep_freed_memory()
        # Not cli(): it would answer a broken pipe with status 1, which means here that an image failed.
        with cli.make_context("leafiqa", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except LeafiqaError as error:
        for line in f"leafiqa: {error}".split("\n"):
            note(line)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("leafiqa: interrupted", err=True)
        sys.exit(130)
    except OSError as error:
        # Python flushes stdout once more at exit: give it a place where that cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader of our stdout went away (`leafiqa ... | head`): nothing more to say, nowhere to say it.
            sys.exit(0)
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"leafiqa: {error.strerror or error}{where}", err=True)
        sys.exit(2)
