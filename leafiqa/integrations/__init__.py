"""leafiqa inside other programs: training loops, loggers, diffusers, reinforcement learning, tables, clusters.

`leafiqa.integrations.torchmetrics`, `.pyiqa` and `.ray` are imported by their own names, as each needs its toolkit.

>>> from leafiqa.integrations import QualityTracker
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leafiqa.integrations.columns import score_column
    from leafiqa.integrations.diffusers_pipelines import StepQuality, validate_pipeline
    from leafiqa.integrations.guard import RewardGuard
    from leafiqa.integrations.lightning_callback import quality_callback
    from leafiqa.integrations.rewards import ddpo_reward, flow_grpo_reward, grpo_reward
    from leafiqa.integrations.tracker import QualityTracker
    from leafiqa.integrations.writers import to_tensorboard, to_wandb

# Where each public name lives. Loaded on first use: none of them needs what the others do.
_HOME = {
    "QualityTracker": "tracker",
    "RewardGuard": "guard",
    "StepQuality": "diffusers_pipelines",
    "ddpo_reward": "rewards",
    "flow_grpo_reward": "rewards",
    "grpo_reward": "rewards",
    "quality_callback": "lightning_callback",
    "score_column": "columns",
    "to_tensorboard": "writers",
    "to_wandb": "writers",
    "validate_pipeline": "diffusers_pipelines",
}

__all__ = [
    "QualityTracker",
    "RewardGuard",
    "StepQuality",
    "ddpo_reward",
    "flow_grpo_reward",
    "grpo_reward",
    "quality_callback",
    "score_column",
    "to_tensorboard",
    "to_wandb",
    "validate_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'leafiqa.integrations' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"leafiqa.integrations.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
