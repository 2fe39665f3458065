"""What people answered: one line an answer in an append-only file, on disk before the next picture shows."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import math
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from leafiqa.errors import InputError, OutputError
from leafiqa.files import StrPath, as_path, check_output, write_whole
from leafiqa.scoring.rows import csv_line
from leafiqa.scoring.scores import name_in
from leafiqa.tables import safe_cell, to_number

Kind = Literal["rating", "comparison", "skip", "undo"]
Phase = Literal["warm-up", "first", "repeat"]

COLUMNS = ("answer", "rater", "kind", "image", "other", "value", "phase", "seconds", "time")
_HEADER = ",".join(COLUMNS) + "\n"
LOW, HIGH = 1.0, 5.0
# Of a comparison: which of the two looks better.
CHOICES = ("first", "second", "tie")


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        answer: its number in the file, from 1.
        rater: who gave it.
        kind: "rating" (`value` is 1 bad to 5 excellent), "comparison" (`value` is "first", "second" or "tie"), "skip"
            (`value` is the reason), or "undo" (`value` is the number of the answer that is taken back).
        image: the picture, or the first of two, as its path.
        other: the second of two; empty otherwise.
        value: see `kind`.
        phase: "warm-up" answers are not counted; a "repeat" asks again, unannounced, for a picture rated before.
        seconds: from showing to answering; NaN where not known.
        time: when, ISO 8601 in UTC; empty where not known.
    """

    answer: int
    rater: str
    kind: Kind
    image: str
    other: str = ""
    value: str = ""
    phase: Phase = "first"
    seconds: float = math.nan
    time: str = ""

    @property
    def score(self) -> float:
        """The rating as a number."""
        return float(self.value)


@dataclass
class Answers:
    """Answers that count: what was taken back is gone.

    Attributes:
        answers: in the order given, warm-up and repeats included.
        problems: lines that could not be used.
    """

    answers: list[Answer] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def raters(self) -> list[str]:
        """Names of the raters, in the order of their first answers."""
        return list(dict.fromkeys(answer.rater for answer in self.answers))

    def ratings(self, *, repeats: bool = False) -> list[Answer]:
        """Return the ratings that count, first ones, or, with `repeats`, also those of pictures shown again."""
        phases = ("first", "repeat") if repeats else ("first",)
        return [answer for answer in self.answers if answer.kind == "rating" and answer.phase in phases]

    def comparisons(self) -> list[Answer]:
        """Return the comparisons that count."""
        return [answer for answer in self.answers if answer.kind == "comparison" and answer.phase != "warm-up"]


def is_answers(head: bytes) -> bool:
    """Tell whether a file begins as a file of answers does."""
    return head.startswith(_HEADER.encode())


def without_undone(lines: Iterable[Answer]) -> list[Answer]:
    """Return answers but those that a later line takes back."""
    lines = list(lines)
    undone = {(line.rater, line.value) for line in lines if line.kind == "undo"}
    return [line for line in lines if line.kind != "undo" and (line.rater, str(line.answer)) not in undone]


def read_answers(path: StrPath) -> Answers:
    """Read a file of answers; a torn last line is left out and told.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    place = as_path(path, "the file of ratings")
    try:
        with place.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as error:
        raise InputError(f"cannot read ratings {place}: {error.strerror or error}") from error
    if not text.startswith(_HEADER):
        raise InputError(f"{place} is no file of ratings that leafiqa rate wrote: its header must be {_HEADER.strip()}")
    lines, problems = parse(text, place.parent)
    return Answers(without_undone(lines), [f"{place.name}: {problem}" for problem in problems])


def parse(text: str, folder: Path) -> tuple[list[Answer], list[str]]:
    """Return all lines of a file of answers, undo lines included, and what is wrong with others."""
    lines: list[Answer] = []
    problems = []
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        problems.append("the last line is torn: left out")
    for number, cells in enumerate(csv.reader(io.StringIO(whole, newline=""))):
        if number == 0 or not cells:
            continue
        made = _answer(cells, folder)
        if isinstance(made, str):
            problems.append(f"line {number + 1}: {made}: left out")
        else:
            lines.append(made)
    return lines, problems


def _answer(cells: Sequence[str], folder: Path) -> Answer | str:
    """Return the answer of a line, or what is wrong with it."""
    if len(cells) != len(COLUMNS):
        return f"{len(cells)} cells instead of {len(COLUMNS)}"
    number, rater, kind, image, other, value, phase, seconds, time = cells
    if not re.fullmatch(r"[0-9]{1,12}", number) or not rater or kind not in ("rating", "comparison", "skip", "undo"):
        return "no number, no rater or an unknown kind"
    if phase not in ("warm-up", "first", "repeat"):
        return f"an unknown phase {phase!r}"
    if kind == "rating":
        if not is_rating(value):
            return f"a rating must be a number from {LOW:g} to {HIGH:g}, got {value!r}"
    if kind == "comparison" and value not in CHOICES:
        return f"a comparison must be one of {', '.join(CHOICES)}, got {value!r}"
    first, second = (os.path.normpath(os.path.join(folder, name)) if name else "" for name in (image, other))
    if kind == "comparison" and not other:
        return "a comparison of one picture"
    took = to_number(seconds)
    return Answer(int(number), rater, kind, first, second, value, phase, math.nan if took is None else took, time)  # type: ignore[arg-type]


def is_rating(value: object) -> bool:
    """Tell whether something is a rating as text: a plain number from 1 to 5."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9](\.[0-9]{1,6})?", value):
        return False
    return LOW <= float(value) <= HIGH


class AnswerFile:
    """Appends answers to a file; each is on disk when `append` returns. Usable from several threads.

    Args:
        path: made with its header if it is not there; gone on with if it is, a torn last line cut off.

    Raises:
        OutputError: the file is no file of answers, or there is no such folder.
        InputError: it holds lines that cannot be read: nothing is added to what is damaged.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = as_path(path, "the file of ratings")
        self._folder = os.path.dirname(os.path.abspath(self.path))
        check_output(self.path, overwrite=True, is_ours=is_answers)
        self._lines: list[Answer] = []
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                text = file.read()
            self._lines, problems = parse(text, Path(self._folder))
            if wrong := [problem for problem in problems if "torn" not in problem]:
                raise InputError(f"cannot go on with {self.path}: {wrong[0]}; repair it, or name another file")
            if not text.endswith("\n"):
                write_whole(self.path, text[: text.rfind("\n") + 1])
        else:
            write_whole(self.path, _HEADER)
        self._lock = threading.Lock()
        self._file: IO[bytes] = open(self.path, "ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._lines)

    def answers(self) -> list[Answer]:
        """Return the answers that count so far."""
        with self._lock:
            return without_undone(self._lines)

    def append(self, answer: Answer) -> Answer:
        """Write an answer and return it with its number.

        Raises:
            OutputError: the disk is full or the like; nothing of the answer then counts.
        """
        with self._lock:
            numbered = replace(answer, answer=max((line.answer for line in self._lines), default=0) + 1)
            before = self._file.seek(0, os.SEEK_END)
            try:
                # One write: a kill leaves all of the line or a torn one, which is cut off later.
                data = self._line(numbered).encode("utf-8", "surrogateescape")
                if self._file.write(data) != len(data):  # a disk that is nearly full takes a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._file.truncate(before)
                raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
            self._lines.append(numbered)
            return numbered

    def _line(self, answer: Answer) -> str:
        images = [safe_cell(name_in(name, self._folder)) if name else "" for name in (answer.image, answer.other)]
        seconds = "" if math.isnan(answer.seconds) else f"{answer.seconds:.2f}"
        kind = [str(answer.answer), answer.rater, answer.kind]
        return csv_line([*kind, *images, answer.value, answer.phase, seconds, answer.time])
