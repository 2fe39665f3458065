"""Rows of results, and writing and reading them back as CSV, JSON lines or a plain table."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from leafiqa.errors import InputError

FORMATS = ("table", "csv", "jsonl")
_COLUMNS = ("image", "score", "error", "note", "metric", "weights")


@dataclass(frozen=True)
class Row:
    """The result for one file.

    Attributes:
        image: the path as it was given.
        score: the score, None if there is none.
        error: why there is no score, empty if there is one.
        note: remarks from decoding, such as "animated: first of 12 frames".
        metric: name of the metric.
        weights: first twelve digits of the weights' sha256.
    """

    image: str
    score: float | None
    error: str
    note: str
    metric: str
    weights: str


def header(format: str, metric: str, weights: str) -> str:
    """Return what comes before the first row, with its newline; empty for JSON lines."""
    if format == "csv":
        return ",".join(_COLUMNS) + "\n"
    if format == "table":
        return f"# {metric}, weights {weights}\n#  score  image\n"
    return ""


def render(row: Row, format: str) -> str:
    """Return one row as text, with its newline. Scores are written to six decimals."""
    score = None if row.score is None else round(row.score, 6)
    if format == "jsonl":
        return json.dumps({**asdict(row), "score": score}) + "\n"
    if format == "csv":
        buffer = io.StringIO()
        text = "" if score is None else f"{score:.6f}"
        csv.writer(buffer, lineterminator="\n").writerow(
            [row.image, text, row.error, row.note, row.metric, row.weights]
        )
        return buffer.getvalue()
    if score is None:
        return f"  error  {_one_line(row.image)}: {_one_line(row.error)}\n"
    return f"{score:8.4f} {_one_line(row.image)}{f'  ({_one_line(row.note)})' if row.note else ''}\n"


def _one_line(text: str) -> str:
    """Escape line breaks and control characters: a file name must not forge a row."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)


def read_scored(path: Path, format: str, metric: str, weights: str) -> list[Row]:
    """Read back the complete rows of an interrupted output file. A torn last line is left out.

    Args:
        path: the output file.
        format: "csv" or "jsonl".
        metric: name of the metric that is to go on.
        weights: short hash of its weights.

    Raises:
        InputError: the file is of another format, or was made with another metric or other weights.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    text = text[: text.rfind("\n") + 1]
    rows: list[Row] = []
    try:
        if format == "jsonl":
            # Not splitlines: JSON strings may hold U+2028 and its like.
            rows = [Row(**json.loads(line)) for line in text.split("\n") if line]
            if wrong := [row for row in rows if not isinstance(row.score, (int, float, type(None)))]:
                raise ValueError(f"a score is {wrong[0].score!r}")
        elif text:
            records = list(csv.reader(io.StringIO(text, newline="")))
            if tuple(records[0]) != _COLUMNS:
                raise ValueError(f"its header is {records[0]}")
            for image, score, error, note, name, digest in records[1:]:
                rows.append(Row(image, float(score) if score else None, error, note, name, digest))
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"--resume: {path} is no {format} output of leafiqa ({error}); choose another -o") from error
    for row in rows:
        if (row.metric, row.weights) != (metric, weights):
            raise InputError(
                f"--resume: {path} was made with {row.metric} ({row.weights}), not {metric} ({weights}); "
                "scores of two models do not mix, choose another -o"
            )
    return rows
