"""What each rater is asked next: warm-up, pictures to rate, unannounced repeats, pairs to compare."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from leafiqa.calibration.selection import choose_rows, points_of
from leafiqa.rating.answers import HIGH, LOW, Answer, AnswerFile, Answers, Phase
from leafiqa.rating.looking import Looking
from leafiqa.rating.next_pictures import Teaching, next_pair
from leafiqa.rating.rater_model import PanelEstimate, estimate

Ask = Literal["rating", "comparison", "both"]
ASKS = ("rating", "comparison", "both")

# Warm-up questions, answered and not counted.
WARM_UP = 4
# After so many first ratings one picture is shown again, unannounced, not one of the last few.
REPEAT_EVERY, _NOT_LAST = 10, 5
# With both ways of asking every fourth question is a comparison, from so many rated pictures on.
COMPARE_EVERY, _COMPARE_FROM = 4, 8
# Of comparisons alone each picture stands in about six.
COMPARISONS_EACH = 3
# This share of the budget is chosen beforehand, the rest as answers come in.
_BEFOREHAND = 0.5


@dataclass(frozen=True)
class Question:
    """What a rater is asked.

    Attributes:
        kind: "rating" or "comparison".
        images: numbers of one candidate, or of two.
        phase: see `Answer`.
    """

    kind: Literal["rating", "comparison"]
    images: tuple[int, ...]
    phase: Phase = "first"


class Questions:
    """Chooses questions. What was chosen is derived from the answers, so that a killed session goes on.

    Args:
        paths: the candidates.
        answers: the answers so far.
        looking: the student's view of the candidates.
        budget: how many pictures are to be rated.
        ask: "rating", "comparison" or "both".
        seed: of all that is drawn.
    """

    def __init__(
        self, paths: Sequence[Path], answers: AnswerFile, looking: Looking, budget: int, ask: Ask, seed: int
    ) -> None:
        self.paths, self.looking, self.budget, self.ask, self._seed = list(paths), looking, budget, ask, seed
        self._answers = answers
        self.place = {str(path): number for number, path in enumerate(self.paths)}
        # Pictures asked about, in the order in which they were chosen; those with answers come first after a restart.
        self._set: list[int] = []
        self._beforehand = False
        self._teaching: tuple[int, Teaching] | None = None
        # Candidates that cannot be shown after all; the page reports them.
        self.unreadable: dict[int, str] = {}
        for answer in answers.answers():
            for name in (answer.image, answer.other):
                if name in self.place and answer.kind != "skip" and answer.phase == "first":
                    self._add(self.place[name])

    def answers(self) -> Answers:
        """Return the answers that count so far."""
        return Answers(self._answers.answers())

    def own(self, rater: str) -> list[Answer]:
        """Return a rater's answers that count."""
        return [answer for answer in self._answers.answers() if answer.rater == rater]

    def total(self) -> int:
        """Return about how many questions a rater is asked."""
        if self.ask == "comparison":
            return WARM_UP + self._comparisons()
        ratings = WARM_UP + self.budget + self.budget // REPEAT_EVERY
        return ratings + (self.budget // (COMPARE_EVERY - 1) if self.ask == "both" else 0)

    def _comparisons(self) -> int:
        """Return how many comparisons each rater makes, where there are no ratings: not more than there are pairs."""
        return min(COMPARISONS_EACH * self.budget, self.budget * (self.budget - 1) // 2)

    def _add(self, candidate: int) -> None:
        if candidate not in self._set:
            self._set.append(candidate)

    def choose(self, rater: str, pending: Sequence[Question]) -> Question | None:
        """Return a rater's next question, after those that are pending."""
        own = self.own(rater)
        busy = {image for question in pending for image in question.images}
        warm = sum(answer.phase == "warm-up" for answer in own) + sum(q.phase == "warm-up" for q in pending)
        if warm < WARM_UP:
            return self._warm_up(rater, warm, own, busy)
        rated = [a for a in own if a.kind == "rating" and a.phase == "first"]
        pending_first = [q for q in pending if q.kind == "rating" and q.phase == "first"]
        if self.ask == "comparison":
            return self._comparison(rater, own, pending)
        again = self._repeat(rater, own, rated, pending)
        if again is not None:
            return again
        compared = sum(bool(a.other) and a.phase == "first" for a in own)  # skipped ones, too
        compared += sum(q.kind == "comparison" for q in pending)
        if (
            self.ask == "both"
            and len(rated) >= _COMPARE_FROM
            and (len(rated) + len(pending_first)) // (COMPARE_EVERY - 1) > compared
        ):
            pair = self._comparison(rater, own, pending)
            if pair is not None:
                return pair
        return self._rating(rater, own, busy)

    def _rng(self, rater: str, *more: object) -> np.random.Generator:
        """Return a generator of a rater's own, the same after a restart."""
        text = repr((self._seed, rater, *more)).encode("utf-8", "surrogateescape")
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    def _usable(self) -> list[int]:
        bad = {**self.looking.errors(), **self.unreadable}
        return [number for number in range(len(self.paths)) if number not in bad]

    def _warm_up(self, rater: str, number: int, own: Sequence[Answer], busy: set[int]) -> Question | None:
        """Return a picture that is not counted; together they span what the student has seen so far."""
        asked = {self.place[a.image] for a in own if a.image in self.place} | busy
        seen = self.looking.seen()
        rows = [row for row, candidate in enumerate(seen.index) if int(candidate) not in asked]
        usable = set(self._usable())
        if self.ask == "comparison":
            free = [candidate for candidate in sorted(usable - busy)]
            if len(free) < 2:
                return None
            pair = self._rng(rater, "warm-up", number).choice(free, 2, replace=False)
            return Question("comparison", (int(pair[0]), int(pair[1])), "warm-up")
        if rows:
            # Best, worst, and two between, so that a rater knows how far the scale reaches before it counts.
            order = sorted(rows, key=lambda row: seen.logits[row])
            share = (0.98, 0.02, 0.65, 0.35)[number % 4]
            candidate = int(seen.index[order[round(share * (len(order) - 1))]])
            return Question("rating", (candidate,), "warm-up")
        free = sorted(usable - asked) or sorted(usable)
        return Question("rating", (int(self._rng(rater, "warm-up").choice(free)),), "warm-up") if free else None

    def _repeat(
        self, rater: str, own: Sequence[Answer], rated: Sequence[Answer], pending: Sequence[Question]
    ) -> Question | None:
        """Return a picture to be shown again, None if it is not time."""
        busy = {image for question in pending for image in question.images}
        repeats = sum(a.phase == "repeat" for a in own) + sum(q.phase == "repeat" for q in pending)
        firsts = len(rated) + sum(q.kind == "rating" and q.phase == "first" for q in pending)
        if firsts // REPEAT_EVERY <= repeats:
            return None
        again = {a.image for a in own if a.phase == "repeat"}
        old = [a.image for a in rated[:-_NOT_LAST] if a.image not in again and a.image in self.place]
        old = [image for image in old if self.place[image] not in busy]
        if not old:
            return None
        image = str(self._rng(rater, "repeat", repeats).choice(old))
        return Question("rating", (self.place[image],), "repeat")

    def _rating(self, rater: str, own: Sequence[Answer], busy: set[int]) -> Question | None:
        """Return the next picture to rate: of those chosen so far in the rater's own order, else a new one."""
        done = {
            self.place[a.image]
            for a in own
            if not a.other and a.image in self.place and (a.phase == "first" or a.kind == "skip")
        }
        usable = set(self._usable())
        self._choose_beforehand()
        skipped = self._skipped_and_not_rated()
        open_ = [number for number in self._set if number in usable and number not in done | busy]
        if open_:
            order = self._rng(rater, "order").permutation(len(self.paths))
            return Question("rating", (min(open_, key=lambda number: order[number]),))
        counted = [number for number in self._set if number in usable and number not in skipped]
        if len(counted) >= self.budget:
            return None
        new = self._teaching_most(usable - set(self._set) - busy - done)
        if new is None:
            return None
        self._add(new)
        return Question("rating", (new,))

    def _skipped_and_not_rated(self) -> set[int]:
        """Return pictures that somebody skipped and nobody rated: others take their place in the budget."""
        skipped: set[int] = set()
        rated: set[int] = set()
        for answer in self._answers.answers():
            if answer.image in self.place and not answer.other:
                if answer.kind == "skip":
                    skipped.add(self.place[answer.image])
                elif answer.phase == "first":
                    rated.add(self.place[answer.image])
        return skipped - rated

    def _choose_beforehand(self) -> None:
        """Choose the first part of the budget as `leafiqa select` does, once the student has looked at all."""
        if self._beforehand or not self.looking.done.is_set():
            return
        self._beforehand = True
        seen = self.looking.seen()
        count = min(math.ceil(_BEFOREHAND * self.budget), len(seen.logits)) - len(self._set)
        if count > 0 and len(seen.logits):
            rows, _ = choose_rows(seen, count, seed=self._seed)
            for row in self._rng("", "beforehand").permutation(rows):
                self._add(int(seen.index[row]))

    def estimate(self) -> PanelEstimate:
        """Return what the panel says so far, on pictures that have answers."""
        found = self.answers()
        names = [a.image for a in found.ratings()] + [n for a in found.comparisons() for n in (a.image, a.other)]
        images = [name for name in dict.fromkeys(names) if name in self.place]
        return estimate(images, found.ratings(repeats=True), found.comparisons())

    def _teaching_most(self, allowed: set[int]) -> int | None:
        """Return the candidate whose rating teaches most, of those that the student has looked at."""
        seen = self.looking.seen()
        row_of = {int(candidate): row for row, candidate in enumerate(seen.index)}
        rows = [row_of[candidate] for candidate in allowed if candidate in row_of]
        if not rows:
            free = sorted(allowed)
            return int(self._rng("", "any", len(self._set)).choice(free)) if free else None
        if self._teaching is None or self._teaching[0] != len(seen.logits):
            self._teaching = (len(seen.logits), Teaching(seen.logits, points_of(seen), self._seed))
        panel = self.estimate()
        known = [i for i, image in enumerate(panel.images) if self.place[image] in row_of]
        rated = [row_of[self.place[panel.images[i]]] for i in known]
        chosen = self._teaching[1].next(rated, panel.quality[known], panel.error[known], rows)
        return None if chosen is None else int(seen.index[chosen])

    def _comparison(self, rater: str, own: Sequence[Answer], pending: Sequence[Question]) -> Question | None:
        """Return the two pictures whose comparison says most, None if there are enough comparisons."""
        asked = {frozenset((a.image, a.other)) for a in own if a.other}
        asked |= {frozenset(str(self.paths[i]) for i in q.images) for q in pending if q.kind == "comparison"}
        if self.ask == "comparison":
            compared = sum(bool(a.other) and a.phase == "first" for a in own)
            if compared + sum(q.phase == "first" for q in pending) >= self._comparisons():
                return None
            self._fill_set()
        usable = set(self._usable())
        names = [str(self.paths[number]) for number in self._set if number in usable]
        found = self.answers()
        prior = self._prior(names) if self.ask == "comparison" else None
        panel = estimate(names, found.ratings(repeats=True), found.comparisons(), prior=prior)
        if self.ask == "both":
            rated = {a.image for a in found.ratings()}
            keep = [i for i, name in enumerate(names) if name in rated]
            covariance = None if panel.covariance is None else panel.covariance[np.ix_(keep, keep)]
            panel = PanelEstimate(
                [names[i] for i in keep],
                panel.quality[keep],
                panel.error[keep],
                [],
                panel.spread,
                panel.step,
                covariance,
            )
        pair = next_pair(panel, asked, self._rng(rater, "pair", len(asked)))
        return None if pair is None else Question("comparison", (self.place[pair[0]], self.place[pair[1]]))

    def _fill_set(self) -> None:
        """Choose all of the budget for comparisons."""
        self._choose_beforehand()
        while len(self._set) < self.budget:
            new = self._teaching_most(set(self._usable()) - set(self._set))
            if new is None:
                return
            self._add(new)

    def _prior(self, names: Sequence[str]) -> np.ndarray:
        """Return what the student believes of pictures, on the scale 1 to 5; the middle of those it has not seen."""
        seen = self.looking.seen()
        found = np.full(len(names), (LOW + HIGH) / 2)
        if len(seen.logits) > 2:
            spread = float(seen.logits.std()) or 1.0
            score = {
                str(self.paths[int(c)]): (x - seen.logits.mean()) / spread for c, x in zip(seen.index, seen.logits)
            }
            found += np.array([0.7 * score.get(name, 0.0) for name in names])
        return found
