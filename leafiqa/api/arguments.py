"""What the verbs take, in the forms that callers have it in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.errors import InputError
from leafiqa.files import as_path

if TYPE_CHECKING:
    from leafiqa.labels.mos_table import MosTable

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Progress = Callable[[int, int], None]


def as_labels(
    labels: Any,
    images: Any,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    part_column: str | None = None,
    score_columns: tuple[str, ...] = (),
) -> MosTable:
    """Return the table of human scores that a path or a table means."""
    from leafiqa.labels.datasets import read_labels
    from leafiqa.labels.mos_table import MosTable

    if isinstance(labels, MosTable):
        given = {
            "images": images,
            "image_column": image_column,
            "mos_column": mos_column,
            "split": split,
            "by (but group)": part_column,
            "columns": score_columns or None,
        }
        if wrong := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{wrong[0]} is for a table that is read from a file; a MosTable is taken as it is")
        return labels
    return read_labels(
        labels,
        images=images,
        image_column=image_column,
        mos_column=mos_column,
        split=split,
        part_column=part_column,
        score_columns=score_columns,
    )


def as_columns(columns: Any) -> list[str]:
    """Return the names of columns that a caller passed.

    Raises:
        InputError: it is no list of names.
    """
    if not isinstance(columns, (list, tuple, set)) or not all(isinstance(column, str) for column in columns):
        raise InputError(f"columns must be a list of columns' names, got {columns!r}")
    return list(columns)


def as_files(files: Any) -> list[Path]:
    """Return the files that one path, or several, mean; none for None.

    Raises:
        InputError: something is no path.
    """
    if files is None:
        return []
    given = [files] if isinstance(files, (str, os.PathLike)) else files
    if not isinstance(given, Iterable):
        raise InputError(f"files must be a path or several, got {files!r}")
    return [as_path(file, "a file of evidence") for file in given]
