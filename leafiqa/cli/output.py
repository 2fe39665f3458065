"""What commands print. Data goes to stdout, everything else to stderr; nothing can send control sequences."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from leafiqa.files import printable


def result(text: str) -> None:
    """Print a result, of one line or several, to stdout."""
    click.echo("\n".join(printable(line) for line in text.split("\n")))


def result_json(value: Any) -> None:
    """Print a result as JSON to stdout."""
    click.echo(json.dumps(value, indent=2))  # ASCII: other characters might steer a terminal


def note(line: str) -> None:
    """Print a line for the reader to stderr."""
    click.echo(printable(line), err=True)


def remarks(lines: Iterable[str]) -> None:
    """Print what was left out and the like to stderr, a line each."""
    for line in lines:
        note(f"leafiqa: {line}")
