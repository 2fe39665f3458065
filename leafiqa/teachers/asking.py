"""Ask a teacher about many images and write down what it says, so that nothing is lost and nothing asked twice.

Each answer is on the disk before the next one is counted. A run that was killed goes on with what has no answer yet;
only questions that were under way at that moment are asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from leafiqa.errors import ImageError, TeacherError, TeacherStopped, TeacherUnusable
from leafiqa.images.decoding import decode
from leafiqa.teachers.journal import Journal, Task
from leafiqa.teachers.protocol import Answer, Teacher

# What was shown of a question, the answer, the images' digests, and images that could not be read.
Said = tuple[Task, Answer, list[str], list[tuple[Task, str]]]


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


def _open(path: Path) -> tuple[Image.Image, str]:
    """Return an image and the sha256 of its file, from one reading."""
    if not path.is_file():  # reading a pipe would wait for ever
        raise ImageError(f"{path.name} is {'no regular file' if path.exists() else 'not there'}")
    content = path.read_bytes()
    pixels = decode(content).pixels
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    return Image.fromarray(pixels), hashlib.sha256(content).hexdigest()
