"""Average the weights of runs of one beginning: `python -m leafiqa.training.averaging OUT.pt STATE.pt...`.

Students fine-tuned from one beginning lie in one basin, and the mean of their weights agrees better with the teacher
than each of them does, at the cost of one ("Model soups", Wortsman et al., ICML 2022).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from leafiqa.errors import TrainingError


def average_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of state dicts, entry by entry; counters are taken from the first.

    Raises:
        TrainingError: none are given, or they are not of one architecture.
    """
    if not states:
        raise TrainingError("there is nothing to average")
    shapes = {name: tuple(value.shape) for name, value in states[0].items()}
    for state in states[1:]:
        if {name: tuple(value.shape) for name, value in state.items()} != shapes:
            raise TrainingError("only states of one architecture can be averaged")
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def between(start: dict[str, Tensor], end: dict[str, Tensor], part: float) -> dict[str, Tensor]:
    """Return the state that lies a part of the way from one to another (WiSE-FT, Wortsman et al., CVPR 2022).

    Args:
        start: where the way begins; what it lacks of the end counts as zero.
        end: where it ends; counters are taken from it.
        part: 0 is the start, 1 the end.

    Raises:
        TrainingError: an entry has not the same shape in both.
    """
    state = {}
    for name, value in end.items():
        begins = start.get(name, torch.zeros_like(value))
        if begins.shape != value.shape:
            raise TrainingError("only between states of one architecture is there a way")
        state[name] = torch.lerp(begins.float(), value.float(), part) if value.is_floating_point() else value
    return state


if __name__ == "__main__":
    out, *paths = map(Path, sys.argv[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(average_states([torch.load(path, map_location="cpu", weights_only=True) for path in paths]), out)
