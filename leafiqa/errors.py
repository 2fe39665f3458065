"""Every exception and warning that leafiqa raises on purpose. All exceptions derive from `LeafiqaError`."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator


class LeafiqaError(Exception):
    """Base class: catch it to catch everything leafiqa raises on purpose."""


class InputError(LeafiqaError, ValueError):
    """An argument, table, tensor or file is not of the documented form."""


class ImageError(LeafiqaError, ValueError):
    """One image cannot be read, or cannot be decoded faithfully."""


class OutputError(LeafiqaError, OSError):
    """A file cannot be written where it was asked for: it would replace something, or there is no such folder."""


class WeightsError(LeafiqaError, RuntimeError):
    """A checkpoint is missing, unreachable, malformed or not what its card says."""


class UnknownModelError(WeightsError, ValueError):
    """No model of that name."""


class EvidenceError(LeafiqaError, ValueError):
    """Teacher evidence or a distillation config cannot be used as it is."""


class CalibrationError(LeafiqaError, ValueError):
    """The labels cannot support a calibration."""


class TrainingError(LeafiqaError, RuntimeError):
    """A training cannot be done as asked, or has failed: nothing of it is saved."""


class TeacherError(LeafiqaError):
    """A question that stays without an answer; the message says why.

    Attributes:
        tokens: what it cost all the same, `(in, out)`.
    """

    def __init__(self, message: str, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.tokens = tokens


class TeacherRefused(TeacherError):
    """The server understood the question and refused it.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TeacherStopped(TeacherError):
    """Asking was stopped before this question had its answer."""


class TeacherUnusable(TeacherError):
    """No question can be answered: a wrong address, model or key."""


class ImageWarning(UserWarning):
    """An image of several could not be scored (its score is NaN), or was scored with a remark."""


class GuardWarning(UserWarning):
    """Pictures under optimisation have left the range of those before: the reward may be hacked."""


@contextlib.contextmanager
def naming_image(index: int) -> Iterator[None]:
    """Let what is wrong with one image of several be told with its place among them."""
    try:
        yield
    except InputError as error:
        raise InputError(f"image {index}: {error}") from error


def warn_of_image(message: str) -> None:
    """Warn at the line of the caller's that called into leafiqa or the metric, through torch's own frames."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("leafiqa", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ImageWarning, stacklevel=level)
