"""Put questions that arrive one by one, from several threads, together into batches for a model that likes them so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class Batches(Generic[Question, Reply]):
    """Answers questions in batches, in a thread of its own.

    Args:
        answer: answers a batch of one kind, in order.
        kind: what may share a batch.
        size: questions in a batch at most.
        patience: seconds to wait for more questions once there is one.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Reply]],
        kind: Callable[[Question], object],
        size: int,
        patience: float = 0.02,
    ) -> None:
        self._answer, self._kind, self._size, self._patience = answer, kind, size, patience
        self._queue: SimpleQueue[tuple[Question, Future[Reply]]] = SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    def ask(self, question: Question) -> Reply:
        """Return the answer to a question; raises what answering its batch raised."""
        future: Future[Reply] = Future()
        self._queue.put((question, future))
        return future.result()

    def _serve(self) -> None:
        held: list[tuple[Question, Future[Reply]]] = []
        while True:
            if not held:
                held.append(self._queue.get())
            kind = self._kind(held[0][0])
            while sum(self._kind(question) == kind for question, _ in held) < self._size:
                try:
                    held.append(self._queue.get(timeout=self._patience))
                except Empty:
                    break
            batch = [pair for pair in held if self._kind(pair[0]) == kind][: self._size]
            held = [pair for pair in held if pair not in batch]
            self._reply(batch)

    def _reply(self, batch: list[tuple[Question, Future[Reply]]]) -> None:
        try:
            replies = self._answer([question for question, _ in batch])
        except Exception as error:  # belongs to those who asked
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:  # one of them may have spoiled it for the others
                self._reply([one])
            return
        for (_, future), reply in zip(batch, replies):
            future.set_result(reply)
