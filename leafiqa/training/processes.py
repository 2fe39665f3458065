"""The processes that share a run: one by itself, or several that `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor

from leafiqa.errors import TrainingError
from leafiqa.model.device import pick_device


class Processes:
    """One process alone.

    Attributes:
        rank: number of this process; the first, 0, writes files and logs.
        count: how many there are.
        device: where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device

    def __init__(self, device: str) -> None:
        self.device = pick_device(device)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in their order; each has as many."""
        return rows

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""

    def wait(self) -> None:
        """Wait until all processes are here."""


class SeveralProcesses(Processes):
    """Processes that `accelerate launch` started, on one machine or on several."""

    def __init__(self, device: str) -> None:
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise TrainingError("training on several processes needs accelerate: pip install accelerate") from error
        self._state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        self.rank, self.count = self._state.process_index, self._state.num_processes
        self.device = self._state.device

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in their order; each has as many."""
        from accelerate.utils import gather

        return gather(rows.contiguous())

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        from accelerate.utils import reduce

        tensors = list(tensors)
        # One message for all is much faster than one for each.
        total = reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduction="sum")
        for tensor, part in zip(tensors, total.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""
        from accelerate.utils import broadcast

        # Parameters that learn are no place to write into while gradients are recorded.
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().clone(memory_format=torch.contiguous_format)))

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._state.wait_for_everyone()


def connect(device: str) -> Processes:
    """Return the processes of this run.

    Args:
        device: "auto", "cpu", "cuda", ...; with several processes on GPUs each takes one of its own.

    Raises:
        TrainingError: several were launched and accelerate is not installed.
    """
    several = os.environ.get("WORLD_SIZE", "1")
    return SeveralProcesses(device) if several.isdigit() and int(several) > 1 else Processes(device)
