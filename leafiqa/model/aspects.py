"""What a student can say beside its score: which defects it sees, where the picture is good or bad, and how sure it is.

All of it is read from the features that the score is read from, in the same forward pass. The score does not depend on
it: a student without aspects has the same scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Severities are 0 to 3: not seen, slight, clear, severe.
SEVERITIES = 3
# Standard errors to either side of an interval that is to hold nine in ten, of a normal distribution.
NINETY = 1.6449
# Pixels of the student's look along each side of a cell of the map: a look of 384x384 pixels has 24x24 cells.
_CELL = 16
_HIDDEN = 64
_EPS = 1e-5
# A standard error of a logit is between a score that is all but certain and one that could be anything.
_LEAST_LOG, _MOST_LOG = -4.0, 1.5


@dataclass(frozen=True)
class Seen:
    """What a student sees in a batch of pictures, before any range is applied.

    Attributes:
        logits: `(B,)` quality logits; their sigmoid is the score in [0, 1].
        errors: `(B,)` standard errors of the logits.
        severities: `(B, D)` severities of the defects, in [0, 3].
        cells: `(B, h, w)` quality logits by place: of a picture that looked like this throughout.
    """

    logits: Tensor
    errors: Tensor
    severities: Tensor
    cells: Tensor


class Aspects(nn.Module):
    """Reads defects, their places and the score's standard error from a student's features.

    Args:
        defects: names of the defects.
        channels: channels of the backbone's stages.
        reductions: how many pixels along a side one feature of each stage stands for.
        kinds: kinds of pictures that the student's head tells apart; 0 where it does not.
    """

    stretch: Tensor
    doubt: Tensor
    local_mean: Tensor
    local_std: Tensor

    def __init__(
        self, defects: Sequence[str], channels: Sequence[int], reductions: Sequence[int], kinds: int = 0
    ) -> None:
        super().__init__()
        self.defects = tuple(defects)
        self.reductions = tuple(reductions)
        self.severity = nn.Linear(2 * sum(channels), SEVERITIES * len(self.defects))
        self.deviation = nn.Linear(2 + len(self.defects) + kinds, 1)
        finer = [reduction < _CELL for reduction in reductions]
        width = sum(channel * (2 if fine else 1) for channel, fine in zip(channels, finer))
        self.local = nn.Sequential(
            nn.Conv2d(width, _HIDDEN, 1),
            nn.GELU(),
            nn.Conv2d(_HIDDEN, _HIDDEN, 3, padding=1, padding_mode="replicate"),
            nn.GELU(),
            nn.Conv2d(_HIDDEN, 1, 1),
        )
        self.register_buffer("local_mean", torch.zeros(width))
        self.register_buffer("local_std", torch.ones(width))
        # What a calibration changes: how much steeper its logits are than those that the aspects were learned with,
        # and how much larger their errors are beside human scores than that makes them.
        self.register_buffer("stretch", torch.ones(()))
        self.register_buffer("doubt", torch.ones(()))

    def local_features(self, stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return what the map is read from, `(B, C, h / 16, w / 16)` float32, standardised.

        Of stages finer than a cell these are mean and standard deviation within it, of others their value there.

        Args:
            stages: the backbone's feature maps.
            size: height and width of the pixels that they are of.
        """
        grid = (max(1, size[0] // _CELL), max(1, size[1] // _CELL))
        parts = []
        for stage, reduction in zip(stages, self.reductions):
            stage = stage.float()
            if reduction < _CELL:
                mean = functional.adaptive_avg_pool2d(stage, grid)
                square = functional.adaptive_avg_pool2d(stage.square(), grid)
                parts += [mean, ((square - mean.square()).clamp(min=0) + _EPS).sqrt()]
            elif stage.shape[2:] == grid:
                parts.append(stage)
            else:
                parts.append(functional.interpolate(stage, grid, mode="bilinear", align_corners=False))
        joined = torch.cat(parts, dim=1)
        return (joined - self.local_mean[:, None, None]) / self.local_std[:, None, None]

    def severities(self, standard: Tensor) -> Tensor:
        """Return severities `(B, D)` in [0, 3] of standardised features `(B, F)`."""
        steps = self.severity(standard.float()).view(len(standard), len(self.defects), SEVERITIES)
        return steps.sigmoid().sum(dim=2)

    def errors(self, logits: Tensor, severities: Tensor, shares: Tensor) -> Tensor:
        """Return standard errors `(B,)` of logits as they were before any calibration.

        Args:
            logits: `(B,)`.
            severities: `(B, D)`.
            shares: `(B, kinds)` how far a picture is of each kind.
        """
        known = torch.cat([logits[:, None], logits[:, None].square(), severities, shares], dim=1)
        return self.deviation(known).squeeze(1).clamp(_LEAST_LOG, _MOST_LOG).exp()

    def forward(
        self, stages: Sequence[Tensor], size: tuple[int, int], standard: Tensor, logits: Tensor, shares: Tensor
    ) -> Seen:
        """Return all that is seen in a batch.

        Args:
            stages: the backbone's feature maps.
            size: height and width of the pixels that they are of.
            standard: `(B, F)` the same, pooled and standardised.
            logits: `(B,)` the student's quality logits.
            shares: `(B, kinds)` how far a picture is of each kind.
        """
        severities = self.severities(standard)
        errors = self.errors(logits / self.stretch, severities, shares) * self.stretch * self.doubt
        apart = self.local(self.local_features(stages, size)).squeeze(1)
        return Seen(logits, errors, severities, logits[:, None, None] + self.stretch * apart)
