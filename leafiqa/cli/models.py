"""`leafiqa models`, `info` and `push`: what comes with leafiqa, all that is known of one model, and giving one away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from leafiqa.cli.options import json_option
from leafiqa.cli.output import result, result_json
from leafiqa.model.card import Card
from leafiqa.model.places import resolve
from leafiqa.model.registry import aliases, list_models


@click.command("models", short_help="List the models that come with leafiqa.")
@click.argument("pattern", default="")
@json_option
def models(pattern: str, as_json: bool) -> None:
    """List the models that come with leafiqa; PATTERN is a shell-style filter such as 'leaf*'."""
    found = {name: resolve(name)[1] for name in list_models(filter=pattern)}
    if as_json:
        result_json({name: card.description for name, card in found.items()})
        return
    for name, card in found.items():
        target = f"-> {aliases()[name]}: " if name in aliases() else ""
        result(f"{name:24} {target}{card.description}")


@click.command("info", short_help="Show a model's card.")
@click.argument("name", default="leaf")
@click.option("--weights", help="A student in some place, instead of a name: a file, a folder or hf-hub:owner/repo.")
@json_option
def info(name: str, weights: str | None, as_json: bool) -> None:
    """Show a model's card: architecture, licences, training, accuracy, hash.

    NAME is a name that `leafiqa models` lists.
    """
    file, card = resolve(name, weights)
    if as_json:
        result_json(json.loads(card.to_json()))
        return
    result(f"{card.name}\n{card.description}\n\nfile       {file}\nsha256     {card.sha256}")
    if card.base:
        result(f"base       {card.base['name']} {card.base['sha256'][:12]}: the file holds what differs from it")
    result(f"range      {card.score_range[0]:g} to {card.score_range[1]:g}, higher is better")
    result(f"unit       {card.score.get('unit', 'not stated')}")
    _percentiles(card)
    _accuracy(card)
    for title in ("licences", "architecture", "preprocess", "teacher", "training"):
        result(f"\n{title}")
        for key, value in getattr(card, title).items():
            result(f"  {key}: {_plain(value)}")
    if card.limitations:
        result("\nlimitations")
        for line in card.limitations:
            result(f"  - {line}")


@click.command("push", short_help="Upload a student to the Hugging Face Hub.")
@click.argument("student", type=click.Path(exists=True, path_type=Path))
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make a new repository private.")
def push(student: Path, repo: str, private: bool) -> None:
    """Upload a student of yours to the Hugging Face Hub as REPO, owner/repo.

    STUDENT is a .safetensors file with its card beside it, or their folder. Prints the reference that fetches it.
    """
    from leafiqa.model.uploading import upload

    result(upload(student, repo, private=private))


def _percentiles(card: Card) -> None:
    """Print what scores real pictures have, where the card tells."""
    percentiles = card.score.get("percentiles")
    for kind, shares in percentiles.items() if isinstance(percentiles, dict) else ():
        if isinstance(shares, dict):
            told = ", ".join(f"{share} % below {value}" for share, value in shares.items())
            result(f"pictures   {kind}: {told}")


def _accuracy(card: Card) -> None:
    if card.accuracy:
        result("\naccuracy (95 % bootstrap intervals)")
    for row in card.accuracy:
        try:
            result(
                f"  {row['dataset']} {row['split']}, n={row['n']}: "
                f"SRCC {row['srcc']:.3f} [{row['srcc_interval'][0]:.3f}, {row['srcc_interval'][1]:.3f}], "
                f"PLCC {row['plcc']:.3f} [{row['plcc_interval'][0]:.3f}, {row['plcc_interval'][1]:.3f}]"
            )
        except (KeyError, TypeError, IndexError, ValueError):
            # Somebody else's card: show what it says.
            result(f"  {json.dumps(row, ensure_ascii=False)}")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
