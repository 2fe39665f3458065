"""Splits that keep together what belongs together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def deal_folds(groups: ArrayLike, count: int, seed: int) -> NDArray[np.intp]:
    """Deal images to cross-validation folds, all of a group to one, the folds as equal in size as that allows.

    Args:
        groups: `(n,)` names; images of one name stay together.
        count: number of folds; fewer are made where there are fewer groups.
        seed: seeds the dealing.

    Returns:
        `(n,)` the fold of each image.
    """
    names, member, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    count = min(count, len(names))
    filled = np.zeros(count)
    fold_of = np.empty(len(names), dtype=np.intp)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    # Large groups first, each to the emptiest fold.
    for name in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[name] = np.argmin(filled)
        filled[fold_of[name]] += sizes[name]
    return fold_of[member]


def deal_names(names: Iterable[str], count: int, seed: int) -> list[set[str]]:
    """Deal names to `count` folds of equal size, or one apart, in whatever order they come."""
    ordered = sorted(set(names))
    fold = deal_folds(ordered, count, seed) if ordered else np.empty(0, dtype=np.intp)
    return [{ordered[i] for i in np.flatnonzero(fold == number)} for number in range(count)]
