"""Judgments of files that were replaced since: they are of other pictures, and are left out."""

from __future__ import annotations

from pathlib import Path

from leafiqa.evidence.files import Evidence
from leafiqa.evidence.records import Pair, Point
from leafiqa.model.checkpoint import sha256_of


def drop_stale(evidence: Evidence, folder: Path) -> tuple[Evidence, list[str]]:
    """Leave out the judgments whose recorded sha256 is not that of the file as it is now.

    Args:
        evidence: a teacher's judgments.
        folder: what the images' names are relative to. A file that is missing says nothing about its judgments.

    Returns:
        What is left, and a sentence for each image with judgments left out.
    """
    now: dict[str, str | None] = {}
    stale: dict[str, int] = {}

    def current(name: str, digest: str) -> bool:
        if name not in now:
            try:
                now[name] = sha256_of(folder / name)
            except OSError:
                now[name] = None
        if now[name] in (None, digest):
            return True
        stale[name] = stale.get(name, 0) + 1
        return False

    def of_point(point: Point) -> bool:
        return point.sha256 is None or current(point.image, point.sha256)

    def of_pair(pair: Pair) -> bool:
        return pair.sha256 is None or all(map(current, (pair.first, pair.second), pair.sha256))

    kept = Evidence(lines=evidence.lines, skipped=evidence.skipped, torn=evidence.torn)
    for name, points in evidence.points.items():
        if good := [point for point in points if of_point(point)]:
            kept.points[name] = good
    kept.pairs = [pair for pair in evidence.pairs if of_pair(pair)]
    return kept, [
        f"{name}: is not the file that was judged, its sha256 differs: {count} judgment(s) left out"
        for name, count in sorted(stale.items())
    ]
