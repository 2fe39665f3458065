"""Which images are worth a human label: spread over what the student sees, over its scores, and where it may be wrong.

Clusters cover what there is (diversity), and one image near the middle of each stands for many (no outliers). As the
predicted score is part of the distance, the choice spans the range of quality. Where a teacher's evidence is given,
images on which the student disagrees with it are preferred within their cluster: there a label tells most.
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
# Share of the squared distance between two images that their predicted scores make up.
SCORE_SHARE = 0.5
# How much an image's rank in disagreement weighs against its rank in distance from its cluster's middle.
DISAGREEMENT_SHARE = 0.3


def places(seen: Seen, score_share: float = SCORE_SHARE) -> Array:
    """Return for each image a point whose distances tell how differently two images are seen and scored.

    Args:
        seen: the student's view of the images.
        score_share: share of the points' variance that the student's logit makes up.
    """
    centred = seen.features - seen.features.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    look = left[:, :_COMPONENTS] * singular[:_COMPONENTS]
    logits = (seen.logits - seen.logits.mean())[:, None]
    parts = []
    for part, share in ((look, 1 - score_share), (logits, score_share)):
        variance = float((part**2).sum(1).mean())
        parts.append(part * np.sqrt(share / variance) if variance > 1e-12 else 0 * part)
    return np.concatenate(parts, axis=1)


def select(
    seen: Seen,
    budget: int,
    *,
    disagreement: Array | None = None,
    seed: int = 0,
    score_share: float = SCORE_SHARE,
) -> NDArray[np.intp]:
    """Choose images to label.

    Args:
        seen: the student's view of the candidates.
        budget: how many to choose.
        disagreement: `(n,)` how far the student is from a teacher on each candidate; NaN where no teacher judged.
        seed: seeds the clustering.
        score_share: weight of the predicted score in the distance, 0 to 1.

    Returns:
        `(budget,)` row numbers of `seen`, ascending.

    Raises:
        InputError: the budget is no positive number, or larger than the number of candidates.
    """
    count = len(seen.logits)
    if not 1 <= budget <= count:
        raise InputError(f"budget must be from 1 to the number of readable images, {count}, got {budget}")
    points = places(seen, score_share)
    different = np.unique(points, axis=0)
    if len(different) <= budget:
        # Nothing to cluster: one of each, then whatever is left.
        _, first = np.unique(points, axis=0, return_index=True)
        rest = np.setdiff1d(np.arange(count), first)
        return np.sort(np.concatenate([first, rest])[:budget]).astype(np.intp)
    _, label = kmeans2(points, budget, minit="++", rng=np.random.default_rng(seed), missing="warn")
    unsure = np.zeros(count) if disagreement is None else np.nan_to_num(disagreement, nan=0.0)
    chosen: list[int] = []
    for cluster in range(budget):
        member = np.flatnonzero(label == cluster)
        if len(member):
            off_centre = _ranks(((points[member] - points[member].mean(0)) ** 2).sum(1))
            share = DISAGREEMENT_SHARE if disagreement is not None else 0.0
            cost = (1 - share) * off_centre - share * _ranks(unsure[member])
            chosen.append(int(member[np.argmin(cost)]))
    # A cluster may have come out empty: fill up with what lies farthest from everything chosen.
    while len(chosen) < budget:
        nearest = np.min([((points - points[i]) ** 2).sum(1) for i in chosen], axis=0)
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
    return np.array(sorted(chosen), dtype=np.intp)


def _ranks(values: Array) -> Array:
    """Return ranks scaled to [0, 1]; equal values share one."""
    return (rankdata(values) - 1) / max(1, len(values) - 1)
