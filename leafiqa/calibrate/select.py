"""Which images are worth a human label: the ends of the student's scale first, spread over what the student sees.

A calibration is a rising curve in the student's score, and its slope is known best from its ends: two thirds of the
labels go to the fifth of images that the student likes least and the fifth that it likes best, the rest in between.
Within each part clusters cover what there is (diversity), and one image near the middle of each stands for many (no
outliers). Where labels are enough to correct the student and not only its scale, a teacher's evidence helps to spread
them over where the two disagree, in either direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.stats import rankdata

from leafiqa.calibrate.features import Seen
from leafiqa.calibrate.fit import Array
from leafiqa.errors import InputError

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


def places(seen: Seen, disagreement: Array | None = None) -> Array:
    """Return for each image a point whose distances tell how differently two images are seen and scored.

    Args:
        seen: the student's view of the images.
        disagreement: `(n,)` how much more a teacher likes each image than the student does, negative for less; NaN
            where no teacher judged. None leaves it out.
    """
    centred = seen.features - seen.features.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    look = left[:, :_COMPONENTS] * singular[:_COMPONENTS]
    parts = [(look, 1 - _SCORE_SHARE), ((seen.logits - seen.logits.mean())[:, None], _SCORE_SHARE)]
    if disagreement is not None and np.isfinite(disagreement).any():
        parts = [(part, (1 - _DISAGREEMENT_SHARE) * share) for part, share in parts]
        parts.append((np.nan_to_num(disagreement - np.nanmean(disagreement))[:, None], _DISAGREEMENT_SHARE))
    return np.concatenate([_with_variance(part, share) for part, share in parts], axis=1)


def _with_variance(part: Array, share: float) -> Array:
    """Scale `(n, k)` centred coordinates to a variance; coordinates without any stay zero."""
    variance = float((part**2).sum(1).mean())
    return part * np.sqrt(share / variance) if variance > 1e-12 else 0 * part


def select(seen: Seen, budget: int, *, disagreement: Array | None = None, seed: int = 0) -> NDArray[np.intp]:
    """Choose images to label.

    Args:
        seen: the student's view of the candidates.
        budget: how many to choose.
        disagreement: `(n,)` how much more a teacher likes each candidate than the student does, negative for less; NaN
            where no teacher judged. Used from `DISAGREEMENT_LEAST` labels on.
        seed: seeds the clustering.

    Returns:
        `(budget,)` row numbers of `seen`, ascending.

    Raises:
        InputError: the budget is no positive number, or larger than the number of candidates.
    """
    count = len(seen.logits)
    if not 1 <= budget <= count:
        raise InputError(f"budget must be from 1 to the number of readable images, {count}, got {budget}")
    points = places(seen, disagreement if budget >= DISAGREEMENT_LEAST else None)
    by_score = np.argsort(seen.logits, kind="stable")
    end = round(_END * count)
    # From each end alike; an odd label, and what an end is too small for, goes to the middle.
    each = min(round(_END_SHARE * budget), budget // 2, end)
    # Never more than a part holds: an end that is used up holds a fifth of all, and then the middle has the rest.
    parts = [(by_score[:end], each), (by_score[end : count - end], budget - 2 * each), (by_score[count - end :], each)]
    chosen: list[int] = []
    for members, wanted in parts:
        chosen += members[_spread(points[members], wanted, seed)].tolist()
    return np.array(sorted(chosen), dtype=np.intp)


def _spread(points: Array, budget: int, seed: int) -> list[int]:
    """Return `budget` rows of `points` that cover them: the middles of so many clusters."""
    if budget == 0:
        return []
    different, first = np.unique(points, axis=0, return_index=True)
    if len(different) <= budget:  # nothing to cluster: one of each, then whatever is left
        rest = np.setdiff1d(np.arange(len(points)), first)
        return np.concatenate([first, rest])[:budget].tolist()
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
