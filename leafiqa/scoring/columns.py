"""Which columns rows of scores have beside the score: its standard error, defects, and those of details."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from leafiqa.details import of_single_pixels
from leafiqa.errors import InputError, WeightsError

if TYPE_CHECKING:
    from leafiqa.explanation import Explanation

# What can be asked for; "score" is there always.
ASKED = ("score", "se", "defects", "details")
STANDARD_ERROR = "standard_error"
_DEFECT, _DETAILS = "defect_", "details_"
_OF_DETAILS = _DETAILS + "score"


def check_columns(asked: Iterable[str]) -> tuple[str, ...]:
    """Return what was asked for, in the order of `ASKED`.

    Raises:
        InputError: something else was.
    """
    named = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [name for name in named if name not in ASKED]:
        raise InputError(f"columns must be of {', '.join(ASKED)}; got {', '.join(map(repr, unknown))}")
    return tuple(name for name in ASKED if name in named)


def takes_torch(asked: Sequence[str]) -> bool:
    """Tell whether what was asked for is more than ONNX Runtime computes."""
    return bool(set(asked) - {"score"})


def takes_details(columns: Sequence[str]) -> bool:
    """Tell whether columns, as `extra_columns` names them, take a close look at large pictures."""
    return _OF_DETAILS in columns


def extra_columns(metrics: Sequence[Any], asked: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns beside the usual ones: those of all metrics, each once.

    Args:
        metrics: that score.
        asked: what `check_columns` returned.

    Raises:
        InputError: a metric runs in ONNX Runtime, which computes scores alone; or details are asked of one that decodes
            files at reduced scale.
        WeightsError: a student tells a score and nothing else.
    """
    if not takes_torch(asked):
        return ()
    names: dict[str, None] = dict.fromkeys([STANDARD_ERROR] if "se" in asked else [])
    for metric in metrics:
        if not hasattr(metric, "student"):
            raise InputError(f"columns {', '.join(ASKED[1:])} take torch, got {metric!r}; use backend='torch'")
        if metric.student.aspects is None:
            raise WeightsError(
                f"{metric.metric_name} tells a score and nothing else, so it has no columns "
                f"{', '.join(ASKED[1:])}; the bundled `leaf` has them, and so has what `leafiqa distill` makes"
            )
        known = metric.student.aspects.defects
        if "defects" in asked:
            names.update(dict.fromkeys(_DEFECT + defect for defect in known))
        if "details" in asked:
            metric.need_whole()
            names.update(dict.fromkeys([_OF_DETAILS, *(_DETAILS + name for name in of_single_pixels(known))]))
    return tuple(names)


def values_of(explanation: Explanation, columns: Sequence[str]) -> dict[str, float | None]:
    """Return what an explanation says in each column, None where it says nothing."""
    known = {_DEFECT + name: round(severity, 3) for name, severity in explanation.defects.items()}
    known[STANDARD_ERROR] = round(explanation.standard_error, 6)
    if (details := explanation.details) is not None:
        known[_OF_DETAILS] = round(details.score, 6)
        known.update({_DETAILS + name: round(severity, 3) for name, severity in details.defects.items()})
    return {name: known.get(name) for name in columns}


def in_words(values: dict[str, float | None]) -> str:
    """Return the defects of a row that are at least slight, most severe first: "blur 1.8; at full size noise 0.6"."""
    known = {name: value for name, value in values.items() if value is not None and name != _OF_DETAILS}
    parts = [_of_kind(known, _DEFECT)]
    if values.get(_OF_DETAILS) is not None:
        parts.append(f"at full size {_of_kind(known, _DETAILS) or 'no defects'}")
    return "; ".join(part for part in parts if part)


def _of_kind(values: dict[str, float], kind: str) -> str:
    found = [(name[len(kind) :], value) for name, value in values.items() if name.startswith(kind)]
    if not found:
        return ""
    from leafiqa.explanation import SEEN  # takes torch, which is there where defects were told

    return ", ".join(f"{name} {value:.1f}" for name, value in sorted(found, key=lambda of: -of[1]) if value >= SEEN)
