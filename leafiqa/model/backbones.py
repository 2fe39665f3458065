"""Several backbones that look at the same pixels, as one: each sees what the others miss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from leafiqa.errors import WeightsError

if TYPE_CHECKING:
    from timm.models._features import FeatureInfo


def build(names: str | Sequence[str], stages: tuple[int, ...]) -> nn.Module:
    """Return the backbone of a student, with random weights. Nothing is downloaded.

    Args:
        names: a timm model name that supports `features_only`, or several.
        stages: feature stages to return, as timm's `out_indices`; of each backbone.

    Raises:
        WeightsError: timm does not know a backbone, or cannot build it.
    """
    return _of_timm(names, stages) if isinstance(names, str) else Backbones(_of_timm(name, stages) for name in names)


def _of_timm(name: str, stages: tuple[int, ...]) -> nn.Module:
    import timm  # seconds to import, so not before a student is built

    # Names such as "hf-hub:..." would make timm download; a checkpoint must not decide that.
    if not isinstance(name, str) or not timm.is_model(name):
        raise WeightsError(f"timm {timm.__version__} knows no backbone {name!r}. A newer timm may: pip install -U timm")
    try:
        made: nn.Module = timm.create_model(name, pretrained=False, features_only=True, out_indices=stages)
    except (RuntimeError, IndexError, TypeError) as error:
        raise WeightsError(
            f"timm {timm.__version__} cannot build backbone {name!r} with stages {stages}: {error}"
        ) from error
    return made


class Backbones(nn.ModuleList):
    """Backbones side by side: of pixels `(B, 3, h, w)`, the feature maps of one after those of the other."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of all backbones, `(B, C, h', w')` each."""
        return [stage for backbone in self for stage in backbone(images)]

    @property
    def feature_info(self) -> AllFeatures:
        """What timm tells of each feature map."""
        return AllFeatures([backbone.feature_info for backbone in self])  # type: ignore[misc]


class AllFeatures:
    """What timm tells of the feature maps of several backbones, in the order in which they return them."""

    def __init__(self, each: Sequence[FeatureInfo]) -> None:
        self._each = each

    def channels(self) -> list[int]:
        """Return the channels of each feature map."""
        return [count for info in self._each for count in info.channels()]

    def reduction(self) -> list[int]:
        """Return how many pixels along a side one value of each feature map stands for."""
        return [count for info in self._each for count in info.reduction()]
