"""Which pairs to ask a teacher about, within a budget.

Comparing everything with everything is out of reach, and most of it would be wasted: nobody doubts the outcome between
the best and the worst. Asked are pairs whose outcome is open, given what is known so far, spread evenly over the
images, and connected: a score for each image can be had only where a chain of comparisons links it to the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from leafiqa.errors import InputError

Pair = tuple[str, str]
# Candidate partners of an image: neighbours in score, this many on either side, and as many drawn at random.
_NEIGHBOURS = 12


def choose_pairs(
    names: Sequence[str],
    budget: int,
    *,
    known: Mapping[str, float] | None = None,
    known_std: float = 1.0,
    asked: Iterable[Pair] = (),
    sources: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Choose pairs to ask about next.

    Args:
        names: the images.
        budget: how many pairs.
        known: what is believed of the images so far, in logits (see `leafiqa.evidence.bradley_terry`): a student's
            prediction in the first round, the scores out of the answers later. Without it pairs are drawn at random,
            evenly.
        known_std: how far that belief may be off, in logits.
        asked: pairs that were asked before; they are not asked again.
        sources: for each image the set it comes from; links between sets are made first.
        seed: seeds the drawing, and which image of a pair is shown first.

    Returns:
        `budget` pairs, fewer if there are no more; the first is to be shown first.

    Raises:
        InputError: the budget is no positive number, or there are fewer than two images.
    """
    names = list(dict.fromkeys(names))
    if budget < 1 or len(names) < 2:
        raise InputError(f"choosing pairs needs a budget of at least 1 and two images, got {budget} and {len(names)}")
    rng = np.random.default_rng(seed)
    place = {name: i for i, name in enumerate(names)}
    taken = {frozenset((place[a], place[b])) for a, b in asked if a in place and b in place}
    belief = np.array([known[name] if known and name in known else math.nan for name in names])
    unknown = ~np.isfinite(belief)
    belief[unknown] = rng.permutation(np.linspace(-1, 1, int(unknown.sum()))) if unknown.any() else 0
    spread = known_std if known else math.inf
    kind = [sources.get(name, "") if sources else "" for name in names]

    degree = np.zeros(len(names))
    root = list(range(len(names)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for pair in taken:
        a, b = sorted(pair) if len(pair) == 2 else (*pair, *pair)
        degree[[a, b]] += 1
        root[find(a)] = find(b)

    chosen: list[Pair] = []

    def take(a: int, b: int) -> None:
        taken.add(frozenset((a, b)))
        degree[[a, b]] += 1
        root[find(a)] = find(b)
        first, second = (a, b) if rng.integers(2) else (b, a)
        chosen.append((names[first], names[second]))

    # A chain through the images by score links them all at the smallest gaps; what is linked already is left out, and
    # links between sources come first. In any order, so that a budget too small for all spans all of the quality.
    by_score = np.argsort(belief, kind="stable")
    chain = list(itertools.pairwise(by_score))
    links = sorted((chain[i] for i in rng.permutation(len(chain))), key=lambda link: kind[link[0]] == kind[link[1]])
    for a, b in links:
        if len(chosen) < budget and find(int(a)) != find(int(b)):
            take(int(a), int(b))

    rank = np.empty(len(names), dtype=np.intp)
    rank[by_score] = np.arange(len(names))
    while len(chosen) < budget:
        # The image that was asked about least, and the partner about which the outcome is most open.
        a = int(np.argmin(degree + 0.5 * rng.random(len(names))))
        near = np.arange(max(0, rank[a] - _NEIGHBOURS), min(len(names), rank[a] + _NEIGHBOURS + 1))
        around = np.unique(np.concatenate([by_score[near], rng.integers(0, len(names), 2 * _NEIGHBOURS)]))
        free = [int(b) for b in around if b != a and frozenset((a, int(b))) not in taken]
        if not free:
            free = [b for b in range(len(names)) if b != a and frozenset((a, b)) not in taken]
        if not free:
            degree[a] = math.inf
            if np.isinf(degree).all():
                break
            continue
        take(a, max(free, key=lambda b: _worth(abs(belief[a] - belief[b]), spread, float(degree[b]), rng.random())))
    return chosen


def _worth(gap: float, spread: float, degree: float, chance: float) -> float:
    """Return what asking about a pair promises: open outcomes of images that were asked about little."""
    # Beliefs that may be off by `spread` each make even distant pairs open; logistic in the gap, softened by that.
    openness = 1.0 if math.isinf(spread) else 1 / math.cosh(min(gap / (2 * math.sqrt(1 + spread**2)), 100.0)) ** 2
    return openness * (0.7 + 0.3 * chance) / (1 + degree)
