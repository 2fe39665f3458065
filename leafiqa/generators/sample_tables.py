"""Read lists of generated pictures: a table or JSON lines with image, generator, prompt and seed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.errors import InputError
from leafiqa.files import printable
from leafiqa.generators.samples import Sample, listed, normalised
from leafiqa.tables import read_table, read_text, to_number

# What the columns are called, in order of preference: leafiqa's own names, EvalScope's, Hugging Face's.
_IMAGE = ("image", "image_path", "file_name", "path", "filename", "img_path")
_GENERATOR = ("generator", "model")
_PROMPT = ("prompt", "text", "caption")
_SEED = ("seed",)
_ID = ("id", "prompt_id")


@dataclass
class Listed:
    """What a list of pictures holds."""

    samples: list[Sample]
    remarks: list[str] = field(default_factory=list)


def read_samples(path: Path, *, generator: str | None = None, place: int = 0, columns: Sequence[str] = ()) -> Listed:
    """Read a list of pictures.

    Args:
        path: CSV in any usual form, or JSON lines. Columns `image` (relative to the file's folder), `generator`,
            `prompt` (or, without one, `id`), perhaps `seed`; EvalScope's `id, prompt, image_path` and other usual
            names are understood.
        generator: whose pictures they are, where the list does not say.
        place: number of this list among those of its generator.
        columns: columns with scores that others computed.

    Raises:
        InputError: no list, or a column is missing.
    """
    rows, lines, names, comma = _json_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path)
    lower = {name.lower(): name for name in reversed(names)}

    def column(known: tuple[str, ...]) -> str | None:
        return next((lower[name] for name in known if name in lower), None)

    image, own, prompt, seed, number = (column(known) for known in (_IMAGE, _GENERATOR, _PROMPT, _SEED, _ID))
    has = f"it has {', '.join(names) or 'none'}"
    if image is None:
        raise InputError(f"{path} lacks a column image with the pictures' names; {has}")
    if own is None and generator is None:
        raise InputError(f"{path} lacks a column generator; add one, or give the list a name: NAME={path}; {has}")
    if own is not None and generator is not None:
        raise InputError(f"{path} has a column {own}, so it is given without a name, not as {generator}=...")
    # `unit` is what leafiqa's own tables call what is compared; two units may have one text.
    unit_column = lower.get("unit") or prompt or number
    if unit_column is None:
        raise InputError(f"{path} lacks a column prompt, without which nothing can be paired; {has}")
    if lacking := [name for name in columns if name not in names]:
        raise InputError(f"{path} lacks the column(s) {', '.join(lacking)}; {has}")
    found = Listed([])
    odd: dict[str, int] = {}
    incomplete = []
    ids: dict[str, set[str]] = {}
    for line, row in zip(lines, rows):
        name, whose = str(row.get(image) or "").strip(), generator or str(row.get(own or "") or "").strip()
        unit = str(row.get(unit_column) or "").strip()
        if missing := [what for what, cell in ((image, name), (own, whose), (unit_column, unit)) if not cell]:
            incomplete.append(f"line {line}: no {' and no '.join(map(str, missing))}")
            continue
        unit = normalised(unit)
        if number is not None and unit_column == prompt:
            ids.setdefault(unit, set()).add(str(row.get(number)))
        scores = []
        for wanted in columns:
            value = to_number(row.get(wanted), decimal_comma=comma)
            odd[wanted] = odd.get(wanted, 0) + (value is None)
            scores.append((wanted, value))
        told = str(row.get(seed or "") or "").strip()
        told = f"{told}#{place + 1}" if place else told
        where = os.path.join(path.parent, name)
        text = normalised(str(row.get(prompt or "") or "").strip()) or unit
        found.samples.append(Sample(where, whose, unit, text, told, tuple(scores)))
    if incomplete:
        found.remarks.append(f"{path}: {len(incomplete)} rows left out: {listed(incomplete)}")
    if shared := [unit for unit, of in ids.items() if len(of) > 1]:
        found.remarks.append(
            f"{path}: {len(shared)} prompts stand under several ids, and are taken as one prompt each: {listed(shared)}"
        )
    found.remarks += [f"{path}: {count} cells of column {name} hold no number" for name, count in odd.items() if count]
    if not found.samples:
        raise InputError(f"{path} lists no picture")
    return found


def _csv_rows(path: Path) -> tuple[list[dict[str, Any]], list[int], list[str], bool]:
    table = read_table(path)
    return [dict(row) for row in table.rows], table.lines, table.columns, table.delimiter != ","


def _json_rows(path: Path) -> tuple[list[dict[str, Any]], list[int], list[str], bool]:
    rows, lines, names = [], [], {}
    for number, line in enumerate(read_text(path, "list of pictures").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: no JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a line must be an object, got {printable(line)[:60]}")
        rows.append(row)
        lines.append(number)
        names.update(dict.fromkeys(row))
    return rows, lines, list(names), False
