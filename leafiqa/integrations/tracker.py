"""Follow the quality of a model's pictures through its training: each validation against the first, best and last."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from leafiqa.arguments import finite_number, whole_number
from leafiqa.errors import InputError
from leafiqa.generators.paired_statistics import holm, mean_interval, sign_flip_p
from leafiqa.generators.verdicts import Verdict, judge
from leafiqa.images.inputs import to_tensor
from leafiqa.metric import Metric, load_metric

# The longer side of a kept picture, in pixels.
_KEPT = 256


@dataclass(frozen=True)
class StepDifference:
    """A validation against an earlier one, on the prompts that both have.

    Attributes:
        against: "first", "best" or "previous".
        step: of the earlier validation.
        prompts: how many both have.
        difference: mean over prompts of now minus then.
        interval: its 95 % interval.
        p: two-sided, by sign flips, corrected for the comparisons of this validation.
        verdict: what it comes to.
    """

    against: str
    step: int
    prompts: int
    difference: float
    interval: tuple[float, float]
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class WorstPicture:
    """A picture that scored low, at most 256 pixels wide and high."""

    prompt: str
    score: float
    image: Image.Image


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Attributes:
        step: of the training.
        mean: over prompts.
        interval: its 95 % interval.
        prompts: how many there were.
        images: how many pictures.
        differences: against the first, the best and the previous validation, of those that there are.
        worst: the pictures that scored lowest, lowest first.
        best: whether no earlier validation had a higher mean.
    """

    step: int
    mean: float
    interval: tuple[float, float]
    prompts: int
    images: int
    differences: list[StepDifference] = field(default_factory=list)
    worst: list[WorstPicture] = field(default_factory=list)
    best: bool = True

    def against(self, which: str) -> StepDifference | None:
        """Return the difference to the "first", "best" or "previous" validation; None where there is none."""
        return next((one for one in self.differences if one.against == which), None)

    def scalars(self) -> dict[str, float]:
        """Return the numbers for a logger, by name; undefined ones are left out."""
        found = {"quality/mean": self.mean, "quality/low": self.interval[0], "quality/high": self.interval[1]}
        for one in self.differences:
            found[f"quality/against_{one.against}"] = one.difference
            found[f"quality/against_{one.against}_p"] = one.p
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def __str__(self) -> str:
        low, high = self.interval
        ends = f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) else ""
        told = [f"step {self.step}: {self.mean:.3f}{ends}, {self.prompts} prompts"]
        told += [f"against {one.against} (step {one.step}) {one.difference:+.3f}" for one in self.differences]
        return "; ".join(told)


class QualityTracker:
    """Scores the pictures of each validation, and compares it with earlier ones prompt by prompt.

    In several processes (`torch.distributed`) each updates with its own pictures, and all get the same result.

    Args:
        metric: a name or a metric, not `as_loss`.
        device: where a metric given by name computes.
        margin: the largest difference of means that does not matter; None takes a tenth of the standard deviation of
            the first validation's scores.
        worst: how many of the worst pictures to keep of each validation.

    Raises:
        InputError: a metric that returns losses.

    Example:
        >>> tracker = QualityTracker("leaf")
        >>> tracker.update(images, prompts)
        >>> print(tracker.compute(step=1000))
    """

    def __init__(
        self,
        metric: str | Metric = "leaf",
        *,
        device: str | torch.device | None = None,
        margin: float | None = None,
        worst: int = 8,
    ) -> None:
        self.metric = scoring_metric(metric, device)
        margin = None if margin is None else finite_number(margin, "margin", least=0)
        self.margin, self._most = margin, whole_number(worst, "worst", 0)
        self._scores: dict[str, list[float]] = {}
        self._worst: list[WorstPicture] = []
        # Step and prompts' means of each validation so far.
        self._steps: list[tuple[int, dict[str, float]]] = []

    @torch.no_grad()
    def update(self, images: Any, prompts: Sequence[str] | None = None) -> Tensor:
        """Score pictures of the running validation.

        Args:
            images: `(B, 3, H, W)` float in [0, 1] or uint8, or a list of pictures in any form that a metric takes.
            prompts: `B` texts; None numbers the pictures, so that each validation must have them in the same order.

        Returns:
            Scores `(B,)`.

        Raises:
            InputError: another number of prompts than pictures, or pictures that no metric takes.
            ImageError: a file that cannot be decoded.
        """
        if not isinstance(images, Iterable):
            raise InputError(f"images must be a tensor or a list of pictures, got {type(images).__name__}")
        pictures = list(images) if not isinstance(images, Tensor) else images
        scores = exact_scores(self.metric, pictures)
        seen = sum(map(len, self._scores.values()))
        where = f"process {torch.distributed.get_rank()}, " if _distributed() else ""
        names = [f"{where}picture {seen + i}" for i in range(len(scores))] if prompts is None else list(prompts)
        wrong = isinstance(prompts, str) or not all(isinstance(name, str) for name in names)
        if wrong or len(names) != len(scores):
            raise InputError(f"prompts must be as many as pictures, {len(scores)}, got {prompts!r:.80}")
        for place, (name, score) in enumerate(zip(names, scores.tolist())):
            self._scores.setdefault(name, []).append(score)
            if len(self._worst) < self._most or score < self._worst[-1].score:
                if self._most:
                    self._worst.append(WorstPicture(name, score, _small(pictures[place])))
                    self._worst = sorted(self._worst, key=lambda one: one.score)[: self._most]
        return scores

    def compute(self, step: int | None = None) -> Validation:
        """Close the running validation and compare it with earlier ones.

        Args:
            step: of the training; None counts validations.

        Raises:
            InputError: nothing was updated since the last one, or the step is before it.
        """
        if step is None:
            step = self._steps[-1][0] + 1 if self._steps else 0
        whole_number(step, "step", 0)
        if self._steps and step < self.last_step:
            raise InputError(f"step must not be before {self.last_step}, that of the last validation, got {step}")
        scores, worst = self._gathered()
        if not scores:
            raise InputError("nothing was scored: call update(images, prompts) before compute()")
        means = {name: float(np.mean(of)) for name, of in scores.items()}
        values = np.array(list(means.values()), dtype=np.float64)
        if self.margin is None:
            self.margin = 0.1 * float(np.std([score for of in scores.values() for score in of]))
        mean = float(values.mean())
        found = Validation(
            step=step,
            mean=mean,
            interval=mean_interval(values),
            prompts=len(means),
            images=sum(map(len, scores.values())),
            differences=self._differences(means),
            worst=worst,
            best=all(mean >= float(np.mean(list(of.values()))) for _, of in self._steps),
        )
        self._steps.append((step, means))
        self._scores, self._worst = {}, []
        return found

    @property
    def last_step(self) -> int:
        """Step of the last validation; -1 before any."""
        return self._steps[-1][0] if self._steps else -1

    def _gathered(self) -> tuple[dict[str, list[float]], list[WorstPicture]]:
        """Return scores and worst pictures of all processes."""
        if not _distributed():
            return self._scores, self._worst
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, (self._scores, self._worst))
        scores: dict[str, list[float]] = {}
        worst: list[WorstPicture] = []
        for own, low in parts:
            for name, of in own.items():
                scores.setdefault(name, []).extend(of)
            worst += low
        return scores, sorted(worst, key=lambda one: one.score)[: self._most]

    def _differences(self, now: dict[str, float]) -> list[StepDifference]:
        if not self._steps:
            return []
        best = max(self._steps, key=lambda one: float(np.mean(list(one[1].values()))))
        earlier = {"first": self._steps[0], "best": best, "previous": self._steps[-1]}
        prepared = []
        for which, (step, then) in earlier.items():
            shared = [name for name in now if name in then]
            differences = np.array([now[name] - then[name] for name in shared], dtype=np.float64)
            p = sign_flip_p(differences) if len(shared) > 1 else math.nan
            prepared.append((which, step, differences, p))
        # One validation may be first, best and previous at once: it is tested once.
        tested = {step: p for _, step, _, p in prepared}
        corrected = dict(zip(tested, holm(list(tested.values()))))
        found = []
        for which, step, differences, _ in prepared:
            n = len(differences)
            mean = float(differences.mean()) if n else math.nan
            ends = mean_interval(differences)
            verdict = judge(
                "now",
                f"step {step}",
                n=n,
                difference=mean,
                interval=ends,
                deviation=float(differences.std(ddof=1)) if n > 1 else math.nan,
                p=corrected[step],
                margin=self.margin or 0.0,
                pairs=len(tested),
            )
            found.append(StepDifference(which, step, n, mean, ends, corrected[step], verdict))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: validations so far, and the margin."""
        return {"margin": self.margin, "steps": [[step, dict(means)] for step, means in self._steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the validations that `state_dict` returned.

        Raises:
            InputError: it is no such state.
        """
        try:
            margin, steps = state["margin"], [(int(step), dict(means)) for step, means in state["steps"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"state must be what state_dict() returned, got {state!r:.80}") from error
        self.margin, self._steps = margin, steps
        self._scores, self._worst = {}, []


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def scoring_metric(metric: str | Metric, device: str | torch.device | None = None) -> Metric:
    """Return the metric that a name or a metric means.

    Raises:
        InputError: it is neither, or returns losses.
    """
    found = load_metric(metric, device=device) if isinstance(metric, str) else metric
    if not isinstance(found, Metric) or found.as_loss:
        raise InputError(f"metric must be a name, or a metric created without as_loss, got {metric!r}")
    return found


def exact_scores(metric: Metric, images: Any) -> Tensor:
    """Return scores `(B,)` of which none is missing.

    Raises:
        InputError: a picture outside [0, 1] on an accelerator, or no picture.
        ImageError: a file that cannot be decoded; never a score that stands for nothing.
    """
    if not isinstance(images, Tensor):
        images = [to_tensor(image)[0] if not isinstance(image, Tensor) else image for image in images]
    if len(images) == 0:
        raise InputError("images must hold at least one picture, got none")
    scores = metric(images)
    if bool(scores.isnan().any()):
        place = int(scores.isnan().nonzero()[0])
        raise InputError(f"image {place} has no score: its values are not in [0, 1]")
    return scores


def _small(image: Any) -> Image.Image:
    """Return a picture at most 256 pixels wide and high."""
    tensor = to_tensor(image)[0][0]
    pixels = tensor if tensor.dtype == torch.uint8 else (tensor.float().clamp(0, 1) * 255).round().to(torch.uint8)
    small = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    small.thumbnail((_KEPT, _KEPT))
    return small
