"""Images that are no files: named bytes, read when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """An image that is scored like a file.

    Attributes:
        name: what rows call it.
        read: returns the bytes of the file; called once, in a worker thread. What it raises is the row's error.
    """

    name: str
    read: Callable[[], bytes]
