"""Features of a batch, computed in several passes and on several processes, with gradients exactly as in one.

The losses compare the images of a batch with each other, so a batch cannot be cut up and its losses added. But only the
backbone is heavy, and it looks at each image by itself: features are computed in parts and put together, the head and
the losses see the whole batch, and the features' gradients go back part by part. What does not fit into memory at once
is computed a second time on the way back ("GradCache", Gao et al., 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from leafiqa.model.shapes import in_batches
from leafiqa.training.augmentation import as_floats
from leafiqa.training.processes import Processes


class GradientCache:
    """Computes the features of a batch in parts.

    Args:
        see: maps pixels `(B, 3, h, w)` on the device, floats in [0, 1], to features `(B, F)`.
        parameters: what `see` learns by.
        passes: parts that one process's share of a batch is cut into.
        processes: those that share the batch.
    """

    def __init__(
        self, see: Callable[[Tensor], Tensor], parameters: Iterable[Tensor], passes: int, processes: Processes
    ) -> None:
        self._see, self._passes, self._processes = see, passes, processes
        self._parameters = list(parameters)
        self._whole = passes == 1 and processes.count == 1

    def features(self, images: Sequence[Tensor]) -> Tensor:
        """Return features `(B, F)` of the whole batch, on each process.

        Args:
            images: the whole batch, `(3, h, w)` uint8 each, of any shapes, on the CPU.
        """
        if self._whole:
            return self._look(images)
        count, processes = len(images), self._processes
        share = -(-count // processes.count)
        rows = torch.arange(processes.rank * share, (processes.rank + 1) * share)
        # The last process may have too few: it repeats the last image, whose copies are cut off again.
        self._rows = rows[rows < count]
        self._own = [images[i] for i in rows.clamp(max=count - 1).tolist()]
        with torch.set_grad_enabled(self._passes == 1):
            self._kept = torch.cat([self._look(part) for part in self._parts()])
        self._leaf = processes.gather(self._kept.detach())[:count].requires_grad_()
        return self._leaf

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, made of the features last returned and the same on each process."""
        loss.backward()
        if self._whole:
            return
        gradient = torch.zeros_like(self._kept)
        assigned = self._leaf.grad
        if assigned is not None:
            gradient[: len(self._rows)] = assigned[self._rows.to(assigned.device)]
        if self._passes == 1:
            self._kept.backward(gradient)
        else:
            at = 0
            for part in self._parts():
                self._look(part).backward(gradient[at : at + len(part)])
                at += len(part)
        if self._processes.count > 1:
            self._processes.sum(p.grad for p in self._parameters if p.grad is not None)

    def _parts(self) -> list[Sequence[Tensor]]:
        size = -(-len(self._own) // self._passes)
        return [self._own[start : start + size] for start in range(0, len(self._own), size)]

    def _look(self, images: Sequence[Tensor]) -> Tensor:
        return in_batches(lambda pixels: self._see(as_floats(pixels, self._processes.device)), images)
