"""From a name, or a place, to a weights file and its card. A name is never a place, and a place never a name.

Otherwise a folder that happens to be called `leaf` would be scored with, without a word.
"""

from __future__ import annotations

import os
from pathlib import Path

from leafiqa.errors import WeightsError
from leafiqa.model import hub
from leafiqa.model.card import Card, read_card
from leafiqa.model.checkpoint import CHECKPOINT_ENDINGS, find_pair
from leafiqa.model.registry import bundled, names


def resolve(name: str, weights: str | os.PathLike[str] | None = None) -> tuple[Path, Card]:
    """Find the weights file and the card of a model.

    Args:
        name: a bundled name; looked up nowhere but among the bundled ones.
        weights: a place instead: a `.safetensors` or `.json` file, a folder holding one such pair, or
            `hf-hub:owner/repo[@revision]`. The name is not looked at then.

    Raises:
        UnknownModelError: there is no such name.
        WeightsError: the place is missing, unreachable or malformed.
    """
    if weights is None:
        return bundled(name)
    text = os.fspath(weights)
    if text.startswith(hub.PREFIX):
        file, card_file = find_pair(hub.fetch(text))
        return file, read_card(card_file)
    path = Path(text)
    if not path.exists() and path.suffix.lower() not in CHECKPOINT_ENDINGS:
        hint = f" For the Hugging Face Hub write 'hf-hub:{text}'." if text.count("/") == 1 else ""
        if text in names():
            hint = f" {text!r} is the name of a bundled model: give it as the metric's name."
        raise WeightsError(f"weights {text!r} is neither a file nor a folder.{hint}")
    file, card_file = find_pair(path)
    return file, read_card(card_file)


def resolve_text(text: str) -> tuple[Path, Card]:
    """Find what one line of a config means: a bare word is a name, anything with a separator or an ending a place.

    Raises:
        UnknownModelError: a bare word that is no bundled name.
        WeightsError: see `resolve`.
    """
    if is_place(text):
        return resolve("", weights=text)
    return resolve(text)


def is_place(text: str) -> bool:
    """Tell whether a line of a config means a place; a bare word is a name, whatever lies beside it."""
    return (
        text.startswith(hub.PREFIX)
        or any(separator in text for separator in {"/", os.sep})
        or Path(text).suffix.lower() in CHECKPOINT_ENDINGS
    )
