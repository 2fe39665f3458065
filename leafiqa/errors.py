"""Exceptions that leafiqa raises on purpose. All derive from `LeafiqaError`."""

from __future__ import annotations


class LeafiqaError(Exception):
    """Base class: catch it to catch everything leafiqa raises on purpose."""


class InputError(LeafiqaError, ValueError):
    """An argument or tensor is not of the documented form."""


class ImageError(LeafiqaError, ValueError):
    """One image cannot be read, or cannot be decoded faithfully."""


class WeightsError(LeafiqaError, RuntimeError):
    """A checkpoint is missing, unreachable, malformed or not what its card says."""


class UnknownModelError(WeightsError, ValueError):
    """No model of that name."""


class EvidenceError(LeafiqaError, ValueError):
    """Teacher evidence or a distillation config cannot be used as it is."""


class CalibrationError(LeafiqaError, ValueError):
    """The labels cannot support a calibration."""
