"""leafiqa: how good does an image look to people? No-reference image quality with small distilled students.

>>> import leafiqa
>>> metric = leafiqa.create_metric("leaf")
>>> metric("photo.jpg")
tensor([0.7312])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leafiqa.api import create_metric
    from leafiqa.errors import ImageError, InputError, LeafiqaError, UnknownModelError, WeightsError
    from leafiqa.metric import ImageWarning, Metric
    from leafiqa.model.registry import list_models

__version__ = "0.1.0"

# Where each public name lives. Loaded on first use, so that `import leafiqa` is cheap and needs no torch.
_HOMES = {
    "create_metric": "leafiqa.api",
    "list_models": "leafiqa.model.registry",
    "Metric": "leafiqa.metric",
    "ImageWarning": "leafiqa.metric",
    "LeafiqaError": "leafiqa.errors",
    "InputError": "leafiqa.errors",
    "ImageError": "leafiqa.errors",
    "WeightsError": "leafiqa.errors",
    "UnknownModelError": "leafiqa.errors",
}

__all__ = [
    "ImageError",
    "ImageWarning",
    "InputError",
    "LeafiqaError",
    "Metric",
    "UnknownModelError",
    "WeightsError",
    "create_metric",
    "list_models",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leafiqa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
