"""The quality of generated images as a metric of torchmetrics: update, compute, synchronised over processes.

>>> from leafiqa.integrations.torchmetrics import QualityScore
>>> quality = QualityScore()
>>> quality.update(images)
>>> quality.compute()
tensor(0.6712)
"""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor

from leafiqa.errors import InputError
from leafiqa.metric import load_metric

try:
    from torchmetrics import Metric as TorchMetric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise InputError("leafiqa.integrations.torchmetrics needs torchmetrics: pip install torchmetrics") from error


class QualityScore(TorchMetric):
    """Mean score of a no-reference metric over all images seen, or all scores.

    The student is no part of the metric's `state_dict`, parameters or `half()`, as a leafiqa metric is inert inside
    other modules; it follows to another device.

    Args:
        name: a name from `leafiqa.list_models()`.
        weights: a student in some place, instead of a name; see `leafiqa.create_metric`.
        reduction: "mean" computes the mean score, a scalar; "none" all scores, `(N,)`, those of one process after
            those of another.
        kwargs: passed on to `torchmetrics.Metric`, such as `sync_on_compute`.

    Raises:
        InputError: another reduction, or torchmetrics is not installed.
        UnknownModelError, WeightsError: see `leafiqa.create_metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    lost: Tensor
    count: Tensor
    scores: list[Tensor]

    def __init__(
        self,
        name: str = "leaf",
        *,
        weights: str | os.PathLike[str] | None = None,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if reduction not in ("mean", "none"):
            raise InputError(f"reduction must be 'mean' or 'none', got {reduction!r}")
        self.reduction = reduction
        self.metric = load_metric(name, weights=weights, device="cpu")
        if reduction == "none":
            self.add_state("scores", default=[], dist_reduce_fx="cat")
        else:
            # A sum and what rounding took from it (Kahan): not every device has double precision.
            self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
            self.add_state("lost", default=torch.zeros(()), dist_reduce_fx="sum")
            self.add_state("count", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, images: Any) -> None:
        """Score images.

        Args:
            images: `(B, 3, H, W)`, float in [0, 1] or uint8; or whatever else a leafiqa metric takes.

        Raises:
            InputError: images that a leafiqa metric refuses; on an accelerator values outside [0, 1], too, whose score
                would be NaN.
            ImageError: a file that cannot be decoded.
        """
        if self.metric.device != self.device:  # torchmetrics moves states, and a module only with them
            self.metric.to(self.device)
        scores = self.metric(images)
        if bool(scores.isnan().any()):
            raise InputError(f"{int(scores.isnan().sum())} of {len(scores)} images have no score: see the warnings")
        if self.reduction == "none":
            self.scores.append(scores)
        else:
            more = scores.float().sum() - self.lost
            total = self.total + more
            self.lost = (total - self.total) - more
            self.total = total
            self.count += len(scores)

    def compute(self) -> Tensor:
        """Return the mean score, NaN before any image; or all scores."""
        if self.reduction == "none":
            # Gathered from other processes it is one tensor.
            none = isinstance(self.scores, list) and not self.scores
            return torch.empty(0, device=self.device) if none else dim_zero_cat(self.scores)
        return (self.total - self.lost) / self.count
