"""The progress bars of every long command, on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress


_LINE_SECONDS = 30


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
    """Show a bar with count, rate and time left, where stderr is a terminal.

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


@contextlib.contextmanager
def steps(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show steps and time left of something long: a bar on a terminal, else a line now and then.

    Args:
        what: the word before the bar, such as "distilling".

    Yields:
        What to call with the steps done and how many there are.
    """
    if not sys.stderr.isatty():
        began, first, last, told = time.monotonic(), -1, -1, time.monotonic()

        def line(step: int, total: int) -> None:
            nonlocal began, first, last, told
            anew, last = step <= last, step  # one long thing after another
            if first < 0 or anew:
                first, began = step, time.monotonic()
            elif time.monotonic() - told > _LINE_SECONDS or step == total:
                told = time.monotonic()
                left = (total - step) * (told - began) / (step - first)
                click.echo(f"step {step} of {total}, {left / 60:.0f} min left", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Long steps: the speed of the last ten minutes tells the time left, not that of the last half minute.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task("", total=None)

        def move(step: int, total: int) -> None:
            if step < bar.tasks[0].completed:  # one long thing after another
                bar.reset(task, total=total)
            bar.update(task, completed=step, total=total)

        yield move
