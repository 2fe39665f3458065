"""Tables of human scores: a CSV with an image, its MOS and perhaps a standard error, group and split on each row."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.files import StrPath, as_path, printable
from leafiqa.tables import Table, read_table, to_number

__all__ = ["IMAGE_COLUMNS", "MOS_COLUMNS", "Labelled", "MosTable", "read_mos", "to_number"]

IMAGE_COLUMNS = ("image", "image_name", "filename", "file_name", "file", "name", "path", "img")
MOS_COLUMNS = ("mos",)
_ERROR_COLUMNS = ("mos_se", "mos_std", "std")
# How many single problems are told, before the rest is counted.
_TOLD = 20


@dataclass(frozen=True)
class Labelled:
    """One image with its human score.

    Attributes:
        image: its name as the table writes it.
        path: where its file is.
        mos: mean opinion score, higher meaning better.
        standard_error: of the MOS, or the ratings' standard deviation (then all images are taken to have as many
            ratings); only its ratios between images matter. None where the table has none.
        group: images of one group belong on one side of any split (one prompt, one scene); None where not given.
        part: what the image is broken down by, such as its generator; None where no column was asked for.
        stands_for: how many images this one was chosen to stand for, as `leafiqa select` writes it; 1 where not given.
        others: scores of other metrics that the table holds, by column, None where a cell is no number.
    """

    image: str
    path: Path
    mos: float
    standard_error: float | None = None
    group: str | None = None
    part: str | None = None
    stands_for: float = 1.0
    others: dict[str, float | None] = field(default_factory=dict)


@dataclass
class MosTable:
    """The usable rows of a table.

    Attributes:
        rows: one for each image, in the table's order.
        problems: what was left out or put together, one sentence each.
        elsewhere: files of the rows of other splits, with or without a usable score, where one split was asked for.
            They are held out: nothing may be learned from them.
        scale: ends of the MOS scale where they are known.
        name: what cards and reports call it.
        folder: the folder that its images' names are relative to.
        file: the file that it was read from; None where it was made otherwise.
    """

    rows: list[Labelled] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    elsewhere: set[Path] = field(default_factory=set)
    scale: tuple[float, float] | None = None
    name: str = "labels"
    folder: Path = Path()
    file: Path | None = None


def pick_column(table: Table, wanted: str | None, known: tuple[str, ...], what: str) -> str:
    """Return the column that is meant: the one named, else the first known one, whatever its capitals.

    Raises:
        InputError: there is no such column.
    """
    found = table.column(*known, wanted=wanted)
    if found is None:
        raise InputError(
            f"{table.path} has no {what} column (one of {', '.join(known)}); it has {table.columns}; name the one meant"
        )
    return found


def read_mos(
    table: StrPath,
    *,
    images: StrPath | None = None,
    image_column: str | None = None,
    mos_column: str | None = None,
    split: str | None = None,
    part_column: str | None = None,
    score_columns: tuple[str, ...] = (),
) -> MosTable:
    """Read a table of human scores.

    Rows that cannot be used (no file, no number) are left out and reported; rows without a MOS yet are counted. An
    image that stands several times gets the mean of its scores, and is reported if they differ.

    Args:
        table: a CSV file with a header, see `leafiqa.tables.read_table`. Columns `image` and `mos` (or those named),
            and if there `mos_se` or `mos_std`, `group`, `split`, `stands_for`.
        images: folder that the names are relative to; None means the table's own folder.
        image_column: the column with the image's name, where it is called otherwise.
        mos_column: the column with the human score, where it is called otherwise. Must be higher for better images.
        split: use only rows whose `split` is this.
        part_column: a column to break results down by, such as the generator.
        score_columns: columns with scores of other metrics, to be compared with.

    Raises:
        InputError: the table cannot be read, lacks a column, has a row with more cells than its header, or has no
            usable row.
    """
    found = read_table(table)
    image_column = pick_column(found, image_column, IMAGE_COLUMNS, "image")
    mos_column = pick_column(found, mos_column, MOS_COLUMNS, "MOS")
    part_column = None if part_column is None else pick_column(found, part_column, (), "part")
    score_columns = tuple(pick_column(found, name, (), "score") for name in score_columns)
    error_column, group_column = found.column(*_ERROR_COLUMNS), found.column("group")
    weight_column = found.column("stands_for")
    folder = found.path.parent if images is None else as_path(images, "images")
    result = MosTable(name=found.path.name, folder=folder, file=found.path)
    numbered = list(zip(found.lines, found.rows))
    if split is not None:
        split_column = pick_column(found, None, ("split",), "split")
        known = sorted({row[split_column].strip() for row in found if row[split_column].strip()})
        others = [row for row in found if row[split_column].strip() != split]
        result.elsewhere = {folder / name for row in others if (name := row[image_column].strip())}
        numbered = [(line, row) for line, row in numbered if row[split_column].strip() == split]
        if not numbered:
            raise InputError(f"{found.path} has no row of split {split!r}; its splits are {known}")
    seen: dict[str, list[Labelled]] = defaultdict(list)
    unrated, missing = 0, 0
    problems: list[str] = []
    for line, row in numbered:
        name = row[image_column].strip()
        value = found.number(row[mos_column])
        if not name:
            problems.append(f"line {line} names no image: left out")
        elif not row[mos_column].strip():
            unrated += 1
        elif value is None:
            problems.append(f"line {line}, {printable(name)}: MOS {row[mos_column]!r} is no finite number: left out")
        elif name not in seen and not os.path.isfile(folder / name):
            missing += 1
            problems.append(f"line {line}, {printable(name)[:200]}: no such file in {folder}: left out")
        else:
            error = found.number(row[error_column]) if error_column else None
            weight = found.number(row[weight_column]) if weight_column else None
            seen[name].append(
                Labelled(
                    name,
                    folder / name,
                    value,
                    standard_error=error if error is not None and error > 0 else None,
                    group=(row[group_column].strip() if group_column else "") or None,
                    part=(row[part_column].strip() if part_column else "") or None,
                    stands_for=weight if weight is not None and weight > 0 else 1.0,
                    others={column: found.number(row[column]) for column in score_columns},
                )
            )
    result.problems = problems[:_TOLD]
    if len(problems) > _TOLD:
        result.problems.append(f"and {len(problems) - _TOLD} more rows left out, {missing} in all for want of a file")
    if unrated:
        result.problems.append(f"{unrated} row(s) have no MOS yet: left out")
    for name, entries in seen.items():
        result.rows.append(_together(name, entries, result.problems))
    if not result.rows:
        raise InputError(
            f"{found.path} has no usable row out of {len(numbered)}: {'; '.join(result.problems[:3]) or 'it is empty'}"
        )
    return result


def _together(name: str, entries: list[Labelled], problems: list[str]) -> Labelled:
    """Return one label out of all that the table says of an image."""
    scores = [entry.mos for entry in entries]
    if len(entries) > 1 and min(scores) != max(scores):
        problems.append(f"{printable(name)}: stands {len(entries)} times with different MOS: their mean is used")
    elif len(entries) > 1:
        problems.append(f"{printable(name)}: stands {len(entries)} times: used once")
    errors = [entry.standard_error for entry in entries if entry.standard_error is not None]
    error = sum(errors) / len(errors) if len(errors) == len(entries) else None
    return replace(entries[0], mos=sum(scores) / len(scores), standard_error=error)
