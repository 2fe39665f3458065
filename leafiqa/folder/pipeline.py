"""Score files in order while worker threads decode and resize ahead, so that the model need not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from leafiqa.errors import LeafiqaError
from leafiqa.folder.rows import Row
from leafiqa.images.inputs import to_tensor
from leafiqa.metric import Metric


@dataclass(frozen=True)
class _Looked:
    """A file after decoding: what the student will look at, or why there is nothing to look at."""

    path: str
    image: tuple[Tensor, Tensor] | None
    error: str = ""
    note: str = ""


def score_files(metric: Metric, paths: Iterable[str], batch_size: int = 16, workers: int = 2) -> Iterator[Row]:
    """Score files and yield a row for each, in order, as soon as its batch is done.

    Args:
        metric: a metric that is not `as_loss`.
        paths: the files.
        batch_size: files scored together; those that differ in resized size are split up further.
        workers: threads that decode and resize. At most as many images are held in full size.

    Yields:
        One row a path; a file that cannot be scored, for whatever reason, has its error in it.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="leafiqa-decode") as pool:
        try:
            window: list[_Looked] = []
            # Resized images are small: a whole batch is made ready while another one is scored.
            for looked in _ahead(pool, metric, paths, depth=batch_size + workers):
                window.append(looked)
                if len(window) == batch_size:
                    yield from _finish(metric, window)
                    window = []
            yield from _finish(metric, window)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@torch.no_grad()
def _look(metric: Metric, path: str) -> _Looked:
    try:
        tensor, notes = to_tensor(path)
        return _Looked(path, metric.look(tensor), note="; ".join(notes))
    except Exception as error:  # one file, whatever it does, must not stop the others
        return _Looked(path, None, error=_why(error))


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError) or "allocate" in str(error) or "out of memory" in str(error):
        return "not enough memory"
    text = (str(error) or type(error).__name__).strip()
    return text if isinstance(error, LeafiqaError) else f"{type(error).__name__}: {text.splitlines()[0]}"


def _ahead(pool: ThreadPoolExecutor, metric: Metric, paths: Iterable[str], depth: int) -> Iterator[_Looked]:
    """Yield files in order, decoded and resized, with at most `depth` of them begun and not yet taken."""
    waiting: deque[Future[_Looked]] = deque()
    for path in paths:
        waiting.append(pool.submit(_look, metric, path))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@torch.no_grad()
def _finish(metric: Metric, window: list[_Looked]) -> list[Row]:
    looked = [item.image for item in window if item.image is not None]
    try:
        # One transfer for the whole window.
        found: Iterator[float | Exception] = iter(metric.score_looked(looked).tolist() if looked else [])
    except Exception:
        # Too large together, perhaps: each by itself, and the error to the one that it belongs to.
        found = iter([_alone(metric, image) for image in looked])
    rows = []
    for item in window:
        score, error = None, item.error
        if item.image is not None:
            outcome = next(found)
            if isinstance(outcome, Exception):
                error = _why(outcome)
            elif outcome != outcome:
                error = "the model gave no number"
            else:
                score = outcome
        rows.append(Row(item.path, score, error, item.note, metric.metric_name, metric.card.short_hash))
    return rows


def _alone(metric: Metric, image: tuple[Tensor, Tensor]) -> float | Exception:
    try:
        return metric.score_looked([image]).item()
    except Exception as error:
        return error
