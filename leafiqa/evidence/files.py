"""Read evidence files and add to them."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leafiqa.errors import EvidenceError
from leafiqa.evidence.records import Pair, Point, parse
from leafiqa.files import StrPath, sha256_of, write_whole


@dataclass
class Evidence:
    """A teacher's judgments.

    Attributes:
        points: for each image its point-wise judgments.
        pairs: comparisons, direct ones and those that rankings stand for.
        lines: number of records used.
        skipped: lines that could not be used, as `(file name:line, why)`.
        torn: files whose last line was cut off, as an interrupted writer leaves it.
        teachers: number of records by who judged, where the records say so.
        raters: the people who rated, where the records name them.
    """

    points: dict[str, list[Point]] = field(default_factory=lambda: defaultdict(list))
    pairs: list[Pair] = field(default_factory=list)
    lines: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    teachers: Counter[str] = field(default_factory=Counter)
    raters: set[str] = field(default_factory=set)

    @property
    def images(self) -> set[str]:
        """Names of all images with any judgment."""
        return set(self.points) | {name for pair in self.pairs for name in (pair.first, pair.second)}


def restrict(evidence: Evidence, keep: Collection[str]) -> Evidence:
    """Return the judgments that are of images to keep; pairs with another image are left out."""
    kept = replace(evidence, points=defaultdict(list), pairs=[])
    for name, points in evidence.points.items():
        if name in keep:
            kept.points[name] += points
    kept.pairs = [pair for pair in evidence.pairs if pair.first in keep and pair.second in keep]
    return kept


def read_evidence(
    paths: StrPath | Iterable[StrPath],
    keep: set[str] | None = None,
    moved: Mapping[Path, Callable[[float], float]] | None = None,
) -> Evidence:
    """Read evidence files of the format in `leafiqa.evidence.records`.

    A line that cannot be used is left out and reported. A last line without its line break that is no JSON is what an
    interrupted writer leaves; it is left out and reported as torn. Views of different files are different views.

    Args:
        paths: a JSON-lines file, or several.
        keep: names of images to keep; judgments of others are left out, and pairs with one of them too.
        moved: by file, what brings its scores to another scale.

    Raises:
        EvidenceError: a file cannot be read, or nothing usable is left.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    evidence = _read(files, keep, moved or {})
    if not evidence.points and not evidence.pairs:
        why = f"; the first: {evidence.skipped[0][0]}: {evidence.skipped[0][1]}" if evidence.skipped else ""
        where = "" if keep is None else " (none on the images asked for; do the names read alike?)"
        raise EvidenceError(
            f"no usable evidence in {[str(path) for path in files]}: {evidence.lines} good lines{where}, "
            f"{len(evidence.skipped)} bad ones{why}"
        )
    return evidence


def _read(paths: list[Path], keep: set[str] | None, moved: Mapping[Path, Callable[[float], float]]) -> Evidence:
    evidence = Evidence()
    views: dict[str, Path] = {}
    for path in paths:
        try:
            # Not splitlines: JSON strings may hold U+2028 and its like.
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise EvidenceError(f"cannot read evidence {path}: {error.strerror}") from error
        judged: list[tuple[list[Point | Pair], dict[str, Any]]] = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:  # of JSON and of UTF-8; nested without end
                if number == len(lines):
                    evidence.torn.append(path.name)
                else:
                    evidence.skipped.append((f"{path.name}:{number}", f"no JSON: {error}"))
                continue
            try:
                judgments = parse(record)
            except (ValueError, OverflowError) as error:
                evidence.skipped.append((f"{path.name}:{number}", str(error)))
                continue
            evidence.lines += 1
            judged.append((judgments, record))
        asked = {name for judgments, _ in judged for one in judgments for name in getattr(one, "defects", None) or ()}
        for judgments, record in judged:
            mended = [_in_file(_complete(one, asked, moved.get(path)), path, views) for one in judgments]
            # All judgments of a line are looked at: any() would stop at the first.
            if any([_add(evidence, judgment, keep) for judgment in mended]):
                _note_who(evidence, record)
    return evidence


def _add(evidence: Evidence, judgment: Point | Pair, keep: set[str] | None) -> bool:
    """Add a judgment if it is of images to keep, and tell whether it was."""
    about = {judgment.image} if isinstance(judgment, Point) else {judgment.first, judgment.second}
    if keep is not None and not about <= keep:
        return False
    if isinstance(judgment, Point):
        evidence.points[judgment.image].append(judgment)
    else:
        evidence.pairs.append(judgment)
    return True


def _complete(judgment: Point | Pair, asked: set[str], move: Callable[[float], float] | None) -> Point | Pair:
    """Return the judgment with all defects that its file names, and with its score on the scale that is wanted."""
    if isinstance(judgment, Pair):
        return judgment
    if move is not None:
        judgment = replace(judgment, score=move(judgment.score))
    if judgment.defects is not None:
        judgment = replace(judgment, defects={**dict.fromkeys(sorted(asked), 0.0), **judgment.defects})
    return judgment


def _in_file(judgment: Point | Pair, path: Path, views: dict[str, Path]) -> Point | Pair:
    """Return the judgment, its view under a name of its own where another file has a view of that name."""
    if judgment.view is None or views.setdefault(judgment.view, path) == path:
        return judgment
    return replace(judgment, view=f"{judgment.view} ({path})")


def _note_who(evidence: Evidence, record: dict[str, Any]) -> None:
    if isinstance(teacher := record.get("teacher"), str) and teacher:
        evidence.teachers[teacher] += 1
    if isinstance(rater := record.get("rater"), str) and rater:
        evidence.raters.add(rater)


def cite(paths: Iterable[Path]) -> str:
    """Say for a card which files of evidence were used: their names, not their places, the hash, and who judged.

    A file without anything usable, which others may make up for, is named like the rest.
    """
    return ", ".join(
        f"{path.name} (sha256 {sha256_of(path)[:12]}"
        + "".join(f", {count} by {who}" for who, count in _read([path], None, {}).teachers.most_common())
        + ")"
        for path in paths
    )


def is_evidence(head: bytes) -> bool:
    """Tell whether a file begins as evidence does, perhaps torn, so that it may be added to."""
    first, complete, _ = head.partition(b"\n")
    return not head.strip() or (first.startswith(b"{") and (b'"kind"' in first or not complete))


def append_evidence(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add records to an evidence file and wait until they are on the disk; a torn last line is ended first.

    Args:
        path: the file; made if it does not exist.
        records: records of the format; each is checked before any is written.

    Raises:
        ValueError: a record is not of the format.
    """
    lines = []
    for record in records:
        parse(record)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    if path.exists() and not path.is_file():  # such as /dev/stdout
        write_whole(path, "".join(lines))
        return
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())
