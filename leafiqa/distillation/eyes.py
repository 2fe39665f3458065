"""A student that does not learn, looking at whole pictures as it does when it scores them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leafiqa.model.fused_network import fused_copy
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student, pool_stages


class Eyes:
    """Shows pictures to a student.

    Args:
        student: the student, in evaluation mode; on a CPU a copy of it looks, which takes half the time.
        look: side of the square to whose area pictures are resized.
    """

    def __init__(self, student: Student, look: int) -> None:
        self._device = student.feature_mean.device
        self._student = fused_copy(student) or student
        self._look = Preprocess(area=look**2)

    def resize(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return `(1, 3, h, w)` float pixels in [0, 1] of `(H, W, 3)` ones."""
        return self._look.resize(torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None])

    @torch.no_grad()
    def see(self, pictures: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the stages, the standardised features and the logits of resized pictures, on the CPU."""
        stages = self._student.stages(pictures.to(self._device))
        standard = self._student.standardise(pool_stages(stages))
        return [stage.cpu() for stage in stages], standard.cpu(), self._student.read(standard).cpu()
