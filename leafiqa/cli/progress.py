"""The progress of every long command, on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from leafiqa.cli.output import note
from leafiqa.files import printable

if TYPE_CHECKING:
    from rich.progress import Progress

# Without a terminal, a line each so many seconds tells that the command is alive.
_LINE_SECONDS = 15.0


class Bar:
    """Shows how far something is.

    Args:
        progress: the bar's display, None where stderr is no terminal.
        what: the word before the count, such as "scoring".
        unit: what is counted.
    """

    def __init__(self, progress: Progress | None, what: str, unit: str) -> None:
        self._progress, self._what, self._unit = progress, what, unit
        self._task: Any = None if progress is None else progress.add_task(what, total=None, rate="")
        self._began = self._told = time.monotonic()
        self._first: int | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Show that so many of so many steps are done. Fewer than before means that something long begins anew."""
        if self._first is None or done < self._done:
            self._began, self._first = time.monotonic(), max(0, done - 1)
            if self._progress is not None:
                self._progress.reset(self._task, total=total)
        self._done = done
        took = time.monotonic() - self._began
        speed = (done - self._first) / took if took > 1 else 0.0
        if self._progress is not None:
            rate = f"{speed:.1f} {self._unit}/s" if speed >= 0.1 else ""
            self._progress.update(self._task, completed=done, total=total, rate=rate)
        elif time.monotonic() - self._told > _LINE_SECONDS:
            self._told = time.monotonic()
            left = f", about {_time((total - done) / speed)} left" if speed and total > done else ""
            note(f"{self._what}: {done} of {total} {self._unit}{left}")

    @property
    def shares_terminal_with_stdout(self) -> bool:
        """Whether text written to stdout now would be torn by the bar."""
        return self._progress is not None and sys.__stdout__ is not None and sys.__stdout__.isatty()

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        from rich.text import Text

        if self._progress is not None:
            self._progress.console.print(Text(printable(line.rstrip("\n"))), soft_wrap=True, highlight=False)
        else:
            note(line)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


@contextlib.contextmanager
def progress(what: str, unit: str = "images") -> Iterator[Bar]:
    """Show the progress of something while a block runs.

    Args:
        what: the word before the count, such as "scoring".
        unit: what is counted.

    Yields:
        What to call with the steps done and how many there are; its `say` prints lines in between.
    """
    if not sys.stderr.isatty():
        yield Bar(None, what, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        # Of long steps the speed of the last ten minutes tells the time left, not that of the last half minute.
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as shown:
        yield Bar(shown, what, unit)
