"""Several threads that compute side by side, each with one core, instead of one after the other with all of them.

A small network's layers are too small to be split among cores well: on two cores pictures side by side take a seventh
less time, and the more cores, the more that is. torch keeps one number of threads for the whole process; OpenMP, which
it computes with, keeps one for each thread, and that one is set here.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import threading
from pathlib import Path

import torch

_NAMES = re.compile(r"lib(gomp|omp|iomp5)[-.]")


@functools.lru_cache(maxsize=1)
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library that torch computes with, None where that cannot be told."""
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return None
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        loaded = {Path(line.split(maxsplit=5)[-1]) for line in lines if "/" in line}
        found = [path for path in loaded if _NAMES.match(path.name)]
        own = [path for path in found if Path(torch.__file__).parent in path.parents] or found
        return ctypes.CDLL(str(own[0])) if len(own) == 1 else None
    except OSError:
        return None


def compute_alone() -> None:
    """Make torch's operations in this thread use this thread alone; to be called in a thread of one's own."""
    torch.get_num_threads()  # torch sets a new thread's number once, when it is first asked for: so not later
    library = _openmp()
    if library is not None:
        library.omp_set_num_threads(1)


def may_leave_this_thread() -> bool:
    """Whether another thread would compute what this one does: tracers and transforms of torch's look at one thread."""
    return not (
        torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@functools.lru_cache(maxsize=1)
def can_compute_alone() -> bool:
    """Whether `compute_alone` does what it is for, with this build of torch."""
    seen: list[int] = []

    def work() -> None:
        compute_alone()
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return seen == [1]
