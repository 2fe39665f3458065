"""How a finished student's aspects are learned: each from features that do not change any more.

The score is left exactly as it is, so nothing here has to be weighed against it, and it takes minutes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from leafiqa.model.aspects import NINETY, SEVERITIES, Aspects

# Weight decay of the linear fits, on standardised features.
_DECAY = 1e-3
_STEPS = 200
# Cells of earlier pictures that are learned from again beside new ones.
_REPLAYED = 32
_KEPT = 600
# A cell whose place is partly degraded says little of either.
_MIXED = (0.05, 0.95)
# The teacher's scores at the very ends have no finite logit.
_EDGE = 0.01


def fit_severities(aspects: Aspects, standard: Tensor, severities: Tensor) -> None:
    """Fit the severities by ordinal logistic regression: is the defect at least slight, clear, severe?

    A mean of several judgments counts in parts: 1.5 is slight for certain and clear by half.

    Args:
        aspects: what is fitted.
        standard: `(n, F)` standardised features.
        severities: `(n, D)` in [0, 3], NaN where a picture's is not known.
    """
    steps = torch.arange(SEVERITIES)
    known = severities.isfinite()
    wanted = (severities.nan_to_num()[..., None] - steps).clamp(0, 1)
    weights = known.float()[..., None].expand_as(wanted) / known.sum(dim=0).clamp(min=1)[None, :, None]
    layer = aspects.severity
    with torch.no_grad():
        share = ((wanted * known[..., None]).sum(0) / known.sum(0).clamp(min=1)[:, None]).clamp(1e-3, 1 - 1e-3)
        layer.weight.zero_()
        layer.bias.copy_(share.logit().flatten())
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = layer(standard).view(len(standard), -1, SEVERITIES)
        loss = functional.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="sum")
        loss = loss + _DECAY * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def residuals(logits: Tensor, targets: Tensor) -> Tensor:
    """Return by how much logits are off, `(n,)`, given what the scores `(n,)` in [0, 1] should have been."""
    return targets.clamp(_EDGE, 1 - _EDGE).logit() - logits


def fit_deviation(aspects: Aspects, logits: Tensor, severities: Tensor, shares: Tensor, targets: Tensor) -> None:
    """Fit the standard error of the logits, by the likelihood of errors on pictures that were not learned from.

    Then the errors are scaled so that intervals of 90 % hold 90 % of them, whatever their distribution.

    Args:
        aspects: what is fitted.
        logits: `(n,)` the student's.
        severities: `(n, D)` as the aspects see them.
        shares: `(n, kinds)` how far the pictures are of each kind.
        targets: `(n,)` what the scores should have been, in [0, 1].
    """
    off = residuals(logits, targets)
    layer = aspects.deviation
    known = torch.cat([logits[:, None], logits[:, None].square(), severities, shares], dim=1)
    middle, spread = known.mean(0), known.std(0).clamp(min=0.05)
    standard = (known - middle) / spread
    weight = torch.zeros(known.shape[1], requires_grad=True)
    bias = off.square().mean().sqrt().clamp(min=1e-3).log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        log_error = (standard @ weight + bias).clamp(-6, 3)
        # Student's t of few degrees of freedom in place of the normal distribution: a few large errors of the teacher
        # are not to widen all intervals.
        loss = (log_error + 2.5 * torch.log1p((off / log_error.exp()).square() / 4)).mean()
        loss = loss + 0.02 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.copy_((weight / spread)[None])
        layer.bias.copy_((bias - (weight / spread) @ middle)[None])
        layer.bias.add_(math.log(doubt_of(off, aspects.errors(logits, severities, shares))))


def same_deviation(aspects: Aspects, logits: Tensor, targets: Tensor) -> None:
    """Give all pictures one standard error, where there are too few to tell them apart; see `fit_deviation`."""
    with torch.no_grad():
        aspects.deviation.weight.zero_()
        aspects.deviation.bias.fill_(math.log(doubt_of(residuals(logits, targets), torch.ones(len(logits)))))


def doubt_of(off: Tensor, errors: Tensor) -> float:
    """Return what errors are to be multiplied by for intervals of 90 % to hold 90 % of what was found.

    Args:
        off: `(n,)` by how much logits were off.
        errors: `(n,)` their standard errors.
    """
    ratios = (off.abs() / errors).sort().values
    # The quantile of a sample, moved outwards as conformal prediction does (Vovk et al., 2005).
    place = min(len(ratios) - 1, math.ceil(0.9 * (len(ratios) + 1)) - 1)
    return max(float(ratios[place]) / NINETY, 1e-3)


class LocalFit:
    """Learns the map from pictures of which a part was degraded.

    The cells inside are to have the logit that the student gives the picture degraded throughout, those outside that of
    the picture as it was. What is kept is the mean of the weights after each step of the last half: which pictures came
    last is not to decide.

    Args:
        aspects: what is fitted.
        total: how many batches there will be.
        generator: draws which cells of before are learned from again.
    """

    def __init__(self, aspects: Aspects, total: int, generator: torch.Generator) -> None:
        self._aspects, self._total, self._generator = aspects, total, generator
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._optimizer = torch.optim.AdamW(aspects.local.parameters(), lr=2e-3, weight_decay=1e-2)
        self._mean = AveragedModel(aspects.local)
        self._step = 0

    def see(self, local: Tensor, apart: Tensor, weights: Tensor) -> None:
        """Learn from one picture, and from some of before.

        Args:
            local: `(C, h, w)` its local features, standardised.
            apart: `(h, w)` by how much the logit of each cell is to differ from the picture's.
            weights: `(h, w)` of the cells.
        """
        self._kept.append((local.half(), apart, weights))
        if len(self._kept) > _KEPT:
            del self._kept[int(torch.randint(_KEPT, (1,), generator=self._generator))]
        again = torch.randperm(len(self._kept), generator=self._generator)[: _REPLAYED // 4].tolist()
        self._step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * min(1.0, self._step / self._total)))
        self._optimizer.zero_grad()
        for features, wanted, weight in [self._kept[-1], *(self._kept[i] for i in again)]:
            found = self._aspects.local(features.float()[None]).squeeze(1)[0]
            loss = (functional.smooth_l1_loss(found, wanted, reduction="none", beta=0.3) * weight).sum()
            loss = loss / weight.sum().clamp(min=1e-6) / (len(again) + 1)
            loss.backward()
        nn.utils.clip_grad_norm_(self._aspects.local.parameters(), 1.0)
        self._optimizer.step()
        if self._step > self._total / 2:
            self._mean.update_parameters(self._aspects.local)

    def finish(self) -> None:
        """Leave the map with what it has learned."""
        if self._mean.n_averaged:
            self._aspects.local.load_state_dict(self._mean.module.state_dict())


def cell_weights(share: Tensor) -> Tensor:
    """Return weights of cells, given what share of each is degraded: both kinds alike, mixed ones not at all.

    Args:
        share: `(h, w)` in [0, 1].
    """
    inside, outside = (share >= _MIXED[1]).float(), (share <= _MIXED[0]).float()
    return inside / inside.sum().clamp(min=1) + outside / outside.sum().clamp(min=1)
