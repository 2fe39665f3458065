"""Keep two processes from adding to one file at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from leafiqa.errors import EvidenceError


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file, which is made if it is not there, while a block runs; a process that dies lets go of it.

    Where the system or the folder knows no locks, nothing is held.

    Raises:
        EvidenceError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvidenceError(f"another process is writing to {path}: wait for it, or stop it") from error
        except OSError:  # a file system without locks
            pass
        yield
