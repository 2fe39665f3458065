"""Which images are worth a human label: spread over what the student sees and over its scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from leafiqa.calibrate.features import Seen
from leafiqa.errors import InputError

_COMPONENTS = 32
# Share of the distance between two images that their predicted scores make up, the rest being what they look like.
_SCORE_SHARE = 0.5


def places(seen: Seen, score_share: float = _SCORE_SHARE) -> NDArray[np.float64]:
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
        parts.append(part * np.sqrt(share / variance) if variance > 0 else part)
    return np.concatenate(parts, axis=1)


def select(seen: Seen, budget: int, seed: int = 0, score_share: float = _SCORE_SHARE) -> NDArray[np.intp]:
    """Choose images to label: one near the middle of each of `budget` clusters of what the student sees.

    Clusters cover what there is (diversity) and their middles stand for many images (no outliers); as the predicted
    score is a part of the distance, the choice also spans the range of quality.

    Args:
        seen: the student's view of the candidates.
        budget: how many to choose.
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
    centres, label = kmeans2(points, budget, minit="++", rng=np.random.default_rng(seed), missing="warn")
    distance = ((points - centres[label]) ** 2).sum(1)
    chosen: list[int] = []
    for cluster in range(budget):
        member = np.flatnonzero(label == cluster)
        if len(member):
            chosen.append(int(member[np.argmin(distance[member])]))
    # A cluster may have come out empty: fill up with what lies farthest from everything chosen.
    nearest = ((points[:, None] - points[chosen][None]) ** 2).sum(2).min(1) if len(chosen) < budget else distance
    while len(chosen) < budget:
        farthest = int(np.argmax(nearest))
        chosen.append(farthest)
        nearest = np.minimum(nearest, ((points - points[farthest]) ** 2).sum(1))
    return np.array(sorted(chosen), dtype=np.intp)
