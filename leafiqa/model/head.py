"""Heads: from standardised features to one quality logit."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def reader(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Return a two-layer reader of `(B, width)` features, `(B, 1)` logits."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1))


class Experts(nn.Module):
    """Several readers of the same features, mixed by a gate that tells what kind of picture it is.

    What makes a photograph good and what makes a generated picture good are different questions to the same features.
    The gate is soft: a picture of no known kind gets a mixture.

    Args:
        width: number of features.
        hidden: width of each reader.
        dropout: dropout before each reader's last layer, while training.
        count: number of readers.
    """

    def __init__(self, width: int, hidden: int, dropout: float, count: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(reader(width, hidden, dropout) for _ in range(count))
        self.gate = nn.Linear(width, count)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, standard: Tensor) -> Tensor:
        """Return `(B, 1)` logits of `(B, width)` features."""
        logits = torch.cat([expert(standard) for expert in self.experts], dim=1)
        return (self.shares(standard) * logits.float()).sum(dim=1, keepdim=True)

    def shares(self, standard: Tensor) -> Tensor:
        """Return how much each reader counts, `(B, count)` float32, of `(B, width)` features."""
        return self.gate(standard).float().softmax(dim=1)

    def begin_at(self, one: nn.Sequential) -> None:
        """Make every expert a copy of a single reader; the gate is left as it is."""
        for number in range(len(self.experts)):
            self.experts[number] = copy.deepcopy(one)


def last_layers(head: nn.Module) -> list[nn.Linear]:
    """Return the layers that a head's logit is made by: scaling and shifting them does the same to the logit."""
    readers = head.experts if isinstance(head, Experts) else [head]
    return [one[-1] for one in readers]  # type: ignore[index, union-attr]
