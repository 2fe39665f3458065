"""The progress bar of every long command: on stderr, and only where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A progress bar, or nothing where stderr is no terminal."""

    def __init__(self, progress: Progress | None, task: Any, unit: str) -> None:
        self._progress, self._task, self._unit = progress, task, unit
        self._began, self._done = time.monotonic(), 0

    def __call__(self) -> None:
        """Advance by one."""
        self._done += 1
        if self._progress is not None:
            took = time.monotonic() - self._began
            rate = f"{self._done / took:.1f} {self._unit}/s" if took > 1 else ""
            self._progress.update(self._task, advance=1, rate=rate)

    @property
    def shares_terminal_with_stdout(self) -> bool:
        """Whether text written to stdout now would be torn by the bar."""
        return self._progress is not None and sys.__stdout__ is not None and sys.__stdout__.isatty()

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        from rich.text import Text

        if self._progress is not None:
            self._progress.console.print(Text(text.rstrip("\n")), soft_wrap=True, highlight=False)


@contextlib.contextmanager
def progress(total: int, what: str, unit: str = "images") -> Iterator[Bar]:
    """Show a bar with count, rate and time left.

    Args:
        total: how many steps there are.
        what: the word before the bar, such as "scoring".
        unit: what is counted.
    """
    if not sys.stderr.isatty():
        yield Bar(None, None, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as shown:
        yield Bar(shown, shown.add_task(what, total=total, rate=""), unit)
