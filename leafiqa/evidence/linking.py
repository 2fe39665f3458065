"""One scale for evidence that was asked for at different times, of different pictures or in different words.

A teacher that sees only photographs uses its scale otherwise than one that sees photographs and generated pictures side
by side. Where some images were judged in both ways, a straight line through them brings the one to the scale of the
other: ordinary least squares, which predicts what the common judgment would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import Evidence, read_evidence, restrict
from leafiqa.evidence.reliability import targets

# Images that a file must share with the common evidence to be given a line of its own.
_SHARED = 30


@dataclass(frozen=True)
class Line:
    """What brings scores of one scale to another: `slope * score + offset`, within [0, 1].

    Attributes:
        slope: greater than 0.
        offset: in score units of [0, 1].
        shared: how many images both judge.
    """

    slope: float
    offset: float
    shared: int

    def __call__(self, score: float) -> float:
        """Return a score on the other scale."""
        return min(max(self.slope * score + self.offset, 0.0), 1.0)


def find_lines(files: Sequence[Path], common: Sequence[Path]) -> dict[Path, Line]:
    """Find what brings each file's scores to the scale of the common evidence.

    A file that shares fewer than 30 images with it takes the line of all files together: files of one source that are
    not judged alike are to be large enough.

    Args:
        files: evidence of one source.
        common: evidence that judges images of several sources beside each other.

    Raises:
        EvidenceError: a file cannot be read, or all of them share too few images with the common evidence, or the line
            does not rise.
    """
    wanted = _scores(read_evidence(common))
    together: Line | None = None
    lines = {}
    for file in files:
        line = _fit(_scores(read_evidence(file)), wanted)
        if line is None:
            if together is None:
                together = _fit(_scores(read_evidence(files)), wanted)
            if together is None:
                raise EvidenceError(
                    f"{', '.join(path.name for path in files)}: to be brought to the scale of "
                    f"{', '.join(path.name for path in common)} they must share at least {_SHARED} images with scores"
                )
            line = together
        if line.slope <= 0:
            raise EvidenceError(
                f"{file.name}: its scores fall where those of {', '.join(path.name for path in common)} rise, on "
                f"{line.shared} images that both judge: is its scale the other way round?"
            )
        lines[file] = line
    return lines


def read_on_common_scale(files: Sequence[Path], common: Sequence[Path]) -> Evidence:
    """Read evidence, its scores brought to the scale of the common evidence, which joins it on the same images.

    Args:
        files: evidence of one source.
        common: evidence that judges images of several sources beside each other; none leaves the scores as they are.

    Raises:
        EvidenceError: see `find_lines` and `leafiqa.evidence.files.read_evidence`.
    """
    if not common:
        return read_evidence(files)
    lines = find_lines(files, common)
    evidence = read_evidence([*files, *common], moved=lines)
    own = read_evidence(files).images
    return restrict(evidence, own)


def _scores(evidence: Evidence) -> dict[str, float]:
    return {name: target.score for name, target in targets(evidence).items() if target.reliability > 0}


def _fit(scores: dict[str, float], wanted: dict[str, float]) -> Line | None:
    shared = sorted(set(scores) & set(wanted))
    x, y = (np.array([of[name] for name in shared]) for of in (scores, wanted))
    if len(shared) < _SHARED or np.ptp(x) == 0:
        return None
    slope, offset = np.polyfit(x, y, 1)
    return Line(float(slope), float(offset), len(shared))
