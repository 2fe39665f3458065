"""Exact, deterministic float32 on CUDA while scoring, with torch's process-wide settings as found afterwards.

cuDNN computes float32 convolutions in TF32 by default, and picks algorithms by speed if told to, so that a score would
depend on the card and on what ran before. torch has these switches for the whole process only. They are set when the
first of several overlapping calls begins, and put back when the last one ends.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

_lock = threading.Lock()
_inside = 0
_restore: list[Callable[[], None]] = []


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute exactly on a CUDA device while a block runs; elsewhere nothing needs to be set."""
    if device.type != "cuda" or torch.compiler.is_compiling():
        yield
        return
    global _inside
    with _lock:
        if not _inside:
            _set()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                while _restore:
                    _restore.pop()()


def _set() -> None:
    """Set the switches; how to put each back is noted in `_restore`. Called with the lock held."""
    switches: list[tuple[Any, str, Any]] = [
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
    ]
    if hasattr(torch.backends.cudnn, "conv"):
        # Of torch 2.9 and later. The older switches raise where a program uses these, these never do.
        switches += [
            (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
            (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        ]
    else:
        switches += [(torch.backends.cudnn, "allow_tf32", False), (torch.backends.cuda.matmul, "allow_tf32", False)]
    for owner, name, value in switches:
        _restore.append(functools.partial(setattr, owner, name, getattr(owner, name)))
        setattr(owner, name, value)
