"""A store of scores by content: a picture is scored once by the same weights, wherever it lies."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import leafiqa
from leafiqa.errors import OutputError
from leafiqa.files import StrPath
from leafiqa.metric import Metric

_MOST = 500  # variables in one statement


def usual_place() -> Path:
    """Return where the cache lies: `LEAFIQA_CACHE`, else `leafiqa/scores.sqlite` in the user's cache folder."""
    if named := os.environ.get("LEAFIQA_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "leafiqa" / "scores.sqlite"


def key_of(metric: Metric) -> str:
    """Return what a metric's scores depend on beside the picture: its weights, its precision, leafiqa's version."""
    precision = str(next(metric.student.backbone.parameters()).dtype).removeprefix("torch.")
    kind = "cpu" if metric.device.type == "cpu" else "accelerator"
    reduced = ":draft" if metric.draft else ""
    return f"{metric.card.sha256}:{precision}:{kind}:{leafiqa.__version__}{reduced}"


class ScoreCache:
    """Scores by the picture's sha256 and the metric's key, in an SQLite file that several processes may share.

    Args:
        path: the file; made with its folder if it is not there.

    Raises:
        OutputError: the file cannot be used.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Threads: only ever one at a time uses it, but not always the one that opened it.
            self._store = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
            self._store.execute(
                "CREATE TABLE IF NOT EXISTS scores "
                "(image TEXT, metric TEXT, score REAL NOT NULL, PRIMARY KEY (image, metric)) WITHOUT ROWID"
            )
            self._store.execute("SELECT image, metric, score FROM scores LIMIT 1").fetchall()
            self._store.commit()
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"cannot use the cache of scores {self.path}: {error}; name another with cache=... (--cache on the "
                "command line), or do without: cache=None (--no-cache)"
            ) from error

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    def find(self, images: Sequence[str], metric: str) -> dict[str, float]:
        """Return the scores that are known, by sha256; none where the file has come to harm meanwhile."""
        found: dict[str, float] = {}
        with contextlib.suppress(sqlite3.Error):
            self._find(images, metric, found)
        return found

    def _find(self, images: Sequence[str], metric: str, found: dict[str, float]) -> None:
        for start in range(0, len(images), _MOST):
            some = images[start : start + _MOST]
            marks = ",".join("?" * len(some))
            rows = self._store.execute(
                f"SELECT image, score FROM scores WHERE metric = ? AND image IN ({marks})", (metric, *some)
            )
            found.update((image, score) for image, score in rows.fetchall() if isinstance(score, float))

    def add(self, scores: Iterable[tuple[str, str, float]]) -> None:
        """Keep scores: sha256, metric's key, score. A cache that cannot be written to now just does not learn them."""
        with contextlib.suppress(sqlite3.Error), self._store:
            self._store.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", scores)
