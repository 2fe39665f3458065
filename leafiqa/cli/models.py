"""`leafiqa models`, `info` and `push`: what comes with leafiqa, all that is known of one model, and giving one away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from leafiqa.api import resolve
from leafiqa.model.card import Card
from leafiqa.model.registry import aliases, list_models


@click.command()
@click.argument("pattern", default="")
def models(pattern: str) -> None:
    """List the models that come with leafiqa; PATTERN is a shell-style filter such as 'leaf*'."""
    for name in list_models(pattern):
        card = resolve(name)[1]
        target = f"-> {aliases()[name]}: " if name in aliases() else ""
        click.echo(f"{name:24} {target}{card.description}")


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as it is, JSON.")
def info(name: str, as_json: bool) -> None:
    """Show a model's card: architecture, licences, training, accuracy, hash.

    NAME is a name that `leafiqa models` lists, a file, a folder or hf-hub:owner/repo[@revision].
    """
    file, card = resolve(name)
    if as_json:
        click.echo(card.to_json(), nl=False)
        return
    click.echo(f"{card.name}\n{card.description}\n\nfile       {file}\nsha256     {card.sha256}")
    click.echo(f"range      {card.score_range[0]:g} to {card.score_range[1]:g}, higher is better")
    click.echo(f"unit       {card.score.get('unit', 'not stated')}")
    _accuracy(card)
    for title in ("licences", "architecture", "preprocess", "teacher", "training"):
        click.echo(f"\n{title}")
        for key, value in getattr(card, title).items():
            click.echo(f"  {key}: {_plain(value)}")
    if card.limitations:
        click.echo("\nlimitations")
        for line in card.limitations:
            click.echo(f"  - {line}")


@click.command()
@click.argument("student", type=click.Path(exists=True, path_type=Path))
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make a new repository private.")
def push(student: Path, repo: str, private: bool) -> None:
    """Upload a student of yours to the Hugging Face Hub as REPO, owner/repo.

    STUDENT is a .safetensors file with its card beside it, or their folder. Prints the reference that fetches it.
    """
    from leafiqa.model.upload import push as upload

    click.echo(upload(student, repo, private=private))


def _accuracy(card: Card) -> None:
    if card.accuracy:
        click.echo("\naccuracy (95 % bootstrap intervals)")
    for row in card.accuracy:
        try:
            click.echo(
                f"  {row['dataset']} {row['split']}, n={row['n']}: "
                f"SRCC {row['srcc']:.3f} [{row['srcc_interval'][0]:.3f}, {row['srcc_interval'][1]:.3f}], "
                f"PLCC {row['plcc']:.3f} [{row['plcc_interval'][0]:.3f}, {row['plcc_interval'][1]:.3f}]"
            )
        except (KeyError, TypeError, IndexError, ValueError):
            # Somebody else's card: show what it says.
            click.echo(f"  {json.dumps(row, ensure_ascii=False)}")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
