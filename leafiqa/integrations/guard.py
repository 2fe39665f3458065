"""A guard against reward hacking: simple quantities that are not optimised, held against pictures of before.

Whoever optimises a no-reference metric for long enough gets pictures that please the metric and not people. Edge
density, detail, colour, contrast and clipping then leave the range that they had in pictures of before; the guard says
so. It is a smoke detector: it hears coarse hacking (`benchmarks/reward_hacking.py` says how much), not all of it, and
silence proves nothing.

Colourfulness: Hasler and Suesstrunk 2003.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from leafiqa.arguments import finite_number, whole_number
from leafiqa.errors import InputError
from leafiqa.images.inputs import to_tensor

QUANTITIES = ("edge_density", "fine_detail", "colourfulness", "saturation", "contrast", "clipping")
# A gradient of the grey picture that counts as an edge, per pixel.
_EDGE = 0.08
_SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 8
_LAPLACE = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
# Drifts of fewer standard errors than this may be chance.
_SURE = 4.0
_LEAST = 16


@dataclass(frozen=True)
class GuardReport:
    """What the guard sees in recent pictures.

    Attributes:
        images: how many pictures it looked at.
        drifts: by quantity, the mean of recent pictures minus that of the reference, in standard deviations of the
            reference.
        alarms: quantities that have left the reference, in words.
    """

    images: int
    drifts: dict[str, float]
    alarms: list[str] = field(default_factory=list)


def quantities(images: Tensor) -> Tensor:
    """Return `(B, 6)` numbers of a batch: `QUANTITIES`, in that order.

    Args:
        images: `(B, 3, H, W)`, float in [0, 1] or uint8, at least 3 by 3 pixels.

    Raises:
        InputError: smaller pictures, or values that are no numbers.
    """
    if min(images.shape[2:]) < 3:
        raise InputError(f"the guard needs pictures of at least 3 by 3 pixels, got {tuple(images.shape[2:])}")
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if bool(pixels.isnan().any()):
        raise InputError("a picture holds NaN")
    red, green, blue = pixels.unbind(1)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    sobel, laplace = _SOBEL.to(grey.device), _LAPLACE.to(grey.device)
    across, down = conv2d(grey, sobel[None, None]), conv2d(grey, sobel.T[None, None])
    edges = ((across**2 + down**2).sqrt() > _EDGE).float().mean(dim=(1, 2, 3))
    detail = conv2d(grey, laplace[None, None]).abs().mean(dim=(1, 2, 3))
    first, second = red - green, (red + green) / 2 - blue
    spread = (first.var(dim=(1, 2)) + second.var(dim=(1, 2))).sqrt()
    shift = (first.mean(dim=(1, 2)) ** 2 + second.mean(dim=(1, 2)) ** 2).sqrt()
    high, low = pixels.amax(dim=1), pixels.amin(dim=1)
    saturation = ((high - low) / high.clamp(min=1e-6)).mean(dim=(1, 2))
    ends = ((low <= 1 / 255) | (high >= 254 / 255)).float().mean(dim=(1, 2))
    contrast = grey.std(dim=(1, 2, 3))
    return torch.stack([edges, detail, spread + 0.3 * shift, saturation, contrast, ends], dim=1)


class RewardGuard:
    """Holds pictures under optimisation against pictures of before.

    With prompts, each picture is held against those of its own prompt: what a picture shows then no longer hides what
    optimisation does to it, and smaller drifts are heard.

    Args:
        reference: pictures of the model before it is optimised, at least 16, on the prompts that it is optimised on.
        prompts: of these pictures; None holds pictures against all of the reference together.
        limit: an alarm is raised when the mean of recent pictures has moved by more than so many standard deviations
            of the reference, and that is no chance (four standard errors).
        window: how many recent pictures are looked at.

    Raises:
        InputError: fewer than 16 pictures, another number of prompts, or pictures that no metric takes.

    Example:
        >>> guard = RewardGuard(pictures_of_the_base_model, prompts)
        >>> reward = ddpo_reward("leaf", guard=guard)
    """

    def __init__(
        self,
        reference: Iterable[Any],
        prompts: Sequence[str] | None = None,
        *,
        limit: float = 0.5,
        window: int = 256,
    ) -> None:
        self.limit = finite_number(limit, "limit", above=0)
        self._recent: deque[tuple[Tensor, bool]] = deque(maxlen=whole_number(window, "window", _LEAST))
        measured = _measured(reference)
        if len(measured) < _LEAST:
            raise InputError(f"reference must hold at least {_LEAST} pictures, got {len(measured)}")
        self._count = len(measured)
        self.mean = measured.mean(dim=0)
        # A quantity that is the same in all of the reference has no spread to be held against.
        self.deviation = measured.std(dim=0).clamp(min=1e-4)
        self._of_prompt: dict[str, Tensor] = {}
        if prompts is not None:
            by_prompt: dict[str, list[Tensor]] = {}
            for prompt, row in zip(_as_many(prompts, len(measured)), measured):
                by_prompt.setdefault(prompt, []).append(row)
            self._of_prompt = {prompt: torch.stack(rows).mean(dim=0) for prompt, rows in by_prompt.items()}

    def check(self, images: Any, prompts: Sequence[str] | None = None) -> GuardReport:
        """Look at pictures, and report on the recent ones together.

        Args:
            images: `(B, 3, H, W)` float in [0, 1] or uint8, or a list of pictures in any form that a metric takes.
            prompts: of these pictures; those that the reference knows are held against their own.

        Raises:
            InputError: another number of prompts than pictures.
        """
        measured = _measured(images)
        if not len(measured):
            raise InputError("images must hold at least one picture, got none")
        known = [""] * len(measured) if prompts is None else _as_many(prompts, len(measured))
        for row, prompt in zip(measured, known):
            own = self._of_prompt.get(prompt)
            self._recent.append((row - (self.mean if own is None else own), own is not None))
        moved = torch.stack([row for row, _ in self._recent])
        paired = sum(of for _, of in self._recent) / len(self._recent)
        n = len(moved)
        drift = moved.mean(dim=0) / self.deviation
        spread = moved.std(dim=0, correction=min(1, n - 1)).clamp(min=1e-4) / self.deviation
        # The mean of the reference is uncertain, too, where pictures are not held against their own prompt's.
        error = (spread**2 / n + (1 - paired) / self._count).sqrt()
        drifts = dict(zip(QUANTITIES, drift.tolist()))
        sure = dict(zip(QUANTITIES, (drift.abs() > _SURE * error).tolist()))
        alarms = [
            f"{name} is {'higher' if value > 0 else 'lower'} than before by {abs(value):.1f} standard deviations"
            for name, value in drifts.items()
            if n >= _LEAST and abs(value) > self.limit and sure[name]
        ]
        return GuardReport(n, drifts, alarms)


def _as_many(prompts: Sequence[str], count: int) -> list[str]:
    """Return prompts as a list of so many.

    Raises:
        InputError: they are not as many.
    """
    if isinstance(prompts, str) or len(prompts) != count:
        raise InputError(f"prompts must be as many as pictures, {count}, got {prompts!r:.80}")
    return list(prompts)


@torch.no_grad()
def _measured(images: Any) -> Tensor:
    """Return `(N, 6)` quantities of pictures in any form."""
    if isinstance(images, Tensor):
        return quantities(to_tensor(images)[0]).cpu()
    if not isinstance(images, Iterable):
        raise InputError(f"pictures must be a tensor or a list, got {type(images).__name__}")
    rows = [quantities(to_tensor(image)[0]).cpu() for image in images]
    return torch.cat(rows) if rows else torch.empty(0, len(QUANTITIES))
