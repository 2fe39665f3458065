"""leafiqa's students inside pyiqa: import this module, and `pyiqa.create_metric("leaf")` works.

pyiqa looks for metrics in two tables of its own and has no entry points, so importing this module writes leafiqa's
names into both. Scores are leafiqa's. As pyiqa has it, `as_loss=True` returns the mean score, to be *raised*.

>>> import pyiqa
>>> import leafiqa.integrations.pyiqa
>>> pyiqa.create_metric("leaf", device="cpu")("photo.jpg")
tensor([[0.7312]])
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from leafiqa.errors import InputError
from leafiqa.metric import load_metric
from leafiqa.model.registry import bundled, names

try:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY
except ImportError as error:
    raise InputError("leafiqa.integrations.pyiqa needs pyiqa: pip install pyiqa") from error

_TYPE = "LeafiqaStudent"


class LeafiqaStudent(nn.Module):
    """A leafiqa metric in the form of pyiqa's networks: `(B, 3, H, W)` in [0, 1] to scores `(B, 1)`.

    Args:
        name: a name from `leafiqa.list_models()`.
        weights: a student in some place, instead of a name; see `leafiqa.create_metric`.
    """

    def __init__(self, name: str = "leaf", weights: Any = None) -> None:
        super().__init__()
        self.metric = load_metric(name, weights=weights, device="cpu")

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, with gradients where pyiqa turned them on."""
        return self.metric.differentiable_scores(images).unsqueeze(1)


def register() -> list[str]:
    """Write leafiqa's names into pyiqa's tables; names that pyiqa has already are left as they are.

    Returns:
        The names that pyiqa now creates from leafiqa.
    """
    if _TYPE not in ARCH_REGISTRY:
        ARCH_REGISTRY.register(LeafiqaStudent)
    for name in names():
        low, high = bundled(name)[1].score_range
        DEFAULT_CONFIGS.setdefault(
            name,
            {
                "metric_opts": {"type": _TYPE, "name": name},
                "metric_mode": "NR",
                "lower_better": False,
                "score_range": f"{low:g}, {high:g}",
            },
        )
    return [name for name in names() if DEFAULT_CONFIGS[name]["metric_opts"].get("type") == _TYPE]


register()
