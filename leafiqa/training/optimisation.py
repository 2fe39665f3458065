"""One optimisation for all trainings: AdamW, warm-up and cosine schedule, clipped gradients, averaged weights."""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from leafiqa.errors import TrainingError
from leafiqa.model.backbones import Backbones
from leafiqa.model.student import Student
from leafiqa.training.batch_norm_folding import fold_batch_norm

_MOST_GRADIENT = 2.0


class Optimisation:
    """Trains a student and keeps a moving average of its weights, which is what is used in the end.

    Args:
        student: the student; its backbone's batch normalisation is folded into its convolutions while it trains.
        rates: peak learning rates of the backbone and of the head.
        weight_decay: AdamW's weight decay.
        total: steps in all.
        warmup: steps of linear warm-up.
        ema: decay of the moving average, at most; it begins lower.
        example: an input `(1, 3, h, w)` on the student's device, to fold by.

    Attributes:
        average: the averaged student, in evaluation mode.
        warmup: steps of linear warm-up; at most a fifth of all.
        step: steps taken.
    """

    def __init__(
        self,
        student: Student,
        *,
        rates: tuple[float, float],
        weight_decay: float,
        total: int,
        warmup: int,
        ema: float,
        example: Tensor,
    ) -> None:
        self.student, self.total, self.step = student, total, 0
        self._rates, self._ema = rates, ema
        # A short run would otherwise end before it is warm.
        self.warmup = min(warmup, max(1, total // 5))
        self.average = copy.deepcopy(student).eval()
        student.train()
        fold_batch_norm(student.backbone, example)
        self.backbone = [p for p in student.backbone.parameters() if p.requires_grad]
        head = [p for name, p in student.named_parameters() if not name.startswith("backbone.") and p.requires_grad]
        self._optimizer = torch.optim.AdamW([{"params": self.backbone}, {"params": head}], weight_decay=weight_decay)

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates of the backbone and of the head, of the step begun last."""
        backbone, head = (float(group["lr"]) for group in self._optimizer.param_groups)
        return backbone, head

    def begin_step(self) -> None:
        """Set this step's learning rates and forget the last one's gradients; the caller then computes new ones."""
        warm = min(1.0, (self.step + 1) / self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.total))
        for group, peak in zip(self._optimizer.param_groups, self._rates):
            group["lr"] = peak * warm * cosine
        self._optimizer.zero_grad(set_to_none=True)

    def end_step(self) -> None:
        """Take the step.

        Raises:
            TrainingError: a gradient is NaN or infinite.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), _MOST_GRADIENT)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"training has failed in step {self.step + 1} of {self.total}: its gradients are {float(norm)}. "
                "Lower learning rates (lr, head_lr) may help"
            )
        self._optimizer.step()
        self.step += 1
        decay = min(self._ema, self.step / (self.step + 10))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.student.parameters()):
                slow.lerp_(fast, 1 - decay)

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on."""
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def count_blocks(student: Student) -> int:
    """Return how many blocks a backbone is built of, the least of several; 0 where none is built of blocks in a row."""
    return len(_parts(student)[1])


def freeze(student: Student, blocks: int) -> None:
    """Keep the weights of the first `blocks` blocks of each backbone, and of its stem; 0 lets everything learn.

    Raises:
        TrainingError: the backbone has no more blocks than that, or is not built of blocks in a row.
    """
    if not blocks:
        return
    rest, parts = _parts(student)
    if blocks >= len(parts):
        raise TrainingError(
            f"freeze must be less than the {len(parts)} blocks that the backbone has, got {blocks}; "
            "freeze = 0 lets everything learn"
        )
    for module in [*rest, *parts[:blocks]]:
        module.requires_grad_(False)


def _parts(student: Student) -> tuple[list[torch.nn.Module], list[torch.nn.Module]]:
    """Return what comes before the blocks of a backbone, and the blocks; of several backbones, block beside block."""
    if not isinstance(student.backbone, Backbones):
        return _parts_of(student.backbone)
    # One that is not built of blocks learns as a whole, and so do the further blocks of one that has more of them.
    each = [parts for parts in map(_parts_of, student.backbone) if parts[1]]
    rest = [module for before, _ in each for module in before]
    return rest, [torch.nn.ModuleList(beside) for beside in zip(*(blocks for _, blocks in each))]


def _parts_of(backbone: torch.nn.Module) -> tuple[list[torch.nn.Module], list[torch.nn.Module]]:
    children = dict(backbone.named_children())
    if "blocks" in children:  # EfficientNets, MobileNets
        return [module for name, module in children.items() if name != "blocks"], list(children["blocks"].children())
    # ResNets (layer1, ...), ConvNeXts (stages_0, ...) and their like
    names = [name for name in children if re.fullmatch(r"(layers?|stages?|blocks?)_?\d+", name)]
    return [module for name, module in children.items() if name not in names], [children[name] for name in names]


@contextlib.contextmanager
def own_random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with torch's random numbers seeded, and put the caller's back afterwards.

    Dropout draws from torch's own generator, which is one for the whole process.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
