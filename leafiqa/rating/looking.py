"""The student's view of the candidates, taken in the background, so that rating begins at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leafiqa.calibration.features import Extracted, extract
from leafiqa.metric import Metric

_CHUNK = 8


class Looking:
    """Looks at pictures in a thread of its own, in random order.

    Args:
        metric: the metric that is to be calibrated.
        paths: the candidates.
        seed: of the order.
    """

    def __init__(self, metric: Metric, paths: Sequence[Path], seed: int = 0) -> None:
        self._metric, self._paths = metric, list(paths)
        self._order = np.random.default_rng(seed).permutation(len(self._paths))
        self._lock = threading.Lock()
        self._parts: list[Extracted] = []
        self._whole: Extracted | None = None
        self._errors: dict[int, str] = {}
        self._stop = threading.Event()
        self.failed: BaseException | None = None
        # Whether all has been looked at, and whether this has ended, for whatever reason.
        self.complete = False
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leafiqa-looking", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pictures in hand, and wait for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            for start in range(0, len(self._order), _CHUNK):
                if self._stop.is_set():
                    return
                places = self._order[start : start + _CHUNK]
                found = extract(self._metric, [self._paths[place] for place in places])
                with self._lock:
                    index = places[found.index]
                    self._parts.append(Extracted(found.features, found.logits, index, []))
                    self._errors.update({int(places[i]): why for i, why in found.errors})
                    self._whole = None
            self.complete = True
        except BaseException as error:  # rating goes on without the student's view
            self.failed = error
        finally:
            self.done.set()

    def seen(self) -> Extracted:
        """Return what has been looked at so far; `index` says which candidates the rows are."""
        with self._lock:
            if self._whole is None:
                parts = [part for part in self._parts if len(part.logits)]
                if not parts:
                    empty = np.empty(0)
                    return Extracted(np.empty((0, 0)), empty, np.empty(0, dtype=np.intp), [])
                self._whole = Extracted(
                    np.concatenate([part.features for part in parts]),
                    np.concatenate([part.logits for part in parts]),
                    np.concatenate([part.index for part in parts]).astype(np.intp),
                    [],
                )
            return self._whole

    def errors(self) -> dict[int, str]:
        """Return why candidates cannot be read, by their number."""
        with self._lock:
            return dict(self._errors)


def rows_of(seen: Extracted, candidates: Sequence[int]) -> NDArray[np.intp]:
    """Return the rows of some candidates in what has been seen; those not seen are left out."""
    place = {int(candidate): row for row, candidate in enumerate(seen.index)}
    return np.array([place[candidate] for candidate in candidates if candidate in place], dtype=np.intp)
