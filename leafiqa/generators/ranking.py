"""A ranking that says which generators cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence


def standings(names: Sequence[str], differences: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return for each generator its mean paired difference to the others; with the same prompts, it orders as means do.

    Args:
        names: the generators.
        differences: mean of first minus second, by pair; NaN where they share no prompt.
    """
    found = {}
    for name in names:
        of = [sign * d for pair, d in differences.items() for sign in (_sign(name, pair),) if sign and math.isfinite(d)]
        found[name] = sum(of) / len(of) if of else math.nan
    return found


def _sign(name: str, pair: tuple[str, str]) -> int:
    return 1 if pair[0] == name else -1 if pair[1] == name else 0


def rank_ranges(names: Sequence[str], beats: Collection[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Return the best and the worst rank that each generator may have, from what is significant alone.

    Args:
        names: the generators.
        beats: pairs of which the first is significantly better.
    """
    return {
        name: (
            1 + sum((other, name) in beats for other in names),
            len(names) - sum((name, other) in beats for other in names),
        )
        for name in names
    }


def groups_alike(names: Sequence[str], beats: Collection[tuple[str, str]]) -> list[list[str]]:
    """Return the largest sets of generators of which no two can be told apart; a generator may be in several.

    Args:
        names: the generators, best first.
        beats: pairs of which the first is significantly better.

    Returns:
        Sets in the order of their best members, each in the order of `names`.
    """
    # Insert and absorb (Piepho 2004): a set that holds two that differ is split into one without each of them.
    sets: list[frozenset[str]] = [frozenset(names)]
    for first, second in sorted(beats, key=lambda pair: (names.index(pair[0]), names.index(pair[1]))):
        split: list[frozenset[str]] = []
        for group in sets:
            split += [group - {first}, group - {second}] if {first, second} <= group else [group]
        different = list(dict.fromkeys(group for group in split if group))
        sets = [group for group in different if not any(group < other for other in different)]
    listed = [[name for name in names if name in group] for group in sets]
    return sorted(listed, key=lambda group: [names.index(name) for name in group])
