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

PURPOSES = (
    "point-levels",
    "point-number",
    "defects-number",
    "defects-words",
    "pair-words",
    "pair-number",
    "sheet-number",
)


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
        InputError: the file cannot be read, has a table for no known purpose or without a text, or uses the name of one
            of leafiqa's own for another text.
    """
    own = _parse(files("leafiqa.teachers").joinpath("prompts.toml").read_text(encoding="utf-8"), "prompts.toml")
    if path is None:
        return own
    try:
        found = _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read prompts {path}: {error}") from error
    texts = {prompt.name: prompt.text for prompt in own.values()}
    for prompt in found.values():
        if texts.get(prompt.name, prompt.text) != prompt.text:
            raise InputError(f"prompts {path}: [{prompt.name}] is a prompt of leafiqa's own: name yours otherwise")
    return {**own, **found}


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
