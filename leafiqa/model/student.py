"""The student: one timm backbone or several, features pooled at several depths, a small head, one logit an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leafiqa.errors import WeightsError
from leafiqa.model.aspects import Aspects, Seen
from leafiqa.model.backbones import build
from leafiqa.model.head import Experts, reader

# Variance floor in the pooled standard deviation: keeps its gradient finite on constant features.
_EPS = 1e-5


def pool_mean_std(features: Tensor) -> Tensor:
    """Pool `(B, C, h, w)` features over space to `(B, 2C)` float32: the mean, then the standard deviation."""
    features = features.float()
    mean = features.mean(dim=(2, 3))
    variance = (features - mean[:, :, None, None]).square().mean(dim=(2, 3))
    return torch.cat([mean, (variance + _EPS).sqrt()], dim=1)


def pool_stages(stages: list[Tensor]) -> Tensor:
    """Pool the feature maps of a backbone to `(B, F)` float32."""
    return torch.cat([pool_mean_std(stage) for stage in stages], dim=1)


class Student(nn.Module):
    """Maps normalised images to one quality logit each; `logit.sigmoid()` is the uncalibrated score.

    Quality lives at several scales (noise in the early stages, content in the late ones), so the mean and the
    standard deviation of several stages are pooled, standardised with fixed statistics and read by a small head.
    Batch statistics are never used, in training either, so that no image's score depends on its company.

    Args:
        backbone: a timm model name that supports `features_only`, or several, whose features are read side by side;
            see `leafiqa.model.backbones`. Built without any download.
        stages: feature stages to pool, as timm's `out_indices`; of each backbone.
        hidden: width of the head.
        experts: readers in the head, mixed by a gate; see `leafiqa.model.head`.
        dropout: dropout before the last layer, while training.
        mean: per-channel mean, RGB, of pixels in [0, 1].
        std: per-channel standard deviation, RGB, of pixels in [0, 1].
        residual: add a linear function of the standardised features to the head's logit, zero at first: what
            few-shot calibration learns.
        defects: names of the defects that the student can tell of; with any it has `aspects`, see
            `leafiqa.model.aspects`.

    Raises:
        WeightsError: timm does not know the backbone.
    """

    feature_mean: Tensor
    feature_std: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str | tuple[str, ...] = "tf_efficientnet_lite0",
        stages: tuple[int, ...] = (1, 2, 3, 4),
        hidden: int = 128,
        experts: int = 1,
        dropout: float = 0.2,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
        residual: bool = False,
        defects: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.backbone = build(backbone, stages)
        width = 2 * sum(self.backbone.feature_info.channels())  # type: ignore[union-attr, operator]
        self.register_buffer("feature_mean", torch.zeros(width))
        self.register_buffer("feature_std", torch.ones(width))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.head = reader(width, hidden, dropout) if experts == 1 else Experts(width, hidden, dropout, experts)
        self.residual = nn.Linear(width, 1, bias=False) if residual else None
        if self.residual is not None:
            nn.init.zeros_(self.residual.weight)
        self.aspects: Aspects | None = None
        if defects:
            self.add_aspects(defects)

    def add_aspects(self, defects: tuple[str, ...]) -> Aspects:
        """Give the student new aspects, which know nothing yet, in place of any that it has."""
        info = self.backbone.feature_info
        kinds = len(self.head.experts) if isinstance(self.head, Experts) else 0
        made = Aspects(defects, info.channels(), info.reduction(), kinds)  # type: ignore[union-attr, operator]
        self.aspects = made.to(self.feature_mean.device)
        return self.aspects

    def need_aspects(self) -> Aspects:
        """Return what the student tells beside a score.

        Raises:
            WeightsError: nothing: it was made without aspects.
        """
        if self.aspects is None:
            raise WeightsError(
                "this student tells a score and nothing else: it was made without aspects. The bundled `leaf` has "
                "them, and so has what `leafiqa distill` makes"
            )
        return self.aspects

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.head.parameters()).dtype

    def train(self, mode: bool = True) -> Student:
        """Set training mode; batch normalisation always keeps its stored statistics."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's feature maps, `(B, C, h', w')` each, of `(B, 3, h, w)` pixels in [0, 1]."""
        return list(self.backbone(((images - self.mean) / self.std).to(self._dtype)))

    def features(self, images: Tensor) -> Tensor:
        """Return pooled, not yet standardised features, `(B, F)` float32, of `(B, 3, h, w)` pixels in [0, 1]."""
        return pool_stages(self.stages(images))

    def standardise(self, features: Tensor) -> Tensor:
        """Return pooled features `(B, F)` standardised with the fixed statistics."""
        return (features - self.feature_mean) / self.feature_std

    def read(self, standard: Tensor) -> Tensor:
        """Return quality logits `(B,)`, float32, of standardised features `(B, F)`."""
        logits = self.head(standard.to(self._dtype)).float()
        if self.residual is not None:
            # In float32 whatever the network's precision: hundreds of small terms are summed.
            logits = logits + nn.functional.linear(standard, self.residual.weight.float())
        return logits.squeeze(1)

    def shares(self, standard: Tensor) -> Tensor:
        """Return how far pictures are of each kind that the head tells apart, `(B, kinds)`; no column where of none."""
        return self.head.shares(standard) if isinstance(self.head, Experts) else standard.new_zeros(len(standard), 0)

    def forward(self, images: Tensor) -> Tensor:
        """Return quality logits `(B,)`, float32, of resized `(B, 3, h, w)` float pixels in [0, 1]."""
        return self.read(self.standardise(self.features(images)))

    def explain(self, images: Tensor) -> Seen:
        """Return logits, their errors, defects and a map of resized `(B, 3, h, w)` float pixels in [0, 1].

        Raises:
            WeightsError: the student has no aspects.
        """
        aspects = self.need_aspects()
        stages = self.stages(images)
        standard = self.standardise(pool_stages(stages))
        size, logits = (images.shape[2], images.shape[3]), self.read(standard)
        return aspects(stages, size, standard, logits, self.shares(standard.to(self._dtype)))
