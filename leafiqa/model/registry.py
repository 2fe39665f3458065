"""Names of the students that come with leafiqa: the files in `weights/`, and the aliases in `aliases.json`."""

from __future__ import annotations

import difflib
import fnmatch
import json
from functools import lru_cache
from pathlib import Path

from leafiqa.errors import InputError, UnknownModelError, WeightsError
from leafiqa.model.card import Card, read_card

_PACKAGE = Path(__file__).resolve().parent.parent


@lru_cache(maxsize=1)
def weights_folder() -> Path:
    """Return the folder of bundled weights: inside the installed package, or beside it in a checkout."""
    for folder in (_PACKAGE / "weights", _PACKAGE.parent / "weights"):
        if (folder / "aliases.json").is_file():
            return folder
    raise WeightsError(
        f"this installation of leafiqa lacks its weights (looked in {_PACKAGE / 'weights'}); reinstall it"
    )


@lru_cache(maxsize=1)
def aliases() -> dict[str, str]:
    """Return short names and the names they stand for."""
    return json.loads((weights_folder() / "aliases.json").read_text(encoding="utf-8"))


def names() -> list[str]:
    """Return all bundled names, aliases first."""
    return sorted(aliases()) + sorted(path.stem for path in weights_folder().glob("*.safetensors"))


def list_models(metric_mode: str | None = None, filter: str = "", exclude_filters: str = "") -> list[str]:
    """List the models that `create_metric` knows by name. The arguments are those of pyiqa's function.

    Args:
        metric_mode: "NR", or None for any. leafiqa has no-reference metrics only, so "FR" lists nothing.
        filter: a shell-style pattern such as `"leaf*"`; empty lists all.
        exclude_filters: a pattern of names to leave out; empty leaves out none.

    Returns:
        Names, aliases such as "leaf" first.

    Raises:
        InputError: another mode.
    """
    if metric_mode not in (None, "NR", "FR"):
        raise InputError(
            f"metric_mode must be 'NR', 'FR' or None, got {metric_mode!r}; a pattern is given as filter={metric_mode!r}"
        )
    if metric_mode == "FR":
        return []
    return [
        name
        for name in names()
        if (not filter or fnmatch.fnmatchcase(name, filter))
        and not (exclude_filters and fnmatch.fnmatchcase(name, exclude_filters))
    ]


def bundled(name: str) -> tuple[Path, Card]:
    """Return the weights file and the card of a bundled model.

    Raises:
        UnknownModelError: no such name; the message suggests near ones.
    """
    if not isinstance(name, str):
        raise InputError(f"a model's name must be a str, got {name!r}; a place is given as weights")
    file = weights_folder() / (aliases().get(name, name) + ".safetensors")
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
        raise UnknownModelError(
            f"unknown model {name!r}. "
            + (f"Did you mean {' or '.join(map(repr, near))}? " if near else "")
            + f"Known: {', '.join(names())}. A file, a folder or hf-hub:owner/repo is no name: give it as weights."
        )
    return file, read_card(file.with_suffix(".json"))
