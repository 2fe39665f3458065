"""The packages that the extra `onnx` installs."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from leafiqa.errors import InputError


def need(package: str) -> Any:
    """Import one of them.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"this needs {package}, which is not installed: pip install 'leafiqa[onnx]'") from error


def has_runtime() -> bool:
    """Tell whether ONNX Runtime is installed, without importing it."""
    return find_spec("onnxruntime") is not None
