"""The scores of some files, as a table that prints well and converts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from leafiqa.errors import InputError
from leafiqa.files import check_output, relative_name, write_whole
from leafiqa.scoring.rows import COLUMNS, Row, Writer, format_of
from leafiqa.tables import to_frame

# How each format that `Writer` knows begins; an empty list of rows is a file of scores, too.
_JSON_ROW = rb'\{"image": "(?:[^"\\]|\\.)*", "score": [^,]*, "error": "'
_BEGINS = re.compile(
    rb"image,score,error,note,metric,weights"
    rb"|" + _JSON_ROW + rb"|\[\s*(?:\]|" + _JSON_ROW + rb")"
    rb"|\| image \| [^\n]* \| remark \|\r?\n"
    rb"|# [^\n]*, weights [0-9a-f]{12}[^\n]*\n#(?:  score (?:\+-    se)?)+ image\r?\n"
)


@dataclass(frozen=True)
class Summary:
    """What the scores of one metric are like.

    Attributes:
        metric: the metric's name.
        n: images with a score.
        failed: images without one.
        mean: of the scores; NaN where there are none.
        quartiles: lowest, lower quartile, median, upper quartile, highest.
    """

    metric: str
    n: int
    failed: int
    mean: float
    quartiles: tuple[float, float, float, float, float]

    def __str__(self) -> str:
        failed = f", {self.failed} without a score" if self.failed else ""
        if not self.n:
            return f"{self.metric}: no scores{failed}"
        low, first, median, third, high = self.quartiles
        return (
            f"{self.metric}: {self.n} images, mean {self.mean:.3f}, median {median:.3f}, "
            f"middle half {first:.3f} to {third:.3f}, all {low:.3f} to {high:.3f}{failed}"
        )


class Summariser:
    """Collects scores one by one, and sums them up; eight bytes a score."""

    def __init__(self) -> None:
        self._scores: dict[str, list[float]] = {}
        self._failed: dict[str, int] = {}

    def add(self, row: Row) -> None:
        """Take note of a row."""
        scores = self._scores.setdefault(row.metric, [])
        if row.score is None:
            self._failed[row.metric] = self._failed.get(row.metric, 0) + 1
        else:
            scores.append(row.score)

    def summaries(self) -> list[Summary]:
        """Return a summary for each metric."""
        found = []
        for metric, scores in self._scores.items():
            ends = np.percentile(scores, [0, 25, 50, 75, 100]).tolist() if scores else [float("nan")] * 5
            mean = float(np.mean(scores)) if scores else float("nan")
            found.append(Summary(metric, len(scores), self._failed.get(metric, 0), mean, tuple(ends)))
        return found


@dataclass
class Scores:
    """Scores of files: a sequence of rows.

    Attributes:
        rows: one a file and metric, in the order that the files were given or found in.
        remarks: folders that could not be read, and kinds of pictures that were passed over.
    """

    rows: list[Row]
    remarks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def failed(self) -> list[Row]:
        """Rows without a score."""
        return [row for row in self.rows if row.score is None]

    def best(self, count: int | None = None) -> Scores:
        """Return the rows with scores, best first; the first `count` of them."""
        return Scores(choose(self.rows, top=count or len(self.rows)), self.remarks)

    def summary(self) -> list[Summary]:
        """Return number, mean and quartiles for each metric."""
        collected = Summariser()
        for row in self.rows:
            collected.add(row)
        return collected.summaries()

    def to_dict(self) -> dict[str, list[Any]]:
        """Return a list for each column.

        They are `image`, `score`, `error`, `note`, `metric`, `weights`, `sha256`, and what was asked for beside the
        score, None where a row has none.
        """
        rows = [row.to_dict() for row in self.rows]
        return {column: [row.get(column) for row in rows] for column in (*COLUMNS, *self._extra())}

    def _extra(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for row in self.rows for name in row.beside))

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return to_frame(self.to_dict())

    def save(self, path: str | os.PathLike[str], *, format: str | None = None, overwrite: bool = False) -> None:
        """Write the rows as `leafiqa score -o` does; the format follows from the ending.

        Args:
            path: `.csv`, `.jsonl`, `.json`, `.md` or `.txt`.
            format: the format, whatever the ending.
            overwrite: whether an existing file of scores may be replaced.

        Raises:
            OutputError: the file exists, is one of the images, or there is no such folder.
            InputError: an unknown ending.
        """
        kind = format_of(path, format)
        check_output(path, inputs=[row.image for row in self.rows], overwrite=overwrite, is_ours=is_scores)
        write_whole(path, self.render(kind, os.path.dirname(os.path.abspath(path))))

    def to_csv(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the rows as CSV; see `save`."""
        self.save(path, format="csv", overwrite=overwrite)

    def render(self, format: str, folder: str | None = None) -> str:
        """Return the rows as text; relative names are made relative to `folder`."""
        metrics = list(dict.fromkeys((row.metric, row.weights) for row in self.rows))
        writer = Writer(format, metrics, self._extra())
        named = self.rows if folder is None else [replace(row, image=name_in(row.image, folder)) for row in self.rows]
        return writer.header() + "".join(map(writer.row, named)) + writer.footer()

    def __str__(self) -> str:
        lines = self.render("table").splitlines()
        shown = lines if len(lines) <= 62 else [*lines[:32], f"  ... {len(lines) - 62} more ...", *lines[-30:]]
        return "\n".join([*shown, *(f"# {summary}" for summary in self.summary()), *(f"# {r}" for r in self.remarks)])


def name_in(image: str, folder: str) -> str:
    """Return a file's name as an output in `folder` writes it: absolute names stay, others are relative to it."""
    return image if os.path.isabs(image) else relative_name(image, folder)


def is_scores(head: bytes) -> bool:
    """Tell whether a file begins as a file of scores does, so that it may be replaced or gone on with."""
    return _BEGINS.match(head) is not None


def choose(
    rows: Sequence[Row], *, top: int | None = None, bottom: int | None = None, least: float | None = None
) -> list[Row]:
    """Return rows with a score, those of one image together, in the order of the first metric's scores.

    Args:
        rows: all rows.
        top: only so many images, best first.
        bottom: only so many images, worst first.
        least: only images whose score is at least this.

    Raises:
        InputError: `top` and `bottom` are both given.
    """
    if top is not None and bottom is not None:
        raise InputError("top and bottom exclude each other: give one of them")
    images: dict[str, list[Row]] = {}
    for row in rows:
        images.setdefault(row.image, []).append(row)
    kept = [of for of in images.values() if of[0].score is not None and (least is None or of[0].score >= least)]
    kept.sort(key=lambda of: of[0].score or 0.0, reverse=bottom is None)
    count = bottom if bottom is not None else top
    return [row for of in kept[:count] for row in of]
