"""Tables of human scores: a CSV with an image, its MOS and perhaps a standard error, group and split on each row."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from leafiqa.errors import InputError

IMAGE_COLUMNS = ("image", "image_name", "filename", "file_name", "file", "name", "path", "img")
MOS_COLUMNS = ("mos",)
_SPREAD_COLUMNS = ("mos_se", "mos_std", "std")


@dataclass(frozen=True)
class Labelled:
    """One image with its human score.

    Attributes:
        image: its name as the table writes it.
        path: where its file is.
        mos: mean opinion score, higher meaning better.
        spread: standard error of the MOS, or the ratings' standard deviation (then all images are taken to have as
            many ratings); only its ratios between images matter. None where the table has none.
        group: images of one group belong on one side of any split (one prompt, one scene); None where not given.
        part: what the image is broken down by, such as its generator; None where no column was asked for.
    """

    image: str
    path: Path
    mos: float
    spread: float | None = None
    group: str | None = None
    part: str | None = None


@dataclass
class MosTable:
    """The usable rows of a table.

    Attributes:
        rows: one for each image, in the table's order.
        problems: what was left out or put together, one sentence each.
        elsewhere: files of the rows of other splits, with or without a usable score, where one split was asked for.
        scale: ends of the MOS scale where they are known.
    """

    rows: list[Labelled] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    elsewhere: set[Path] = field(default_factory=set)
    scale: tuple[float, float] | None = None


def pick_column(columns: list[str], wanted: str | None, known: tuple[str, ...], what: str, where: str) -> str:
    """Return the column that is meant: the one named, else the first known one, whatever its capitals.

    Raises:
        InputError: there is no such column.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise InputError(f"{where} has no column {wanted!r}; it has {columns}")
    if (found := find_column(columns, known)) is not None:
        return found
    raise InputError(f"{where} has no {what} column (one of {', '.join(known)}); it has {columns}; name the one meant")


def find_column(columns: list[str], known: tuple[str, ...]) -> str | None:
    """Return the first known column, whatever its capitals and the blanks around it; None if there is none."""
    lower = {column.strip().lower(): column for column in reversed(columns)}
    return next((lower[name] for name in known if name in lower), None)


def read_mos(
    table: Path,
    *,
    images: Path | None = None,
    image_column: str | None = None,
    mos_column: str | None = None,
    split: str | None = None,
    part_column: str | None = None,
) -> MosTable:
    """Read a table of human scores.

    Rows that cannot be used (no file, no number, a number that is not finite) are left out and reported. An image
    that stands several times gets the mean of its scores, and is reported if they differ.

    Args:
        table: a CSV file with a header. Columns `image` and `mos` (or those named), and if there `mos_se` or
            `mos_std`, `group`, `split`.
        images: folder that the names are relative to; None means the table's own folder.
        image_column: the column with the image's name, where it is called otherwise.
        mos_column: the column with the human score, where it is called otherwise. Must be higher for better images.
        split: use only rows whose `split` is this.
        part_column: a column to break results down by, such as the generator.

    Raises:
        InputError: the table cannot be read, lacks a column, or has no usable row.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            records = list(reader)
            columns = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read table {table}: {error}") from error
    image_column = pick_column(columns, image_column, IMAGE_COLUMNS, "image", str(table))
    mos_column = pick_column(columns, mos_column, MOS_COLUMNS, "MOS", str(table))
    folder = table.parent if images is None else images
    result = MosTable()
    if split is not None:
        split_column = pick_column(columns, None, ("split",), "split", str(table))
        for record in records:
            record[split_column] = (record[split_column] or "").strip()
        found = sorted({record[split_column] for record in records if record[split_column]})
        others = [record for record in records if record[split_column] != split]
        result.elsewhere = {folder / name.strip() for record in others if (name := record[image_column] or "")}
        records = [record for record in records if record[split_column] == split]
        if not records:
            raise InputError(f"{table} has no row of split {split!r}; its splits are {found}")
    spread_column = find_column(columns, _SPREAD_COLUMNS)
    group_column = find_column(columns, ("group",))
    part_column = None if part_column is None else pick_column(columns, part_column, (), "part", str(table))
    seen: dict[str, list[Labelled]] = defaultdict(list)
    for number, record in enumerate(records, 1):
        name = (record[image_column] or "").strip()
        value = to_number(record[mos_column])
        if not name:
            result.problems.append(f"row {number} names no image: left out")
        elif value is None:
            result.problems.append(f"{name}: MOS {record[mos_column]!r} is no finite number: left out")
        elif name not in seen and not (folder / name).is_file():
            result.problems.append(f"{name}: no such file in {folder}: left out")
        else:
            spread = to_number(record[spread_column]) if spread_column else None
            spread = spread if spread is not None and spread > 0 else None
            group, part = ((record[column] or "").strip() if column else "" for column in (group_column, part_column))
            seen[name].append(Labelled(name, folder / name, value, spread, group or None, part or None))
    for name, entries in seen.items():
        scores = [entry.mos for entry in entries]
        if len(entries) > 1 and min(scores) != max(scores):
            result.problems.append(f"{name}: stands {len(entries)} times with different MOS: their mean is used")
        elif len(entries) > 1:
            result.problems.append(f"{name}: stands {len(entries)} times: used once")
        spreads = [entry.spread for entry in entries if entry.spread is not None]
        spread = sum(spreads) / len(spreads) if len(spreads) == len(entries) else None
        result.rows.append(replace(entries[0], mos=sum(scores) / len(scores), spread=spread))
    if not result.rows:
        raise InputError(f"{table} has no usable row out of {len(records)}: {'; '.join(result.problems[:3])}")
    return result


def to_number(value: object) -> float | None:
    """Return a table's cell as a finite number, None if it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
