"""What is in some evidence: counts, coverage, agreement, bias, reliability."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from leafiqa.evidence.files import Evidence, read_evidence
from leafiqa.evidence.matching import match_to_folder
from leafiqa.evidence.reliability import (
    order_consistency,
    preferences,
    repeat_correlation,
    severities,
    targets,
    view_agreement,
)
from leafiqa.images.find import images_below


@dataclass(frozen=True)
class Summary:
    """A summary of evidence; shares and probabilities in [0, 1], None where there is nothing to tell from.

    Attributes:
        lines: records used.
        skipped: records that could not be used.
        torn: files with a torn last line.
        images: images with any judgment.
        points: point-wise judgments.
        images_with_points: images with at least one.
        repeated: images judged point-wise more than once.
        repeat_tau: Kendall's tau between first and last judgment of those.
        score_quartiles: lowest, quartiles and highest of the images' scores.
        point_reliability: mean reliability of the images' scores.
        direct: direct comparisons.
        ranked: pairs that rankings stand for.
        pairs: pairs of different images, out of both.
        first_preferred: mean probability given to the image shown first, of direct comparisons; 0.5 is unbiased.
        both_orders: pairs asked in both orders.
        order_consistency: mean of those.
        ranking_agreement: mean agreement of a view's rankings with its scores.
        pair_reliability: mean reliability of pairs.
        components: parts of the comparison graph that no comparison connects.
        defects: by name, of how many images it is slight, clear and severe; most often clear or severe first.
        coverage: of a folder, where one was given: images in it, how many have scores and comparisons, and how many
            judged images are not there.
        remarks: lines and files left out, one sentence each.
    """

    lines: int
    skipped: int
    torn: int
    images: int
    points: int
    images_with_points: int
    repeated: int
    repeat_tau: float | None
    score_quartiles: list[float] | None
    point_reliability: float | None
    direct: int
    ranked: int
    pairs: int
    first_preferred: float | None
    both_orders: int
    order_consistency: float | None
    ranking_agreement: float | None
    pair_reliability: float | None
    components: int
    defects: dict[str, list[int]] = field(default_factory=dict)
    coverage: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return the summary ready for JSON, without the remarks."""
        found = asdict(self)
        found.pop("remarks")
        return {**found, **found.pop("coverage")}

    def __str__(self) -> str:
        return "\n".join(f"{name.replace('_', ' '):20} {_plain(value)}" for name, value in self.to_dict().items())


def summarise(evidence: Evidence) -> Summary:
    """Summarise evidence."""
    found, decided = targets(evidence), preferences(evidence)
    direct = [pair for pair in evidence.pairs if not pair.ranked]
    both, consistency = order_consistency(evidence.pairs)
    scores = np.array([target.score for target in found.values()])
    tau = repeat_correlation(evidence)
    return Summary(
        lines=evidence.lines,
        skipped=len(evidence.skipped),
        torn=len(evidence.torn),
        images=len(evidence.images),
        points=sum(map(len, evidence.points.values())),
        images_with_points=len(found),
        repeated=sum(len(points) > 1 for points in evidence.points.values()),
        repeat_tau=None if math.isnan(tau) else tau,
        score_quartiles=np.percentile(scores, [0, 25, 50, 75, 100]).tolist() if len(scores) else None,
        point_reliability=_mean([target.reliability for target in found.values()]),
        direct=len(direct),
        ranked=len(evidence.pairs) - len(direct),
        pairs=len(decided),
        first_preferred=_mean([pair.preference for pair in direct]),
        both_orders=len(both),
        order_consistency=consistency,
        ranking_agreement=_mean(list(view_agreement(evidence).values())),
        pair_reliability=_mean([preference.reliability for preference in decided]),
        components=_components(evidence),
        defects=_defects(evidence),
    )


# Bad lines that are told one by one.
_TOLD = 20


def summarise_files(files: Sequence[Path], folder: Path | None = None) -> Summary:
    """Read evidence and summarise it.

    Args:
        files: JSON-lines files.
        folder: what the images' names are relative to: also tell coverage, and what was moved or replaced.

    Raises:
        EvidenceError: a file cannot be read, or nothing in it can be used.
    """
    evidence = read_evidence(files)
    remarks = [f"{where}: {why}: left out" for where, why in evidence.skipped[:_TOLD]]
    if len(evidence.skipped) > _TOLD:
        remarks.append(f"and {len(evidence.skipped) - _TOLD} more lines left out")
    remarks += [f"{name}: its last line is torn: left out" for name in evidence.torn]
    there: dict[str, int] = {}
    if folder is not None:
        matched = match_to_folder(evidence, folder)
        evidence, remarks = matched.evidence, [*remarks, *matched.remarks]
        there = coverage(evidence, folder)
    return replace(summarise(evidence), coverage=there, remarks=remarks)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {' '.join(map(str, counts))}" for name, counts in value.items()) or "-"
    if isinstance(value, list):
        return " ".join(f"{item:.3f}" for item in value)
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def coverage(evidence: Evidence, folder: Path) -> dict[str, int]:
    """Return how much of a folder the evidence covers, subfolders included.

    Args:
        evidence: a teacher's judgments, as `leafiqa.evidence.matching.match_to_folder` leaves them.
        folder: what the images' names are relative to.

    Returns:
        `images_in_folder`, how many of these have scores (`scored_there`) and comparisons (`compared_there`), and
        `missing`: how many judged images are not there.
    """
    there = set(images_below(folder))
    compared = {name for pair in evidence.pairs for name in (pair.first, pair.second)}
    return {
        "images_in_folder": len(there),
        "scored_there": len(there & set(evidence.points)),
        "compared_there": len(there & compared),
        "missing": sum(not os.path.isfile(folder / name) for name in evidence.images),
    }


def _defects(evidence: Evidence) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = {}
    for of in severities(evidence).values():
        for name, severity in of.items():
            steps = counts.setdefault(name, [0, 0, 0])
            if severity >= 0.5:
                steps[min(3, int(severity + 0.5)) - 1] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1][1] - item[1][2], item[0])))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _components(evidence: Evidence) -> int:
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for pair in evidence.pairs:
        parent[root(pair.first)] = root(pair.second)
    return len({root(name) for name in list(parent)})
