"""What is still to be asked: judgments, contact sheets, and rounds of comparisons chosen by what is known so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from leafiqa.evidence.bradley_terry import order
from leafiqa.evidence.files import Evidence
from leafiqa.evidence.reliability import preferences, targets
from leafiqa.teachers.journal import Journal, Task
from leafiqa.teachers.pairs import choose_pairs
from leafiqa.teachers.sheets import deal

_ROUNDS = 4


def point_tasks(names: Sequence[str], journal: Journal, repeat: int = 1) -> list[Task]:
    """Return the point-wise questions that have no answer yet, each image `repeat` times in all."""
    tasks = [Task("point", (name,)) for name in names]
    return [task for number in range(repeat) for task in tasks if journal.done.get(task, 0) <= number]


def sheet_tasks(names: Sequence[str], journal: Journal, side: int, repeat: int = 1, seed: int = 0) -> list[Task]:
    """Return contact sheets for images that were not on `repeat` of them yet; see `leafiqa.teachers.sheets.deal`."""
    counts = [journal.done.get(Task("point", (name,)), 0) for name in names]
    return [Task("sheet", sheet) for sheet in deal(names, counts, side, repeat, seed)]


def pair_answers(names: Sequence[str], journal: Journal) -> int:
    """Return how many comparisons of two of these images have their answer, the two orders counted apart."""
    wanted = set(names)
    return sum(task.kind == "pair" and set(task.images) <= wanted for task in journal.done)


def pair_rounds(
    names: Sequence[str],
    journal: Journal,
    budget: int,
    *,
    prior: dict[str, float] | None = None,
    sources: dict[str, str] | None = None,
    seed: int = 0,
) -> Iterable[list[Task]]:
    """Yield rounds of comparisons, each pair in both orders, until `budget` pairs have been asked about in all.

    Pairs of which one order has its answer come first. Each later round is chosen by what is known when it begins, so
    ask each round before taking the next.

    Args:
        names: the images.
        journal: what was answered so far.
        budget: pairs in all, those answered before included.
        prior: what is believed of the images, in logits; None means the teacher's own points, if it gave any.
        sources: for each image the set that it comes from.
        seed: seeds the choice.
    """
    wanted = set(names)
    tried: set[frozenset[str]] = set()

    def begun() -> set[frozenset[str]]:
        return tried | {
            frozenset(task.images) for task in journal.done if task.kind == "pair" and set(task.images) <= wanted
        }

    asked_so = [task for task in journal.done if task.kind == "pair" and set(task.images) <= wanted]
    halves = [Task("pair", task.images[::-1]) for task in asked_so]
    if halves := [task for task in halves if task not in journal.done]:
        yield halves
    per_round = max(1, math.ceil(budget / _ROUNDS))
    for number in itertools.count():
        left = budget - len(begun())
        if left <= 0:
            return
        known, std = _belief(names, journal, prior)
        asked = [tuple(sorted(pair)) for pair in begun()]
        chosen = choose_pairs(
            names,
            min(left, per_round),
            known=known,
            known_std=std,
            asked=[(a, b) for a, b in asked],
            sources=sources,
            seed=seed + len(asked) + number,
        )
        if not chosen:
            return
        # Also those that will stay without an answer: chosen again they would be asked without end.
        tried |= {frozenset(pair) for pair in chosen}
        yield [Task("pair", pair) for first, second in chosen for pair in ((first, second), (second, first))]


def _belief(
    names: Sequence[str], journal: Journal, prior: dict[str, float] | None
) -> tuple[dict[str, float] | None, float]:
    """Return what is known of the images so far, in logits, and how far it may be off."""
    evidence = journal.evidence() if journal.done else Evidence()
    if prior is None and evidence.points:
        found = {name: target.score for name, target in targets(evidence).items()}
        prior = {name: as_belief(score) for name, score in found.items()}
    decided = preferences(evidence)
    if not decided:
        return prior, 1.5
    return order(names, decided, prior=prior, prior_std=1.5 if prior else 2.0), 1.0


def as_belief(score: float) -> float:
    """Return a score in [0, 1] as what `choose_pairs` takes for known: in logits, as wide as those of comparisons."""
    clipped = min(max(score, 0.02), 0.98)
    return 3 * math.log(clipped / (1 - clipped))
