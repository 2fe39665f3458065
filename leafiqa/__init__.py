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
    from leafiqa.api.generators import best, compare, report
    from leafiqa.api.making import (
        calibrate,
        distill,
        export_conversations,
        import_judgments,
        select,
        summarise_evidence,
    )
    from leafiqa.api.rating import export_ratings, rate, summarise_ratings
    from leafiqa.api.using import create_metric, evaluate, export, iter_scores, model_card, push, score
    from leafiqa.errors import (
        CalibrationError,
        EvidenceError,
        GuardWarning,
        ImageError,
        ImageWarning,
        InputError,
        LeafiqaError,
        OutputError,
        TeacherError,
        TeacherRefused,
        TeacherStopped,
        TeacherUnusable,
        TrainingError,
        UnknownModelError,
        WeightsError,
    )
    from leafiqa.metric import Metric
    from leafiqa.model.registry import list_models
    from leafiqa.teachers.labelling import label

__version__ = "0.2.0"

# Where each public name lives. Loaded on first use, so that `import leafiqa` is cheap and needs no torch.
_HOMES = {
    "leafiqa.api.generators": ("best", "compare", "report"),
    "leafiqa.api.making": (
        "calibrate",
        "distill",
        "export_conversations",
        "import_judgments",
        "select",
        "summarise_evidence",
    ),
    "leafiqa.api.rating": ("export_ratings", "rate", "summarise_ratings"),
    "leafiqa.api.using": ("create_metric", "evaluate", "export", "iter_scores", "model_card", "push", "score"),
    "leafiqa.errors": (
        "CalibrationError",
        "EvidenceError",
        "GuardWarning",
        "ImageError",
        "ImageWarning",
        "InputError",
        "LeafiqaError",
        "OutputError",
        "TeacherError",
        "TeacherRefused",
        "TeacherStopped",
        "TeacherUnusable",
        "TrainingError",
        "UnknownModelError",
        "WeightsError",
    ),
    "leafiqa.metric": ("Metric",),
    "leafiqa.model.registry": ("list_models",),
    "leafiqa.teachers.labelling": ("label",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CalibrationError",
    "EvidenceError",
    "GuardWarning",
    "ImageError",
    "ImageWarning",
    "InputError",
    "LeafiqaError",
    "Metric",
    "OutputError",
    "TeacherError",
    "TeacherRefused",
    "TeacherStopped",
    "TeacherUnusable",
    "TrainingError",
    "UnknownModelError",
    "WeightsError",
    "best",
    "calibrate",
    "compare",
    "create_metric",
    "distill",
    "evaluate",
    "export",
    "export_conversations",
    "export_ratings",
    "import_judgments",
    "iter_scores",
    "label",
    "list_models",
    "model_card",
    "push",
    "rate",
    "report",
    "score",
    "select",
    "summarise_evidence",
    "summarise_ratings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'leafiqa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
