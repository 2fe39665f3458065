"""Score files in order while worker threads decode ahead, so that the model need not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from leafiqa.errors import ImageError
from leafiqa.folder.rows import Row
from leafiqa.images.inputs import to_tensor
from leafiqa.metric import Metric


def score_files(metric: Metric, paths: Iterable[str], batch_size: int = 16, workers: int = 2) -> Iterator[Row]:
    """Score files and yield a row for each, in order, as soon as its batch is done.

    Args:
        metric: a metric that is not `as_loss`.
        paths: the files.
        batch_size: files scored together; those that differ in resized size are split up further.
        workers: threads that decode. They release the interpreter while they work.

    Yields:
        One row a path; a file that cannot be scored has its error in it.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="leafiqa-decode") as pool:
        try:
            window: list[tuple[str, tuple[Tensor, Tensor] | None, str, str]] = []
            for path, future in _ahead(pool, paths, depth=workers + 2):
                try:
                    tensor, notes = future.result()
                    window.append((path, metric.look(tensor), "", "; ".join(notes)))
                    del tensor
                except (ImageError, MemoryError) as error:
                    window.append((path, None, str(error) or "not enough memory", ""))
                if len(window) == batch_size:
                    yield from _finish(metric, window)
                    window = []
            yield from _finish(metric, window)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, paths: Iterable[str], depth: int
) -> Iterator[tuple[str, Future[tuple[Tensor, list[str]]]]]:
    """Yield `(path, decoding)` in order with at most `depth` images decoded or being decoded at a time."""
    waiting: deque[tuple[str, Future[tuple[Tensor, list[str]]]]] = deque()
    for path in paths:
        waiting.append((path, pool.submit(to_tensor, path)))
        if len(waiting) >= depth:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


@torch.no_grad()
def _finish(metric: Metric, window: list[tuple[str, tuple[Tensor, Tensor] | None, str, str]]) -> list[Row]:
    looked = [item for _, item, _, _ in window if item is not None]
    # One transfer for the whole window.
    scores = iter(metric.score_looked(looked).tolist() if looked else [])
    rows = []
    for path, item, error, note in window:
        score = next(scores) if item is not None else None
        if score is not None and score != score:
            score, error = None, "the model gave no number"
        rows.append(Row(path, score, error, note, metric.metric_name, metric.card.short_hash))
    return rows
