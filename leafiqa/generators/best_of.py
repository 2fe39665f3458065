"""Best of N: how much choosing the best of several pictures of a prompt gains, exactly, and which ones they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leafiqa.arguments import whole_number

Array = NDArray[np.float64]
_MOST = 64


def expected_best(scores: Array, n: int) -> float:
    """Return the mean, over all subsets of `n` of the scores, of the subset's highest score.

    Exact, from order statistics: of the subsets of `n` among `m`, `C(k-1, n-1)` have the k-th smallest as their
    highest.

    Args:
        scores: `(m,)`, at least `n`.
        n: how many are chosen from.
    """
    ordered = np.sort(scores)[::-1]
    m = len(ordered)
    # From the highest down: the share of the m-th is n / m, and each one's is the one's above times (k - n + 1) / k.
    k = np.arange(m - 1, n - 1, -1, dtype=np.float64)
    shares = n / m * np.concatenate([[1.0], np.cumprod((k - n + 1) / k)])
    return float(ordered[: len(shares)] @ shares)


def best_of_curve(scores_by_prompt: Sequence[Array]) -> list[float]:
    """Return the mean over prompts of the expected best of 1, 2, ... pictures.

    Up to the fewest that a prompt has, and no further than 64.

    Args:
        scores_by_prompt: scores of each prompt's pictures.

    Returns:
        Entry `n - 1` is the best of `n`; empty without prompts.
    """
    most = min(_MOST, *(len(scores) for scores in scores_by_prompt)) if scores_by_prompt else 0
    return [float(np.mean([expected_best(scores, n) for scores in scores_by_prompt])) for n in range(1, most + 1)]


def choose_best(scores: Array, groups: Sequence[str], n: int) -> dict[str, list[int]]:
    """Return for each group the places of its `n` best scores, best first; those without a score are never chosen.

    Args:
        scores: `(m,)`, NaN where there is none.
        groups: `m` names.
        n: how many of each.

    Raises:
        InputError: `n` is no whole number from 1 on.
    """
    whole_number(n, "n", 1)
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, [])
        if math.isfinite(scores[place]):
            members[group].append(place)
    # Python's sort is stable: of equal scores the one that was given first.
    return {group: sorted(of, key=lambda place: -scores[place])[:n] for group, of in members.items()}
