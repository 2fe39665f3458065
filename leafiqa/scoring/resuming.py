"""Go on with an interrupted output: which of its rows are complete, and still of the files that they name."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.files import sha256_if_readable
from leafiqa.images.loading import load_ahead
from leafiqa.scoring.rows import COLUMNS, HASH_DIGITS, Row


@dataclass
class Resumed:
    """What an interrupted run has left to do.

    Attributes:
        kept: rows that stay.
        files: files that are still to be scored.
        scored: how many files have their scores.
        changed: files that were replaced since they were scored, which is done again.
    """

    kept: list[Row] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    scored: int = 0
    changed: list[str] = field(default_factory=list)


def resume(
    output: Path, format: str, files: Sequence[str], metrics: Sequence[tuple[str, str]], extra: Sequence[str] = ()
) -> Resumed:
    """Compare an output with the files that are to be scored.

    Names in an output are relative to its folder, so that they mean one file wherever the command is run. A file whose
    content is not the one that was scored is scored again; so is one that could not be scored.

    Args:
        output: a CSV or JSON-lines file that `leafiqa score` wrote.
        format: "csv" or "jsonl".
        files: what is to be scored now.
        metrics: name and short hash of each metric.
        extra: names of columns beside the usual ones.

    Raises:
        InputError: the file is of another format, or was made with other metrics, weights or columns.
    """
    by_place: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(output, format, extra):
        if (row.metric, row.weights) not in metrics:
            now = ", ".join(f"{name} ({digest})" for name, digest in metrics)
            raise InputError(
                f"cannot resume: {output} was made with {row.metric} ({row.weights}), not {now}; scores of different "
                "models do not mix, choose another output"
            )
        by_place[_place(row.image, output)].append(row)
    wanted = {os.path.abspath(file): file for file in files}
    found = Resumed()

    def digest(place: str) -> str:
        return (sha256_if_readable(place) or "")[:HASH_DIGITS] if place in wanted else ""

    for (place, rows), now in zip(by_place.items(), load_ahead(digest, by_place)):
        complete = {(row.metric, row.weights) for row in rows if row.score is not None} == set(metrics)
        if place not in wanted:
            found.kept += rows  # not asked for now, and not to be lost
        elif complete and all(row.sha256 == now for row in rows):
            found.kept += rows
            found.scored += 1
            del wanted[place]
        elif complete:
            found.changed.append(wanted[place])
    found.files = list(wanted.values())
    return found


def _place(name: str, output: Path) -> str:
    return os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(output)), name))


def read_rows(path: Path, format: str, extra: Sequence[str] = ()) -> list[Row]:
    """Read back the complete rows of an output file. A torn last row is left out.

    Args:
        path: the file.
        format: "csv" or "jsonl".
        extra: names of columns that it has to have beside the usual ones.

    Raises:
        InputError: the file was not written by `leafiqa score`, or has other columns.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if format == "jsonl" else _read_csv(path)
    try:
        return _from_jsonl(text, extra) if format == "jsonl" else _from_csv(text, extra)
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} is no {format} output of leafiqa score ({error}); choose another output") from error


def _read_csv(path: Path) -> str:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _from_jsonl(text: str, extra: Sequence[str]) -> list[Row]:
    # Not splitlines: JSON strings may hold U+2028 and its like.
    rows = [Row.from_dict(json.loads(line)) for line in text[: text.rfind("\n") + 1].split("\n") if line]
    for row in rows:
        if isinstance(row.score, bool) or not isinstance(row.score, (int, float, type(None))):
            raise ValueError(f"a score is {row.score!r}")
    scored = [row for row in rows if row.score is not None]
    beside = {name for row in scored for name in row.beside}
    if scored and beside != set(extra):
        raise ValueError(f"its columns beside the score are {sorted(beside)}, not {sorted(extra)}")
    return rows


def _from_csv(text: str, extra: Sequence[str]) -> list[Row]:
    text = text[: _end_of_last_record(text)]
    if not text:
        return []
    records = list(csv.reader(io.StringIO(text, newline="")))
    columns = (*COLUMNS, *extra)
    if tuple(records[0]) != columns:
        raise ValueError(f"its header is {','.join(records[0])[:300]}, not {','.join(columns)}")
    rows = []
    for image, score, *rest in records[1:]:
        usual, beside = rest[: len(COLUMNS) - 2], rest[len(COLUMNS) - 2 :]
        values = {name: float(cell) if cell else None for name, cell in zip(extra, beside, strict=True)}
        of_usual = dict(zip(COLUMNS, [image, float(score) if score else None, *usual], strict=True))
        rows.append(Row.from_dict({**of_usual, **values} if score else of_usual))
    return rows


def _end_of_last_record(text: str) -> int:
    """Return where the last complete record ends: at a line break that is not inside quotes, as names may hold some."""
    inside, place, end = False, 0, 0
    for part in text.split("\n")[:-1]:
        place += len(part) + 1
        inside ^= part.count('"') % 2 == 1
        if not inside:
            end = place
    return end
