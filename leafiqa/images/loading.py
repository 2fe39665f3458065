"""Load images ahead of whatever consumes them: the one loop of worker threads that decode while others wait."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

_MOST_WORKERS = 4


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers() -> int:
    """Return how many threads decode where the caller does not say: one a core, at most four."""
    return min(_MOST_WORKERS, cores())


def load_ahead(
    load: Callable[[Item], Loaded],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    depth: int | None = None,
    begin: Callable[[], None] | None = None,
) -> Iterator[Loaded]:
    """Yield what `load` returns for each item, in order, while threads work ahead.

    Args:
        load: called in several threads at once; what it raises is raised here, at its item's turn.
        items: taken one by one, so that they may be without end.
        workers: threads; None means `usual_workers()`. At most as many items are being loaded.
        depth: items begun and not yet taken, at most; None means twice the workers.
        begin: called once in each thread, before it loads anything.
    """
    workers = workers or usual_workers()
    depth = max(depth or 2 * workers, 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="leafiqa-load", initializer=begin) as pool:
        waiting: deque[Future[Loaded]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                # What is done need not wait for what comes after it.
                while waiting and (len(waiting) >= depth or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
