"""Ask a teacher about many images and write down what it says, so that nothing is lost and nothing asked twice.

Each answer is on the disk before the next one is counted. A run that was killed goes on with what has no answer yet;
only questions that were under way at that moment are asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from leafiqa.errors import EvidenceError, ImageError
from leafiqa.evidence.files import Evidence, append_evidence, read_evidence
from leafiqa.evidence.order import order
from leafiqa.evidence.reliability import preferences, targets
from leafiqa.images.decode import decode
from leafiqa.teachers.pairs import choose_pairs
from leafiqa.teachers.protocol import Answer, Teacher, TeacherError, TeacherStopped, TeacherUnusable
from leafiqa.teachers.sheets import deal


class Task(NamedTuple):
    """One question.

    Attributes:
        kind: "point", "pair" or "sheet".
        images: names: one, two in the order shown, or those on a contact sheet.
    """

    kind: str
    images: tuple[str, ...]


# What was shown of a question, the answer, the images' digests, and images that could not be read.
Said = tuple[Task, Answer, list[str], list[tuple[Task, str]]]

_ROUNDS = 4


@dataclass
class Report:
    """What came of asking.

    Attributes:
        answered: questions answered in this run.
        failed: questions without an answer, and why.
        tokens: tokens in and out, as the server counts them.
    """

    answered: int = 0
    failed: list[tuple[Task, str]] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)

    def add(self, other: Report) -> None:
        """Add another report's figures."""
        self.answered += other.answered
        self.failed += other.failed
        self.tokens = (self.tokens[0] + other.tokens[0], self.tokens[1] + other.tokens[1])


class Journal:
    """The evidence file of one teacher: what it has answered already.

    Args:
        path: the file; need not exist yet.
        teacher: the teacher's name; each line carries it as `asked`.

        prompts: names of the prompts that are asked now; None does not look at them.

    Raises:
        EvidenceError: the file holds another teacher's evidence or was asked for with other prompts.
    """

    def __init__(self, path: Path, teacher: str, prompts: Collection[str] | None = None) -> None:
        self.path, self.teacher = path, teacher
        self.done: dict[Task, int] = {}
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                record = json.loads(line)
                kind = record["kind"]
                task = Task(kind, (record["image"],) if kind == "point" else tuple(record["images"]))
            except (ValueError, KeyError, TypeError):
                continue  # a torn line: its question is asked again
            if record.get("asked") != teacher:
                raise EvidenceError(
                    f"{path} holds evidence of {record.get('asked') or 'an unnamed teacher'}, not of {teacher}: "
                    "write each teacher's to a file of its own"
                )
            if prompts is not None and record.get("prompt") not in prompts:
                raise EvidenceError(
                    f"{path} was asked for with prompt {record.get('prompt')!r}, now it would be one of "
                    f"{sorted(prompts)}: write the answers to each to a file of their own"
                )
            self.done[task] = self.done.get(task, 0) + 1

    def write(self, task: Task, answer: Answer, digests: Sequence[str]) -> None:
        """Add an answer and wait until it is on the disk.

        Raises:
            ValueError: it is not of the evidence format, or a name cannot be written as UTF-8.
        """
        records: list[dict[str, Any]] = []
        if task.kind == "point":
            records.append({"kind": "point", "image": task.images[0], "sha256": digests[0], **answer.judgment})
        elif task.kind == "pair":
            records.append({"kind": "pair", "images": list(task.images), "sha256": list(digests), **answer.judgment})
        else:
            # Named after what is on it, in its order: the same in any run.
            view = hashlib.sha256("\0".join((*task.images, *digests)).encode()).hexdigest()[:12]
            for name, digest, point in zip(task.images, digests, answer.judgment["points"]):
                records.append({"kind": "point", "image": name, "sha256": digest, **point, "view": view})
            if (ranking := answer.judgment["ranking"]) is not None and len(ranking) > 1:
                records.append({"kind": "ranking", "images": [task.images[i] for i in ranking], "view": view})
        append_evidence(self.path, [{**record, **answer.asked, "asked": self.teacher} for record in records])
        for done in [Task("point", (name,)) for name in task.images] if task.kind == "sheet" else [task]:
            self.done[done] = self.done.get(done, 0) + 1

    def evidence(self) -> Evidence:
        """Return all that was answered."""
        return read_evidence([self.path])


def ask(
    teacher: Teacher,
    tasks: Iterable[Task],
    folder: Path,
    journal: Journal,
    *,
    threads: int = 8,
    advance: Callable[[Task], None] = lambda task: None,
) -> Report:
    """Ask questions and write the answers down.

    Args:
        teacher: whom to ask.
        tasks: what to ask.
        folder: what the images' names are relative to.
        journal: where to write.
        threads: questions that are worked on at once: images being read, answers waited for, questions put off.
        advance: called with each question that is done with, answered or not.

    Raises:
        TeacherUnusable: no question can be answered; what was answered before is on the disk.
    """
    report = Report()

    def one(task: Task) -> Said:
        opened, unreadable = [], []
        for name in task.images:
            try:
                opened.append((name, *_open(folder / name)))
            except (ImageError, OSError) as error:
                # Of a contact sheet the others are judged all the same.
                if task.kind != "sheet":
                    raise
                unreadable.append((Task("point", (name,)), str(error)))
        pictures = [picture for _, picture, _ in opened]
        if task.kind == "point":
            answer = teacher.judge(pictures[0])
        elif task.kind == "pair":
            answer = teacher.compare(pictures[0], pictures[1])
        elif pictures:
            answer = teacher.sheet(pictures)  # type: ignore[attr-defined]
        else:
            raise TeacherError("none of its images can be read")
        shown = Task(task.kind, tuple(name for name, _, _ in opened))
        return shown, answer, [digest for _, _, digest in opened], unreadable

    def done(future: Future[Said], task: Task) -> None:
        try:
            shown, answer, digests, unreadable = future.result()
            journal.write(shown, answer, digests)
        except TeacherUnusable:
            raise
        except TeacherStopped:
            return  # it stays to be asked
        except Exception as error:  # whatever it is, it is this question's, and must not end the others
            report.failed.append((task, str(error) or type(error).__name__))
            cost = error.tokens if isinstance(error, TeacherError) else (0, 0)
        else:
            report.failed += unreadable
            report.answered += 1
            cost = answer.tokens
        report.tokens = (report.tokens[0] + cost[0], report.tokens[1] + cost[1])
        advance(task)

    pool = ThreadPoolExecutor(threads)
    waiting: dict[Future[Said], Task] = {}
    upcoming = iter(tasks)
    try:
        while True:
            # A few more than are under way, so that a free thread finds work at once.
            for task in itertools.islice(upcoming, max(0, threads + 4 - len(waiting))):
                waiting[pool.submit(one, task)] = task
            if not waiting:
                return report
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                done(future, waiting.pop(future))
    except BaseException:
        # Ask nothing more, but write down what is being answered already: it is paid for.
        pool.shutdown(wait=False, cancel_futures=True)
        getattr(teacher, "stop", lambda: None)()
        for future, task in waiting.items():
            if not future.cancelled():
                with contextlib.suppress(TeacherError, CancelledError):
                    done(future, task)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


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
        # Also those that will stay without an answer: they are not to be chosen for ever.
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
    said = preferences(evidence)
    if not said:
        return prior, 1.5
    return order(names, said, prior=prior, prior_std=1.5 if prior else 2.0), 1.0


def as_belief(score: float) -> float:
    """Return a score in [0, 1] as what `choose_pairs` takes for known: in logits, as wide as those of comparisons."""
    clipped = min(max(score, 0.02), 0.98)
    return 3 * math.log(clipped / (1 - clipped))


def _open(path: Path) -> tuple[Image.Image, str]:
    """Return an image and the sha256 of its file, from one reading."""
    if not path.is_file():  # reading a pipe would wait for ever
        raise ImageError(f"{path.name} is {'no regular file' if path.exists() else 'not there'}")
    content = path.read_bytes()
    pixels = decode(content).pixels
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    return Image.fromarray(pixels), hashlib.sha256(content).hexdigest()
