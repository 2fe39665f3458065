"""A module that holds a student without its being a part of the module, so that training around it leaves it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leafiqa.model.student import Student

if TYPE_CHECKING:
    from typing_extensions import Self


class StudentHolder(nn.Module):
    """Holds a student, in evaluation mode and without gradients of its weights.

    Args:
        student: the student.
        inert: keep the network out of the module tree: it has no part in the module's parameters, buffers,
            `state_dict`, `train()`, `half()` or conversions, and stays what it is. It follows the module to another
            device. False makes it an ordinary child, whose network may be trained.
    """

    student: Student

    def __init__(self, student: Student, inert: bool) -> None:
        super().__init__()
        self.inert = inert
        student.requires_grad_(False).train(False)
        if inert:
            # Past nn.Module's own bookkeeping, which would make it a child.
            self.__dict__["student"] = student
        else:
            self.student = student
        super().train(False)

    @property
    def device(self) -> torch.device:
        """The device that the student is on."""
        return self.student.mean.device

    def train(self, mode: bool = True) -> Self:
        """Do nothing while inert: a student inside a model that is being trained stays in evaluation mode."""
        return super().train(False if self.inert else mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow `.to(device)`, `.cuda()` and the like; inert, changes of precision are not followed."""
        super()._apply(fn, recurse)
        if self.inert:
            place = fn(torch.empty(0, device=self.device)).device
            if place.type != "meta":
                self.student.to(place)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing: Any,
        unexpected: Any,
        errors: Any,
    ) -> None:
        """Take nothing while inert: checkpoints of a module written when its student had entries still load."""
        if not self.inert:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
