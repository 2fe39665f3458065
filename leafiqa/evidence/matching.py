"""Judgments against the files as they are now: of those that were moved, and of those that were replaced."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from leafiqa.evidence.files import Evidence
from leafiqa.files import StrPath, sha256_if_readable
from leafiqa.images.find import images_below
from leafiqa.images.loading import load_ahead


@dataclass(frozen=True)
class Matched:
    """Evidence on the files of a folder.

    Attributes:
        evidence: what is left, under the names that the files have now.
        remarks: a sentence for each file that was replaced, and one for those that were moved.
        moved: the present names of judged files that are elsewhere than when they were judged.
    """

    evidence: Evidence
    remarks: list[str]
    moved: dict[str, str]


def match_to_folder(evidence: Evidence, folder: StrPath) -> Matched:
    """Follow judged files that were moved or renamed, and leave out judgments of files that were replaced.

    Both go by the sha256 that a judgment may record. A file that is not in its place is looked for by its content,
    in all of the folder. One that is in its place with another content is another picture.

    Args:
        evidence: a teacher's judgments.
        folder: what the images' names are relative to. A file that is missing says nothing about its judgments.

    """
    folder = Path(folder)
    digests = _recorded(evidence)
    found = load_ahead(lambda name: sha256_if_readable(folder / name), digests)
    now = {name: digest for name, digest in zip(digests, found) if digest is not None}
    moved = {}
    for name, (place, digest) in _find({name: digests[name] for name in digests if name not in now}, folder).items():
        moved[name], now[name] = place, digest
    stale: dict[str, int] = {}

    def current(name: str, digest: str) -> bool:
        if now.get(name, digest) == digest:
            return True
        stale[name] = stale.get(name, 0) + 1
        return False

    kept = replace(evidence, points=defaultdict(list), pairs=[])
    for name, points in evidence.points.items():
        for point in points:
            if point.sha256 is None or current(name, point.sha256):
                place = moved.get(name, name)
                kept.points[place].append(replace(point, image=place))
    for pair in evidence.pairs:
        # All, not any: each file that was replaced is counted.
        if pair.sha256 is None or all([current(*one) for one in zip((pair.first, pair.second), pair.sha256)]):
            first, second = (moved.get(name, name) for name in (pair.first, pair.second))
            if first != second:  # two names of one picture tell nothing
                kept.pairs.append(replace(pair, first=first, second=second))
    remarks = [
        f"{name}: is not the file that was judged, its sha256 differs: {count} judgment(s) left out"
        for name, count in sorted(stale.items())
    ]
    if moved:
        name, place = min(moved.items())
        remarks.append(f"{len(moved)} judged file(s) were moved and found by their content, such as {name} -> {place}")
    return Matched(kept, remarks, moved)


def _recorded(evidence: Evidence) -> dict[str, set[str]]:
    """Return the sha256 that judgments record of each image; several where it was judged before and after a change."""
    found: dict[str, set[str]] = {}

    def note(name: str, digest: str | None) -> None:
        if digest is not None:
            found.setdefault(name, set()).add(digest)

    for points in evidence.points.values():
        for point in points:
            note(point.image, point.sha256)
    for pair in evidence.pairs:
        for name, digest in zip((pair.first, pair.second), pair.sha256 or ()):
            note(name, digest)
    return found


def _find(wanted: dict[str, set[str]], folder: Path) -> dict[str, tuple[str, str]]:
    """Look in a folder for the contents of files that are not in their place; return name -> (where it is, sha256)."""
    if not wanted or not folder.is_dir():
        return {}
    places: dict[str, str] = {}
    names = images_below(folder)
    for name, digest in zip(names, load_ahead(lambda name: sha256_if_readable(folder / name), names)):
        if digest is not None:
            places.setdefault(digest, name)
    return {
        name: (places[digest], digest) for name, digests in wanted.items() for digest in digests if digest in places
    }
