"""Copies of one file among labelled images: they are no independent images, and belong on one side of any split."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leafiqa.files import sha256_if_readable


def join_copies(groups: NDArray[np.str_], paths: list[Path]) -> tuple[NDArray[np.str_], list[str]]:
    """Put images whose files are the same, byte by byte, into one group.

    Args:
        groups: `(n,)` names of the groups that the images belong to.
        paths: their `n` files.

    Returns:
        The groups, those of copies joined, and a sentence for each set of copies.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        if (digest := sha256_if_readable(path)) is not None:  # else whoever scores it says so
            same[digest].append(i)
    joined, remarks = groups.copy(), []
    for members in same.values():
        if len(members) > 1:
            joined[np.isin(joined, joined[members])] = joined[members[0]]
            names = ", ".join(paths[i].name for i in members)
            remarks.append(f"{names}: the same file: taken as one group")
    return joined, remarks
