"""Checks of arguments that many functions have."""

from __future__ import annotations

import math
from typing import Any

from leafiqa.errors import InputError


def whole_number(value: Any, name: str, least: int) -> int:
    """Return a whole number from `least` on.

    Raises:
        InputError: it is none; the message names the argument.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise InputError(f"{name} must be a whole number from {least} on, got {value!r}")
    return int(value.__index__())


def finite_number(value: Any, name: str, *, least: float | None = None, above: float | None = None) -> float:
    """Return a finite number, perhaps from `least` on, or above `above`.

    Raises:
        InputError: it is none; the message names the argument.
    """
    good = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    if not good or (least is not None and value < least) or (above is not None and value <= above):
        wanted = "a finite number"
        if least is not None:
            wanted = f"a number from {least:g} on"
        elif above is not None:
            wanted = f"a number above {above:g}"
        raise InputError(f"{name} must be {wanted}, got {value!r}")
    return float(value)


def two_rising(value: Any, name: str) -> tuple[float, float]:
    """Return two finite numbers, the second larger than the first.

    Raises:
        InputError: they are none; the message names the argument.
    """
    try:
        low, high = (float(end) for end in value if not isinstance(end, (str, bytes)))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be two finite numbers that rise, got {value!r}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{name} must be two finite numbers that rise, got {value!r}")
    return low, high
