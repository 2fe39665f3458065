"""One row of results, and rows as text: CSV, JSON lines, JSON, a Markdown table, a plain table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from leafiqa.errors import InputError
from leafiqa.files import printable
from leafiqa.scoring.columns import STANDARD_ERROR, in_words
from leafiqa.tables import safe_cell

# By file name ending.
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".json": "json", ".md": "markdown", ".txt": "table"}
COLUMNS = ("image", "score", "error", "note", "metric", "weights", "sha256")
# Of a file's sha256 as many digits are kept: enough to tell that it was replaced.
HASH_DIGITS = 16


def digits_of(content: bytes) -> str:
    """Return the digits of a file's sha256 that rows hold, of its content."""
    return hashlib.sha256(content).hexdigest()[:HASH_DIGITS]


@dataclass(frozen=True)
class Row:
    """The result for one file and metric.

    Attributes:
        image: the path as it was given; in a file, relative to that file's folder unless it was absolute.
        score: the score, None if there is none.
        error: why there is no score, empty if there is one.
        note: remarks from decoding, such as "animated: first of 12 frames".
        metric: name of the metric.
        weights: first twelve digits of the weights' sha256.
        sha256: first sixteen digits of the image file's sha256; empty where it could not be read.
        beside: what was asked for beside the score, by the name of its column: `standard_error`, `defect_blur`; None
            where there is no such thing: defects that this metric does not know, details of a small picture.
    """

    image: str
    score: float | None
    error: str = ""
    note: str = ""
    metric: str = ""
    weights: str = ""
    sha256: str = ""
    beside: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Build from what `to_dict` returned.

        Raises:
            TypeError: it lacks an image or a score.
            ValueError: a column beside the usual ones holds something else than a number.
        """
        names = {of.name for of in fields(cls)} - {"beside"}
        beside = {name: value for name, value in values.items() if name not in names}
        if odd := [name for name, value in beside.items() if value is not None and type(value) not in (int, float)]:
            raise ValueError(f"{odd[0]} is no number")
        return cls(**{name: value for name, value in values.items() if name in names}, beside=beside)

    def to_dict(self) -> dict[str, str | float | None]:
        """Return the fields by name, then what is beside the score; the score is rounded to six decimals."""
        own = {name: value for name, value in asdict(self).items() if name != "beside"}
        return {**own, "score": None if self.score is None else round(self.score, 6), **self.beside}


def format_of(output: str | os.PathLike[str] | None, format: str | None) -> str:
    """Return the format to write: the one named, else the one that the output's ending stands for.

    Raises:
        InputError: neither tells.
    """
    known = sorted(set(FORMATS.values()))
    if format is not None:
        if format not in known:
            raise InputError(f"format must be one of {', '.join(known)}, got {format!r}")
        return format
    if output is None or (os.path.exists(output) and not os.path.isfile(output)):
        return "table"
    ending = os.path.splitext(os.fspath(output))[1].lower()
    if ending not in FORMATS:
        raise InputError(
            f"output {os.fspath(output)}: its ending must be one of {', '.join(FORMATS)}, or a format be named: "
            f"{', '.join(known)}"
        )
    return FORMATS[ending]


class Writer:
    """Turns rows into text.

    Args:
        format: one of the values of `FORMATS`.
        metrics: name and short hash of each metric; several make the plain and the Markdown table wider.
        extra: names of columns beside the usual ones; tables tell them in words.
    """

    def __init__(self, format: str, metrics: Iterable[tuple[str, str]], extra: Iterable[str] = ()) -> None:
        self._extra = tuple(extra)
        self.format, self._metrics = format, [(printable(name), digest) for name, digest in metrics]
        self._held: list[Row] = []
        self._first = True

    def header(self) -> str:
        """Return what comes before the first row."""
        if self.format == "csv":
            return ",".join([*COLUMNS, *self._extra]) + "\n"
        if self.format == "json":
            return "["
        if self.format == "markdown":
            names = [f"{name} ({digest})" for name, digest in self._metrics]
            return _markdown(["image", *names, "remark"]) + _markdown(["---", *["---:"] * len(names), "---"])
        if self.format == "table":
            told = "; ".join(f"{name}, weights {digest}" for name, digest in self._metrics)
            score = "  score +-    se" if STANDARD_ERROR in self._extra else "  score "
            return f"# {told}\n#{score * len(self._metrics)} image\n"
        return ""

    def row(self, row: Row) -> str:
        """Return one row as text; in a table of several metrics, nothing until the last one's row of an image."""
        if self.format == "jsonl":
            return json.dumps(row.to_dict()) + "\n"
        if self.format == "json":
            comma, self._first = "" if self._first else ",", False
            return f"{comma}\n  {json.dumps(row.to_dict())}"
        if self.format == "csv":
            score = "" if row.score is None else f"{row.score:.6f}"
            cells = [row.image, score, row.error, row.note, row.metric, row.weights, row.sha256]
            beside = ["" if (value := row.beside.get(name)) is None else str(value) for name in self._extra]
            return csv_line([*(safe_cell(cell) if i != 1 else cell for i, cell in enumerate(cells)), *beside])
        self._held.append(row)
        if len(self._held) < len(self._metrics):
            return ""
        rows, self._held = self._held, []
        return self._wide(rows)

    def footer(self) -> str:
        """Return what comes after the last row."""
        return "\n]\n" if self.format == "json" else ""

    def _wide(self, rows: list[Row]) -> str:
        name = printable(rows[0].image)
        error = next((row.error for row in rows if row.score is None), "")
        if self.format == "markdown":
            scores = ["" if row.score is None else f"{row.score:.4f}{_within(row, ' ± ')}" for row in rows]
            return _markdown([name, *scores, printable(error or _remark(rows))])
        if all(row.score is None for row in rows):
            return f"  error  {name}: {printable(error)}\n"
        room = 16 if STANDARD_ERROR in self._extra else 8
        scores = [
            ("error" if row.score is None else f"{row.score:.4f}{_within(row, ' +- ')}").rjust(room) for row in rows
        ]
        note = printable(_remark(rows))
        return f"{''.join(scores)} {name}{f'  ({note})' if note else ''}\n"


def _within(row: Row, between: str) -> str:
    error = row.beside.get(STANDARD_ERROR)
    return "" if error is None else f"{between}{error:.3f}"


def _remark(rows: list[Row]) -> str:
    """Return what a table says of an image beside its scores: remarks from decoding, defects that a metric sees."""
    seen = next((words for row in rows if (words := in_words(row.beside))), "")
    return "; ".join(part for part in (rows[0].note, seen) if part)


def csv_line(cells: Iterable[str]) -> str:
    """Return cells as one record of CSV."""
    buffer = io.StringIO()
    # Only what stands in the line terminator is put in quotes, and a lone \r ends a record for readers as well.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _markdown(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
