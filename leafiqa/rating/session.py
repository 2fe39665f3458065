"""A session of rating: what each rater is asked next, what they answered, and what that comes to."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.metric import Metric
from leafiqa.rating.answers import CHOICES, HIGH, LOW, Answer, AnswerFile, Answers, is_rating
from leafiqa.rating.knowledge import Knowledge, what_is_known
from leafiqa.rating.looking import Looking, rows_of
from leafiqa.rating.questions import ASKS, Ask, Question, Questions

# Why a question may be skipped.
SKIPS = ("cannot be seen", "does not belong here", "broken", "rather not")


@dataclass
class _Rater:
    """One rater's place: the present question and the one after it."""

    number: int = 0
    now: Question | None = None
    ahead: Question | None = None
    chosen: bool = False
    shown: float = field(default_factory=time.monotonic)


class Session:
    """Asks several raters about pictures; may be called from several threads.

    Everything but the present question is derived from the file of answers, so that a killed session goes on.

    Args:
        paths: the candidates.
        answers: where answers go.
        metric: the metric that is to be calibrated.
        budget: how many pictures are to be rated.
        ask: "rating", "comparison" or "both".
        seed: of all that is drawn.

    Raises:
        InputError: an argument that is none of the above.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        answers: AnswerFile,
        metric: Metric,
        *,
        budget: int,
        ask: Ask = "rating",
        seed: int = 0,
    ) -> None:
        if ask not in ASKS:
            raise InputError(f"ask must be one of {', '.join(ASKS)}, got {ask!r}")
        self.paths = [Path(path) for path in paths]
        if whole_number(budget, "budget", 1) > len(self.paths):
            raise InputError(f"budget must be from 1 to the number of pictures, {len(self.paths)}, got {budget}")
        self.looking = Looking(metric, self.paths, seed)
        self._answers = answers
        self.questions = Questions(self.paths, answers, self.looking, budget, ask, seed)
        self._lock = threading.RLock()
        self._raters: dict[str, _Rater] = {}
        self._known: tuple[tuple[int, int], Knowledge] | None = None

    @property
    def unreadable(self) -> dict[int, str]:
        """Why candidates cannot be shown after all, by number; may be added to."""
        return self.questions.unreadable

    def answers(self) -> Answers:
        """Return the answers that count so far."""
        return self.questions.answers()

    def own(self, rater: str) -> list[Answer]:
        """Return a rater's answers that count."""
        return self.questions.own(rater)

    # What is asked.

    def state(self, rater: str) -> tuple[int, Question | None]:
        """Return the number of a rater's present question, and the question; None when all is answered.

        Raises:
            InputError: no name, or one that is too long or holds control characters.
        """
        check_name(rater)
        with self._lock:
            place = self._raters.get(rater)
            if place is None:
                place = _Rater(number=len(self.own(rater)))
                place.now = self.questions.choose(rater, ())
                self._raters[rater] = place
            elif place.now is None:
                place.now = self.questions.choose(rater, ())
            return place.number, place.now

    def ahead(self, rater: str) -> Question | None:
        """Return the question after the present one, so that its pictures can be loaded."""
        self.state(rater)
        with self._lock:
            place = self._raters[rater]
            if not place.chosen and place.now is not None:
                place.ahead, place.chosen = self.questions.choose(rater, (place.now,)), True
            return place.ahead

    def answer(self, rater: str, number: int, value: str, seconds: float = math.nan) -> bool:
        """Take an answer to a rater's present question; it is on disk when this returns.

        Args:
            rater: who answers.
            number: of the question; one that was answered already is not answered again.
            value: "1" to "5", also with decimals, or "first", "second", "tie".
            seconds: how long it took.

        Returns:
            Whether the answer counts: False if the question was answered before.

        Raises:
            InputError: not an answer to this question.
            OutputError: it cannot be written.
        """
        return self._take(rater, number, value, seconds, skip=False)

    def skip(self, rater: str, number: int, reason: str) -> bool:
        """Skip a rater's present question, with one of `SKIPS` as the reason; see `answer`."""
        if reason not in SKIPS:
            raise InputError(f"reason must be one of {', '.join(SKIPS)}, got {reason!r}")
        return self._take(rater, number, reason, math.nan, skip=True)

    def _take(self, rater: str, number: int, value: str, seconds: float, skip: bool) -> bool:
        with self._lock:
            present, question = self.state(rater)
            if number != present or question is None:
                return False
            if not skip:
                _check_value(question, value)
            images = [str(self.paths[image]) for image in question.images]
            kind = "skip" if skip else question.kind
            self._answers.append(
                Answer(
                    0,
                    rater,
                    kind,
                    images[0],
                    images[1] if len(images) > 1 else "",
                    value,
                    question.phase,
                    seconds,
                    datetime.now(timezone.utc).isoformat(timespec="seconds"),
                )
            )
            place = self._raters[rater]
            place.number += 1
            place.now = place.ahead if place.chosen else self.questions.choose(rater, ())
            place.ahead, place.chosen = None, False
            return True

    def undo(self, rater: str, number: int) -> bool:
        """Take back a rater's last answer; its question is asked again.

        Args:
            rater: whose answer.
            number: of the present question; with another, as from a page that is not up to date, nothing is taken back.

        Returns:
            Whether there was one.
        """
        with self._lock:
            present, _ = self.state(rater)
            own = self.own(rater)
            if not own or number != present:
                return False
            last = own[-1]
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._answers.append(
                Answer(0, rater, "undo", last.image, last.other, str(last.answer), last.phase, time=now)
            )
            place = self._raters[rater]
            names = [name for name in (last.image, last.other) if name]
            place.ahead, place.chosen = place.now, place.now is not None
            kind: Literal["rating", "comparison"] = "comparison" if last.other else "rating"
            # A picture that is no candidate any more is not asked about again.
            there = all(name in self.questions.place for name in names)
            images = tuple(self.questions.place[name] for name in names) if there else ()
            place.now = Question(kind, images, last.phase) if there else None
            place.number += 1
            return True

    def progress(self, rater: str) -> tuple[int, int]:
        """Return how many questions a rater has answered, and about how many there are."""
        done = len(self.own(rater))
        return done, max(self.questions.total(), done)

    # What it comes to.

    def known(self) -> Knowledge:
        """Return what the answers so far come to; computed anew when there are new ones."""
        seen = self.looking.seen()
        count = (len(self._answers), len(seen.index))
        if self._known is None or self._known[0] != count:
            panel = self.questions.estimate()
            candidates = [self.questions.place[image] for image in panel.images]
            rows = rows_of(seen, candidates)
            there = set(seen.index.tolist())
            kept = [i for i, candidate in enumerate(candidates) if candidate in there]
            errors = panel.error[kept].tolist()
            self._known = (count, what_is_known(seen, rows, panel.quality[kept], errors))
        return self._known[1]


def check_name(rater: object) -> str:
    """Return a rater's name.

    Raises:
        InputError: it is no text, empty, longer than 60 characters, or not printable.
    """
    if not isinstance(rater, str) or not rater.strip() or len(rater) > 60 or not rater.isprintable():
        raise InputError(f"a rater's name must be 1 to 60 printable characters, got {rater!r:.80}")
    if rater[0] in "=+-@":  # a spreadsheet would take it for a formula
        raise InputError(f"a rater's name must not begin with =, +, - or @, got {rater!r}")
    return rater


def _check_value(question: Question, value: str) -> None:
    if question.kind == "comparison":
        if value not in CHOICES:
            raise InputError(f"a comparison must be one of {', '.join(CHOICES)}, got {value!r:.40}")
        return
    if not is_rating(value):
        raise InputError(f"a rating must be a number from {LOW:g} to {HIGH:g}, got {value!r:.40}")
