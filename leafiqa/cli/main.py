"""`leafiqa`: the command and its subcommands. Heavy imports wait until a subcommand needs them."""

from __future__ import annotations

import sys

import click

import leafiqa
from leafiqa.cli.calibrate import calibrate
from leafiqa.cli.demo import demo
from leafiqa.cli.distill import distill
from leafiqa.cli.eval import evaluate
from leafiqa.cli.evidence import evidence
from leafiqa.cli.models import info, models
from leafiqa.cli.score import score
from leafiqa.errors import LeafiqaError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(leafiqa.__version__, prog_name="leafiqa")
def cli() -> None:
    """No-reference image quality: how good does an image look to people?"""


for command in (score, models, info, demo, evidence, distill, calibrate, evaluate):
    cli.add_command(command)


def main() -> None:
    """Run the command line: exit status 0, 1 (some image failed), 2 (usage or set-up), 130 (interrupted)."""
    for stream in (sys.stdout, sys.stdin):
        # File names are bytes; let any of them through.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        sys.exit(cli(standalone_mode=False))  # a command's Exit(1) comes back as 1
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except LeafiqaError as error:
        click.echo(f"leafiqa: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("leafiqa: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our stdout went away (`leafiqa ... | head`): nothing more to say, nowhere to say it.
        sys.stderr.close()
        sys.exit(0)
