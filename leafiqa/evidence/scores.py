"""A teacher's scores by file, for what needs scores alone: calibration with evidence, and choosing what to label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.matching import match_to_folder
from leafiqa.evidence.reliability import targets
from leafiqa.files import StrPath


def read_scores(files: Sequence[StrPath], folder: StrPath) -> tuple[dict[Path, float], list[str]]:
    """Read a teacher's scores.

    Args:
        files: JSON-lines files of evidence.
        folder: what the images' names are relative to.

    Returns:
        Scores in [0, 1] by absolute path, links resolved, and a sentence for whatever was left out.

    Raises:
        EvidenceError: a file cannot be read, or no image has a score that is believed.
    """
    matched = match_to_folder(read_evidence(files), folder)
    evidence, problems = matched.evidence, matched.remarks
    problems += [f"{where}: {why}: left out" for where, why in evidence.skipped]
    problems += [f"{name}: its last line is cut off: left out" for name in evidence.torn]
    known = targets(evidence)
    believed = {name: target.score for name, target in known.items() if target.reliability > 0}
    if len(believed) < len(known):
        problems.append(f"{len(known) - len(believed)} scores have no reliability, such as a confidence of 0: left out")
    if believed and evidence.pairs:
        problems.append(
            f"{len(evidence.pairs)} comparisons (rankings counted pair by pair) are left out: only scores count here"
        )
    if not believed:
        raise EvidenceError(
            f"{', '.join(map(str, files))}: no scores to use, {len(known)} without reliability, "
            f"{len(evidence.pairs)} comparisons: only point-wise judgments count here"
        )
    return {Path(os.path.realpath(os.path.join(folder, name))): score for name, score in believed.items()}, problems
