"""Which images are worth a human label: the ends of the student's scale first, spread over what the student sees.

A calibration is a rising curve in the student's score, and its slope is known best from its ends: two thirds of the
labels go to the fifth of images that the student likes least and the fifth that it likes best, the rest in between.
Within each part clusters cover what there is (diversity), and one image near the middle of each stands for many (no
outliers). Where labels are enough to correct the student and not only its scale, a teacher's evidence helps to spread
them over where the two disagree, in either direction.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.stats import rankdata

from leafiqa.calibration.features import Extracted, extract
from leafiqa.calibration.fit import Array
from leafiqa.errors import InputError
from leafiqa.evidence.scores import read_scores
from leafiqa.files import StrPath, check_output, relative_name, write_whole
from leafiqa.metric import Metric
from leafiqa.scoring.rows import csv_line
from leafiqa.tables import read_table, safe_cell, to_frame

_COLUMNS = ["image", "mos", "score", "stands_for"]
_COMPONENTS = 32
# Each end of the student's scale holds this share of the images, and this share of the budget.
_END = 0.2
_END_SHARE = 1 / 3
# Share of the squared distance between two images that their predicted scores make up, and their disagreement.
_SCORE_SHARE = 0.25
_DISAGREEMENT_SHARE = 0.25
# Fewer labels than this fit little more than a curve, to which disagreement is noise: measured, it did harm.
DISAGREEMENT_LEAST = 100


def rank_disagreement(teacher: Array, logits: Array) -> Array:
    """Return `(n,)` how far the teacher's rank of each image is above the student's, as a share of all judged.

    Ranks, not scores: the two need not be on one scale.

    Args:
        teacher: `(n,)` the teacher's scores; NaN where it did not judge, which gives NaN.
        logits: `(n,)` the student's logits.
    """
    judged = np.isfinite(teacher)
    found = np.full(len(teacher), np.nan)
    found[judged] = (rankdata(teacher[judged]) - rankdata(logits[judged])) / judged.sum()
    return found


def points_of(extracted: Extracted, disagreement: Array | None = None) -> Array:
    """Return for each image a point whose distances tell how differently two images are seen and scored.

    Args:
        extracted: the student's view of the images.
        disagreement: `(n,)` how much more a teacher likes each image than the student does, negative for less; NaN
            where no teacher judged. None leaves it out.
    """
    centred = extracted.features - extracted.features.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    look = left[:, :_COMPONENTS] * singular[:_COMPONENTS]
    parts = [(look, 1 - _SCORE_SHARE), ((extracted.logits - extracted.logits.mean())[:, None], _SCORE_SHARE)]
    if disagreement is not None and np.isfinite(disagreement).any():
        parts = [(part, (1 - _DISAGREEMENT_SHARE) * share) for part, share in parts]
        parts.append((np.nan_to_num(disagreement - np.nanmean(disagreement))[:, None], _DISAGREEMENT_SHARE))
    return np.concatenate([_with_variance(part, share) for part, share in parts], axis=1)


def _with_variance(part: Array, share: float) -> Array:
    """Scale `(n, k)` centred coordinates to a variance; coordinates without any stay zero."""
    variance = float((part**2).sum(1).mean())
    return part * np.sqrt(share / variance) if variance > 1e-12 else 0 * part


def choose_rows(
    extracted: Extracted, budget: int, *, disagreement: Array | None = None, seed: int = 0
) -> tuple[NDArray[np.intp], Array]:
    """Choose images to label.

    Args:
        extracted: the student's view of the candidates.
        budget: how many to choose.
        disagreement: `(n,)` how much more a teacher likes each candidate than the student does, negative for less; NaN
            where no teacher judged. Used from `DISAGREEMENT_LEAST` labels on.
        seed: seeds the clustering.

    Returns:
        `(budget,)` row numbers of `extracted`, ascending, and how many candidates each of them stands for: those of its
        part of the scale, shared evenly. Two thirds come from the ends, which are two fifths of all, so that what is
        measured on them must be weighted to hold for the rest.

    Raises:
        InputError: the budget is no positive number, or larger than the number of candidates.
    """
    count = len(extracted.logits)
    if not 1 <= budget <= count:
        raise InputError(f"budget must be from 1 to the number of readable images, {count}, got {budget}")
    points = points_of(extracted, disagreement if budget >= DISAGREEMENT_LEAST else None)
    by_score = np.argsort(extracted.logits, kind="stable")
    end = round(_END * count)
    # From each end alike; an odd label, and what an end is too small for, goes to the middle.
    each = min(round(_END_SHARE * budget), budget // 2, end)
    # Never more than a part holds: an end that is used up holds a fifth of all, and then the middle has the rest.
    parts = [(by_score[:end], each), (by_score[end : count - end], budget - 2 * each), (by_score[count - end :], each)]
    stands_for: dict[int, float] = {}
    for members, wanted in parts:
        for row in members[_spread(points[members], wanted, seed)].tolist():
            stands_for[row] = len(members) / wanted
    chosen = np.array(sorted(stands_for), dtype=np.intp)
    return chosen, np.array([stands_for[row] for row in chosen.tolist()])


def _spread(points: Array, budget: int, seed: int) -> list[int]:
    """Return `budget` rows of `points` that cover them: the middles of so many clusters."""
    if budget == 0:
        return []
    different, first = np.unique(points, axis=0, return_index=True)
    if len(different) <= budget:  # nothing to cluster: one of each, then whatever is left
        rest = np.setdiff1d(np.arange(len(points)), first)
        covering: list[int] = np.concatenate([first, rest])[:budget].tolist()
        return covering
    _, label = kmeans2(points, budget, minit="++", rng=np.random.default_rng(seed), missing="warn")
    chosen: list[int] = []
    for cluster in range(budget):
        member = np.flatnonzero(label == cluster)
        if len(member):
            chosen.append(int(member[np.argmin(((points[member] - points[member].mean(0)) ** 2).sum(1))]))
    return chosen + _farthest(points, chosen, budget - len(chosen))  # a cluster may have come out empty


def _farthest(points: Array, chosen: list[int], count: int) -> list[int]:
    """Return `count` more rows, each the one that lies farthest from everything chosen before it."""
    more: list[int] = []
    for _ in range(count):
        nearest = np.min([((points - points[i]) ** 2).sum(1) for i in [*chosen, *more]], axis=0)
        nearest[[*chosen, *more]] = -1
        more.append(int(np.argmax(nearest)))
    return more


@dataclass(frozen=True)
class Selected:
    """An image that is worth a human label.

    Attributes:
        path: its file.
        score: the student's score of it.
        stands_for: how many candidates it stands for.
    """

    path: Path
    score: float
    stands_for: float


def is_unrated(path: StrPath) -> bool:
    """Tell whether a file is a selection without any rating: with ratings it is a person's work, and not replaced."""
    try:
        table = read_table(path)
    except InputError:
        return False
    return table.columns == _COLUMNS and not any(row["mos"].strip() for row in table.rows)


@dataclass
class Selection:
    """Images to have rated by people: a sequence of `Selected`.

    Attributes:
        images: those chosen, in the order that the candidates were given or found in.
        candidates: how many readable images they were chosen from.
        problems: images and evidence left out, and why.
        failed: how many images could not be read.
    """

    images: list[Selected]
    candidates: int
    problems: list[str] = field(default_factory=list)
    failed: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Selected]:
        return iter(self.images)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return a list for each column of the table that `to_csv` writes."""
        return {
            "image": [str(one.path) for one in self.images],
            "mos": [""] * len(self.images),
            "score": [round(one.score, 4) for one in self.images],
            "stands_for": [round(one.stands_for, 4) for one in self.images],
        }

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return to_frame(self.to_dict())

    def to_csv(self, path: StrPath, *, overwrite: bool = False) -> None:
        """Write a table with an empty column `mos` to be filled in; names are relative to its folder.

        Raises:
            OutputError: the file exists already, or there is no such folder.
            InputError: an image's name is not text that a table can hold.
        """
        images = [one.path for one in self.images]
        check_output(path, inputs=images, overwrite=overwrite, is_ours=lambda head: is_unrated(path))
        write_whole(path, self.render(os.path.dirname(os.path.abspath(path))))

    def render(self, folder: str | None = None) -> str:
        """Return the table as CSV; names are relative to `folder`, or as they were given."""
        lines = [csv_line(_COLUMNS)]
        for one in self.images:
            name = str(one.path) if folder is None else relative_name(one.path, folder)
            lines.append(csv_line([safe_cell(name), "", f"{one.score:.4f}", f"{one.stands_for:.4g}"]))
        return "".join(lines)

    def __str__(self) -> str:
        return self.render().rstrip("\n")


def select_images(
    metric: Metric,
    candidates: Sequence[Path],
    budget: int,
    *,
    evidence: Sequence[Path] = (),
    folder: Path | None = None,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Selection:
    """Choose images to have rated by people.

    Args:
        metric: the metric that is to be calibrated.
        candidates: image files.
        budget: how many to choose.
        evidence: a teacher's evidence; used from a budget of `DISAGREEMENT_LEAST` on.
        folder: what names in the evidence are relative to; None means each evidence file's own folder.
        seed: seeds the clustering.
        advance: called once for each image that is looked at.

    Raises:
        InputError: the budget does not fit the number of readable images, or the evidence is of none of them.
    """
    extracted = extract(metric, candidates, advance)
    problems = [f"{candidates[place]}: {why}: left out" for place, why in extracted.errors]
    readable = [candidates[i] for i in extracted.index]
    disagreement = None
    if evidence:
        known: dict[Path, float] = {}
        for file in evidence:
            scores, left_out = read_scores([file], folder or file.parent)
            known |= scores
            problems += left_out
        teacher = np.array([known.get(path.resolve(), math.nan) for path in readable])
        if not np.isfinite(teacher).any():
            raise InputError(
                "the evidence is of none of these images; name the folder that its names are relative to "
                "(evidence_images=, on the command line --evidence-images)"
            )
        disagreement = rank_disagreement(teacher, extracted.logits)
        if budget < DISAGREEMENT_LEAST:
            problems.append(f"evidence is of use from a budget of {DISAGREEMENT_LEAST} on: chosen without it")
    rows, stands_for = choose_rows(extracted, budget, disagreement=disagreement, seed=seed)
    low, high = metric.score_range
    chosen = [
        Selected(readable[i], low + (high - low) / (1 + math.exp(-extracted.logits[i])), float(share))
        for i, share in zip(rows, stands_for)
    ]
    return Selection(chosen, len(readable), problems, len(extracted.errors))
