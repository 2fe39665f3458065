"""Rewards for reinforcement learning of generators, in the signatures that trainers call.

Deterministic and batched; pictures go from memory to the metric. A picture without a score is an error, never a score
of 0. Optimising a no-reference metric ends in pictures that please the metric and not people: pass a `RewardGuard`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leafiqa.errors import GuardWarning, InputError
from leafiqa.integrations.guard import RewardGuard
from leafiqa.integrations.tracker import exact_scores, scoring_metric
from leafiqa.metric import Metric

Scores = NDArray[np.float32]
BatchReward = Callable[[Any, Any, Any], tuple[Scores, dict[str, Any]]]


def ddpo_reward(
    metric: str | Metric = "leaf", *, device: str | torch.device | None = None, guard: RewardGuard | None = None
) -> BatchReward:
    """Return a reward as DDPO and TRL's DDPOTrainer call it: `(images, prompts, metadata) -> (rewards, info)`.

    Args:
        metric: a name or a metric, not `as_loss`.
        device: where a metric given by name computes.
        guard: looks at every batch; its drifts and alarms are in `info`, and an alarm is a `GuardWarning`, too.

    Returns:
        A function of pictures (`(B, 3, H, W)` tensor, float in [0, 1] or uint8; `(B, H, W, 3)` uint8 array; or a list
        of pictures), prompts and metadata, which returns rewards `(B,)` float32 and a dict.

    Raises:
        InputError: a metric that returns losses.
    """
    scorer = scoring_metric(metric, device)

    def reward(images: Any, prompts: Any = None, metadata: Any = None) -> tuple[Scores, dict[str, Any]]:
        pictures = _pictures(images)
        scores = exact_scores(scorer, pictures).float().cpu().numpy()
        info: dict[str, Any] = {}
        if guard is not None:
            # Prompts come as tuples, lists or arrays, or not at all.
            seen = guard.check(pictures, None if prompts is None else [str(prompt) for prompt in prompts])
            info = {"guard": seen.drifts, "alarms": seen.alarms}
            if seen.alarms:
                warnings.warn(
                    f"the reward may be hacked: {'; '.join(seen.alarms)}; look at the pictures",
                    GuardWarning,
                    stacklevel=2,
                )
        return scores, info

    return reward


def flow_grpo_reward(
    metric: str | Metric = "leaf", *, guard: RewardGuard | None = None
) -> Callable[[Any], BatchReward]:
    """Return a factory as flow_grpo registers it: `factory(device)` returns `fn(images, prompts, metadata)`.

    Args:
        metric: a name, or a metric, which is moved to the device.
        guard: see `ddpo_reward`.

    Returns:
        A factory; what it returns gives scores `(B,)` float32 and a dict.
    """

    def factory(device: Any) -> BatchReward:
        return ddpo_reward(metric if isinstance(metric, str) else metric.to(device), device=device, guard=guard)

    return factory


def grpo_reward(
    metric: str | Metric = "leaf",
    *,
    column: str | None = None,
    device: str | torch.device | None = None,
    guard: RewardGuard | None = None,
) -> Callable[..., list[float]]:
    """Return a reward as TRL's GRPOTrainer calls it: `f(completions, **columns) -> list[float]`.

    Args:
        metric: a name or a metric, not `as_loss`.
        column: the column that holds the pictures; None means that the completions are the pictures.
        device: where a metric given by name computes.
        guard: see `ddpo_reward`.

    Raises:
        InputError: a metric that returns losses.
    """
    reward = ddpo_reward(metric, device=device, guard=guard)

    def grpo(completions: Sequence[Any], **columns: Any) -> list[float]:
        if column is not None and column not in columns:
            raise InputError(f"there is no column {column!r}; there are {sorted(columns)}")
        scores, _ = reward(completions if column is None else columns[column], columns.get("prompts"), None)
        return [float(score) for score in scores]

    # Trainers log a reward under its name.
    grpo.__name__ = "leafiqa_quality"
    return grpo


def _pictures(images: Any) -> Any:
    """Return pictures in a form that metric and guard take: arrays of a batch become a list."""
    if isinstance(images, np.ndarray):
        if images.ndim != 4:
            raise InputError(f"an array of pictures must have the shape (B, H, W, 3), got {images.shape}")
        return list(images)
    if isinstance(images, torch.Tensor):
        return images
    if not isinstance(images, Iterable) or isinstance(images, (str, bytes, dict)):
        raise InputError(f"pictures must be a tensor, an array or a list, got {type(images).__name__}")
    return list(images)
