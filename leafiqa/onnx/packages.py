"""The packages that the extra `onnx` installs."""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from leafiqa.errors import InputError


def need(package: str) -> Any:
    """Import one of them.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise InputError(f"this needs {package}, which is not installed: pip install 'leafiqa[onnx]'") from error
        raise InputError(f"{package} cannot be imported: {error}; pip install -U 'leafiqa[onnx]' may help") from error


@lru_cache(maxsize=1)
def has_runtime() -> bool:
    """Tell whether there is an ONNX Runtime that works and fills graphs with weights, as 1.20 and later do."""
    if find_spec("onnxruntime") is None:
        return False
    try:
        runtime = importlib.import_module("onnxruntime")
    except Exception:  # a broken installation; torch computes then
        return False
    return hasattr(runtime.SessionOptions, "add_external_initializers")
