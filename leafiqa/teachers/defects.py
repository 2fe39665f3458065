"""Defects as a teacher's answer names them."""

from __future__ import annotations

from typing import Any

from leafiqa.evidence.records import MOST_SEVERE


def read_defects(value: Any) -> dict[str, float] | None:
    """Return severities by name, None where the answer does not tell them as asked.

    A score is not lost for defects that cannot be read.

    Args:
        value: what the answer's JSON holds: severities by name, or a list of names, which count as clear.
    """
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = dict.fromkeys(value, 2)
    if not isinstance(value, dict):
        return None
    found: dict[str, float] = {}
    for name, severity in value.items():
        if isinstance(severity, bool) or not isinstance(severity, (int, float)) or not 0 <= severity <= MOST_SEVERE:
            return None
        if severity and name.strip():
            found[name.strip().lower()] = severity
    return found
