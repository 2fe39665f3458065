"""Let the C library keep freed memory for the next tensor instead of returning it to the system each time.

A network on the CPU allocates and frees the same large tensors for every batch. By default glibc takes each from the
system afresh, which zeroes it page by page: about a third of the time. Only the command line sets this, in its own
process; `import leafiqa` touches nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Raise glibc's thresholds for returning memory; does nothing elsewhere, or where the user has set them."""
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return
    mallopt(_M_MMAP_THRESHOLD, _BYTES)
    mallopt(_M_TRIM_THRESHOLD, _BYTES)
