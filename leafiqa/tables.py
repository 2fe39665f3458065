"""Read tables that people and programs write: CSV with commas, semicolons or tabs, in any usual encoding.

Nothing is guessed in silence: a row with more cells than the header, or a column that stands twice, is an error that
names it, since one of the numbers in it would otherwise be lost.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.errors import InputError
from leafiqa.files import StrPath, as_path, printable

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+", re.ASCII)


@dataclass
class Table:
    """A table as it stands in a file.

    Attributes:
        path: the file.
        columns: its header's names, stripped of blanks.
        rows: a dict of text by column for each row; missing cells are empty.
        lines: for each row the number of its last line in the file, from 1.
        delimiter: what stands between cells.
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    delimiter: str = ","

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def number(self, cell: str) -> float | None:
        """Return a cell as a finite number, None if it is none; see `to_number`."""
        return to_number(cell, decimal_comma=self.delimiter != ",")

    def column(self, *known: str, wanted: str | None = None) -> str | None:
        """Return the column that is meant.

        Args:
            known: names to look for, the first one first, whatever their capitals.
            wanted: the caller's own name, which goes before them.

        Raises:
            InputError: `wanted` is no column.
        """
        if wanted is not None:
            if wanted.strip() in self.columns:
                return wanted.strip()
            raise InputError(f"{self.path} has no column {wanted!r}; it has {self.columns}")
        lower = {column.lower(): column for column in reversed(self.columns)}
        return next((lower[name] for name in known if name in lower), None)

    def need(self, *columns: str) -> None:
        """Raise an error if a column is missing.

        Raises:
            InputError: the message names what is missing and what is there.
        """
        if lacking := [column for column in columns if column not in self.columns]:
            raise InputError(
                f"{self.path} lacks the column(s) {', '.join(lacking)}; it has {', '.join(self.columns) or 'none'}"
            )


def read_table(path: StrPath) -> Table:
    """Read a table with a header.

    Commas, semicolons and tabs are told apart by the header. UTF-8 with or without a byte order mark and UTF-16 with
    one are read; names of files that are not UTF-8 keep their bytes. Empty rows are skipped.

    Raises:
        InputError: the file cannot be read; a row has more cells than the header (such as a decimal comma in a table
            of commas); a column stands twice; a quote is not closed. The message names the row.
    """
    path = as_path(path, "table")
    text = read_text(path, "table")
    if "\0" in text:
        raise InputError(f"cannot read table {path}: it holds NUL characters; save it as CSV, UTF-8")
    if re.match(r"sep=[,;\t][\r\n]", text):  # a line by which Excel is told the delimiter
        text = text[5:].lstrip("\r\n")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), [])
        columns = [cell.strip() for cell in header]
        repeated = [name for name, count in Counter(map(str.lower, filter(None, columns))).items() if count > 1]
        if repeated:
            raise InputError(f"table {path}: the column {repeated[0]!r} stands twice; take one out or rename it")
        table = Table(path, [name for name in columns if name], delimiter=delimiter)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            unnamed = [cell for name, cell in zip(columns, row) if not name]
            if any(cell.strip() for cell in (*row[len(columns) :], *unnamed)):
                raise InputError(
                    f"table {path}, line {reader.line_num}: {len(row)} cells under {len(table.columns)} columns: "
                    f"{printable(delimiter.join(row))[:120]}. Put quotes around cells that hold a {delimiter!r}, and "
                    "write decimals with a point"
                )
            cells = [*row[: len(columns)], *[""] * (len(columns) - len(row))]
            table.rows.append({name: cell for name, cell in zip(columns, cells) if name})
            table.lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"table {path}, line {reader.line_num}: {error}") from error
    return table


def read_text(path: Path, what: str) -> str:
    """Read a text file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Bytes that are not UTF-8 become surrogates, as in file names.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        content = path.read_bytes() if not path.is_dir() else None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {what} {path}: {getattr(error, 'strerror', None) or error}") from error
    if content is None:
        raise InputError(f"cannot read {what} {path}: it is a folder")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"cannot read {what} {path}: damaged UTF-16; save it as UTF-8") from error
    return content.decode("utf-8-sig", "surrogateescape")


def to_number(value: object, *, decimal_comma: bool = False) -> float | None:
    """Return a table's cell as a finite number, None if it is none.

    Args:
        value: text such as `3.7`, `-1e3` or `3,7`, or a number. A comma that could be one of thousands (`1,234`) is no
            number, unless `decimal_comma`.
        decimal_comma: the table is of semicolons or tabs, where a comma in a number is a decimal comma.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # an integer beyond what a float can hold
            return None
    text = str(value).strip() if value is not None else ""
    if _DECIMAL_COMMA.fullmatch(text) and (decimal_comma or not _THOUSANDS.fullmatch(text)):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def safe_cell(text: str) -> str:
    """Return text for a cell that a spreadsheet does not take for a formula; a file name stays the same file."""
    return f"./{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def cell_of(value: Any) -> str:
    """Return a value as a cell of CSV: six digits of a number, nothing for an undefined one."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return safe_cell(str(value))


def without_nan(value: Any) -> Any:
    """Return a value for JSON, with None for each number that is undefined or without end."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _delimiter(text: str) -> str:
    """Return the delimiter that the first line with anything in it uses most, outside quotes."""
    first = next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", first)
    return max((",", ";", "\t"), key=outside.count)


def to_frame(content: Any) -> Any:
    """Return rows, or lists by column, as a pandas DataFrame.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise InputError("to_pandas() needs pandas: pip install pandas") from error
    return pandas.DataFrame(content)
