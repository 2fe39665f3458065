"""Deal a source's images to folds, the same in each run of a seed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def fold_names(names: Iterable[str], count: int, seed: int) -> list[set[str]]:
    """Deal names to `count` folds of equal size, or one apart.

    Args:
        names: names of images, in any order.
        count: number of folds.
        seed: seeds the dealing.
    """
    ordered = sorted(names)
    shuffled = np.random.default_rng(seed).permutation(len(ordered))
    return [{ordered[i] for i in shuffled[fold::count]} for fold in range(count)]
