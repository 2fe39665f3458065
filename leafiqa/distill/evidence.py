"""Read a teacher's evidence: JSON lines of point-wise judgments and rankings.

Only raw facts are stored; how far each can be trusted is computed from them, here, when they are used.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from leafiqa.errors import EvidenceError


@dataclass
class Evidence:
    """A teacher's judgments, by image name.

    Attributes:
        points: for each image its judgments `(score in [0, 1], stated confidence in [0, 1])`.
        pairs: ordered pairs `(better, worse)` out of the teacher's direct comparisons.
        skipped: lines that could not be read, as `(line number, why)`.
    """

    points: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    pairs: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def target(self, image: str) -> tuple[float, float]:
        """Return `(score, confidence)` of an image: the confidence-weighted mean of its judgments."""
        judgments = self.points[image]
        total = sum(confidence for _, confidence in judgments)
        if total == 0:
            return sum(score for score, _ in judgments) / len(judgments), 0.0
        return sum(score * confidence for score, confidence in judgments) / total, total / len(judgments)


def read_evidence(paths: list[Path], keep: set[str] | None = None) -> Evidence:
    """Read evidence files.

    Args:
        paths: JSON-lines files, one object a line with `kind` "point" (`image`, `score`, `scale`, `confidence`) or
            "ranking" (`images`, best first). A ranking stands for each ordered pair in it.
        keep: names of images to keep; judgments of others are left out, and pairs with one of them too.

    Raises:
        EvidenceError: a file cannot be read, or nothing usable is left.
    """
    evidence = Evidence()
    for path in paths:
        try:
            # Not splitlines: JSON strings may hold U+2028 and its like.
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EvidenceError(f"cannot read evidence {path}: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    _add(evidence, json.loads(line), keep)
                except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
                    evidence.skipped.append((number, f"{path.name}: {type(error).__name__}: {error}"))
    if not evidence.points and not evidence.pairs:
        raise EvidenceError(
            f"no usable evidence in {[str(path) for path in paths]} ({len(evidence.skipped)} bad lines)"
        )
    return evidence


def _add(evidence: Evidence, record: dict, keep: set[str] | None) -> None:
    if record["kind"] == "point":
        low, high = record["scale"]
        score = (float(record["score"]) - low) / (high - low)
        confidence = float(record.get("confidence", 1.0))
        if not (0 <= score <= 1 and 0 <= confidence <= 1):
            raise ValueError(f"score {record['score']} or confidence {confidence} outside its scale")
        if keep is None or record["image"] in keep:
            evidence.points[record["image"]].append((score, confidence))
    elif record["kind"] == "ranking":
        images = [image for image in record["images"] if keep is None or image in keep]
        evidence.pairs += [(better, worse) for i, better in enumerate(images) for worse in images[i + 1 :]]
    else:
        raise ValueError(f"unknown kind {record['kind']!r}")
