"""Judgments made elsewhere, as evidence: scores of another metric, votes on pairs, rankings, ratings by several people.

Nothing is averaged or scaled here: evidence holds raw facts, and what they are worth is computed from it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leafiqa.arguments import two_rising
from leafiqa.errors import InputError
from leafiqa.evidence.records import check_name
from leafiqa.files import StrPath, as_path, printable
from leafiqa.tables import read_table, read_text, to_number

KINDS = ("scores", "votes", "rankings", "ratings")
_COLUMNS = {
    "scores": ("image", "score"),
    "votes": ("first", "second", "winner"),
    "rankings": ("view", "image", "rank"),
    "ratings": ("image", "rater", "rating"),
}
_FIRST, _SECOND, _TIE = {"first", "1", "a", "left"}, {"second", "2", "b", "right"}, {"tie", "0", "same", "draw"}


def read_judgments(
    path: StrPath,
    kind: str,
    *,
    scale: tuple[float, float] | None = None,
    lower_better: bool = False,
    teacher: str | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a table of judgments.

    Args:
        path: CSV with a header, or JSON lines (ending `.jsonl`), with the columns of its kind:
            scores: `image`, `score`, perhaps `confidence` (0 to 1);
            votes: `first`, `second` (in the order shown), `winner`: first, second, tie, or the winner's name;
            rankings: `view`, `image`, `rank` (1 is best), a row for each image of a view, perhaps `rater`;
            ratings: `image`, `rater`, `rating`.
        kind: one of `KINDS`.
        scale: ends of the scale of scores or ratings; None means the lowest and highest that occur.
        lower_better: scores or ratings are lower for better images.
        teacher: who judged, recorded with each line; None means the table's name.

    Returns:
        Evidence records, and what was left out, one sentence each.

    Raises:
        InputError: the table cannot be read, lacks a column, has no usable row, or does not fit its scale.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    path = as_path(path, "table")
    teacher = teacher or path.stem
    scale = None if scale is None else two_rising(scale, "scale")
    rows = _rows(path)
    if lacking := [column for column in _COLUMNS[kind] if not rows or column not in rows[0]]:
        raise InputError(
            f"{path} lacks the column(s) {', '.join(lacking)} of {kind}; it has {sorted(rows[0]) if rows else []}"
        )
    problems: list[str] = []
    if kind == "votes":
        records = list(_votes(rows, problems))
    elif kind == "rankings":
        records = list(_rankings(rows, problems))
    else:
        records = list(_points(rows, "score" if kind == "scores" else "rating", scale, lower_better, problems))
    if not records:
        raise InputError(f"{path} has no usable row out of {len(rows)}: {'; '.join(problems[:3])}")
    return [{**record, "asked": teacher, "teacher": teacher} for record in records], problems


def _points(
    rows: list[dict[str, Any]],
    column: str,
    scale: tuple[float, float] | None,
    lower_better: bool,
    problems: list[str],
) -> Iterable[dict[str, Any]]:
    values = [to_number(row.get(column)) for row in rows]
    known = [value for value in values if value is not None]
    low, high = scale or (min(known, default=0.0), max(known, default=0.0))
    if not low < high:
        raise InputError(f"the scale must rise, got {low:g} to {high:g}")
    for number, (row, value) in enumerate(zip(rows, values), 1):
        if not (name := _name(row, "image", problems, number)):
            continue
        confidence, stated = to_number(row.get("confidence")), str(row.get("confidence") or "").strip()
        if value is None:
            problems.append(f"row {number}: {name}: {column} {row.get(column)!r} is no finite number: left out")
        elif not low <= value <= high:
            problems.append(f"row {number}: {name}: {column} {value:g} is outside {low:g} to {high:g}: left out")
        elif stated and (confidence is None or not 0 <= confidence <= 1):
            problems.append(
                f"row {number}: {name}: confidence {stated!r} is no number from 0 to 1: left out, not counted fully"
            )
        else:
            # Turned round within its scale where lower is better.
            record: dict[str, Any] = {
                "kind": "point",
                "image": name,
                "score": low + high - value if lower_better else value,
            }
            record["scale"] = [low, high]
            if confidence is not None:
                record["confidence"] = confidence
            if column == "rating":
                record["rater"] = str(row.get("rater"))
            yield record


def _votes(rows: list[dict[str, Any]], problems: list[str]) -> Iterable[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        first, second = (_name(row, column, problems, number) for column in ("first", "second"))
        if not first or not second:
            continue
        winner = str(row.get("winner") if row.get("winner") is not None else "").strip()
        if first == second:
            problems.append(f"row {number}: {first!r} and {second!r} are no two images: left out")
        # The images' own names go before "first", "a", "1": an image may be called so.
        elif winner in (first, second):
            yield {"kind": "pair", "images": [first, second], "first": float(winner == first)}
        elif winner.lower() in _FIRST | _SECOND:
            yield {"kind": "pair", "images": [first, second], "first": float(winner.lower() in _FIRST)}
        elif winner.lower() in _TIE:
            yield {"kind": "pair", "images": [first, second], "first": 0.5}
        else:
            problems.append(f"row {number}: winner {winner!r} is neither {first} nor {second} nor a tie: left out")


def _rankings(rows: list[dict[str, Any]], problems: list[str]) -> Iterable[dict[str, Any]]:
    views: dict[str, dict[str, float]] = defaultdict(dict)
    for number, row in enumerate(rows, 1):
        name, rank = _name(row, "image", problems, number), to_number(row.get("rank"))
        rater = str(row.get("rater") or "")
        view = f"{row.get('view')} by {rater}" if rater else str(row.get("view"))
        if not name:
            continue
        if rank is None:
            problems.append(f"row {number}: {name}: rank {row.get('rank')!r} is no finite number: left out")
        elif name in views[view]:
            problems.append(
                f"row {number}: {name} stands in view {view} twice: left out; name the raters in column rater"
            )
        else:
            views[view][name] = rank
    for view, ranks in views.items():
        if len(set(ranks.values())) < len(ranks):
            problems.append(f"view {view}: two images share a rank: left out; put ties into votes")
        elif len(ranks) < 2:
            problems.append(f"view {view}: holds one image: left out")
        else:
            yield {"kind": "ranking", "images": sorted(ranks, key=ranks.__getitem__), "view": view}


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table; numbers in it are read, so that decimal commas mean what they do in that table."""
    if path.suffix.lower() != ".jsonl":
        table = read_table(path)
        numbers = {"score", "rating", "rank", "confidence"}
        return [
            {name: _read_number(table.number(cell), cell) if name in numbers else cell for name, cell in row.items()}
            for row in table
        ]
    try:
        rows = [json.loads(line) for line in read_text(path, "table").split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON lines: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold one JSON object a line")
    return rows


def _read_number(number: float | None, cell: str) -> float | str:
    return cell if number is None else number


def _name(row: dict[str, Any], column: str, problems: list[str], number: int) -> str:
    """Return an image's name, empty (and why is noted) where it is missing or leads out of the images' folder."""
    name = str(row.get(column) if row.get(column) is not None else "").strip()
    if not name:
        problems.append(f"row {number}: no image: left out")
        return ""
    try:
        return check_name(name)
    except ValueError as error:
        problems.append(f"row {number}: {printable(str(error))}: left out")
        return ""
