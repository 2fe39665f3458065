"""The prompts, which are data: `prompts.toml` beside this file, or a file of the user's."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from leafiqa.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PURPOSES = ("point-levels", "point-number", "pair-words", "pair-number", "sheet-number")


@dataclass(frozen=True)
class Prompt:
    """What is asked, and the name that is recorded with the answer."""

    name: str
    text: str


def read_prompts(path: Path | None = None) -> dict[str, Prompt]:
    """Return the newest prompt for each purpose.

    Args:
        path: a TOML file with tables such as `[point-levels-mine]`, each with a `text`; purposes that it does not
            have are taken from leafiqa's own.

    Raises:
        InputError: the file cannot be read, or has a table for no known purpose or without a text.
    """
    own = _parse(files("leafiqa.teachers").joinpath("prompts.toml").read_text(encoding="utf-8"), "prompts.toml")
    if path is None:
        return own
    try:
        return {**own, **_parse(path.read_text(encoding="utf-8"), str(path))}
    except OSError as error:
        raise InputError(f"cannot read prompts {path}: {error.strerror}") from error


def _parse(text: str, where: str) -> dict[str, Prompt]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"prompts {where} is not valid TOML: {error}") from error
    found: dict[str, Prompt] = {}
    for name, table in tables.items():
        purpose = next((p for p in PURPOSES if name.startswith(f"{p}-")), None)
        if purpose is None:
            raise InputError(f"prompts {where}: [{name}] must begin with one of {', '.join(PURPOSES)}, and a dash")
        if not (isinstance(table, dict) and isinstance(table.get("text"), str) and table["text"].strip()):
            raise InputError(f"prompts {where}: [{name}] needs a text")
        found[purpose] = Prompt(name, table["text"].strip())
    return found
