"""How the readers of `leaf` learn, on frozen features: several that know more together, and one that does what they do.

Readers of one kind of picture know little of the others, and of a kind that none was made for the gate can only guess.
So a picture's readers are mixed at random in part while they learn: each comes to read all kinds, its own best. Means
of several runs are better than any of them, and a linear reader, worse by itself on pictures like those it learned
from, is better on others. The mean of all of them is imitated by one student: its readers and gate learn its scores of
features with noise, of which there are as many as wanted. What was tried: docs/experiments.md.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from leafiqa.distillation.config import Config
from leafiqa.model.head import Experts
from leafiqa.model.student import Student
from leafiqa.training.aspect_fits import residuals
from leafiqa.training.averaging import average_states
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss

# Which reader is to read a source.
READER = {"agiqa3k": 0, "biq2021": 1, "photos": 1, "generated": 2, "gallery": 3, "snaps": 4}
RUNS, LINEAR_RUNS, EPOCHS, BATCH, RATE, DECAY, DROPOUT = 8, 3, 8, 128, 1e-3, 0.1, 0.5
# Standard deviation of noise on standardised features: the reader is not to learn the training pictures by heart.
NOISE = 0.5
# Sources are drawn by their size to one minus this: 0 by size, 1 all alike.
BALANCE = 0.7
GATE_WEIGHT, DAMAGE_WEIGHT, NULL_WEIGHT, NULL_CEILING = 0.1, 0.6, 0.5, 0.1
# Of the mean that is imitated: how much the linear reader counts in it, and what the gates' logits are multiplied by.
LINEAR_SHARE, SOFTENED = 0.1, 0.5
# How much readers count in it that learned from fewer sources before, and know those better, if there are any.
BESIDE_SHARE = 0.5
IMITATION_STEPS, IMITATION_BATCH = 1500, 256

Reader = Callable[[Tensor], Tensor]


@dataclasses.dataclass
class Material:
    """Standardised features, and what their scores should be."""

    features: Tensor
    targets: Tensor
    reliabilities: Tensor
    source: Tensor
    damaged: Tensor
    damaged_targets: Tensor
    nulls: Tensor

    def everything(self) -> Tensor:
        """Return the features of all pictures, of damaged ones and of nothing."""
        return torch.cat([self.features, self.damaged, self.nulls])

    def part(self, rows: Tensor, damaged: Tensor) -> Material:
        """Return what is learned from if only these pictures are, and these damaged ones."""
        which = {"damaged": damaged, "damaged_targets": damaged, "nulls": slice(None)}
        return Material(**{name: value[which.get(name, rows)] for name, value in vars(self).items()})


@dataclasses.dataclass
class Companion:
    """Another student that has looked at the same pictures.

    Attributes:
        features: `(n, F)`, its own, of the pictures in the order of `Material.everything`.
        read: the `(B, 1)` logits that it reads in them.
    """

    features: Tensor
    read: Reader


class LinearReader(nn.Module):
    """A linear function of features, zero at first, with dropout while it learns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(width, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, 1)` logits of `(B, F)` features."""
        made: Tensor = self.last(self.drop(features))
        return made


def read_by(head: Experts, features: Tensor, shares: Tensor) -> Tensor:
    """Return `(B, 1)` logits in which each reader counts by its share, `(B, readers)`, whatever the gate says."""
    return (shares * torch.cat([expert(features) for expert in head.experts], 1)).sum(1, keepdim=True)


def mixed(head: Experts, features: Tensor) -> Tensor:
    """Return `(B, 1)` logits in which a random part of the gate's shares is replaced by random ones."""
    part = torch.rand(len(features), 1)
    drawn = torch.empty(len(features), len(head.experts)).exponential_().clamp(min=1e-9)
    return read_by(head, features, (1 - part) * head.shares(features) + part * drawn / drawn.sum(1, keepdim=True))


def softened(head: Experts, features: Tensor) -> Tensor:
    """Return `(B, 1)` logits of a head whose gate is less sure than it was trained to be."""
    return read_by(head, features, (head.gate(features) * SOFTENED).softmax(1))


def fit_readers(config: Config, student: Student, material: Material, beside: nn.Module | None = None) -> None:
    """Let a student's readers and gate go on learning from features.

    Args:
        config: the run.
        student: the student, whose readers begin at what they are.
        material: what they learn from.
        beside: another head for the same features, whose logits count in what is imitated.
    """
    head = student.head
    if not isinstance(head, Experts):
        raise SystemExit("the student must have several readers and a gate")
    together, runs = learn_together(config, head, material, beside, RUNS, LINEAR_RUNS)
    head.load_state_dict(average_states([one.state_dict() for one in runs]))
    soften(head)
    torch.manual_seed(config.seed)
    imitate(head, together, material)
    move_all(head, material)


def soften(head: Experts) -> None:
    """Make a head's gate less sure than it was trained to be, for good."""
    with torch.no_grad():
        head.gate.weight.mul_(SOFTENED)
        head.gate.bias.mul_(SOFTENED)


def move_all(head: Experts, material: Material) -> None:
    """Move a head's readers so that the sources are right on average: noise and damage pull scores down.

    All are moved alike. To move each by its own sources' would let what the gate takes a picture for decide its score.
    """
    with torch.no_grad():
        shift = mean_residual(head(material.features).squeeze(1), material)
        for reader in head.experts:
            reader[-1].bias += shift  # type: ignore[index]


def learn_together(
    config: Config, head: Experts, material: Material, beside: nn.Module | None, runs: int, linear_runs: int
) -> tuple[Reader, list[Experts]]:
    """Let several heads and linear readers learn from features.

    Args:
        config: the run.
        head: what each head begins at; it does not change.
        material: what they learn from.
        beside: another head for the same features, which counts in the mean.
        runs: how many heads.
        linear_runs: how many linear readers.

    Returns:
        The mean of what all of them say, and the heads.
    """
    heads: list[Experts] = []
    for run in range(runs):
        torch.manual_seed(config.seed + run)
        heads.append(copy.deepcopy(head))
        fit_once(config, heads[-1], lambda features: mixed(heads[-1], features), material)
    lines = [LinearReader(material.features.shape[1]) for _ in range(linear_runs)]
    for run, line in enumerate(lines):
        torch.manual_seed(config.seed + run)
        fit_once(config, line, line, material)

    def together(features: Tensor) -> Tensor:
        several = torch.stack([softened(one, features) for one in heads]).mean(0)
        straight = torch.stack([line(features) for line in lines]).mean(0)
        mean = (1 - LINEAR_SHARE) * several + LINEAR_SHARE * straight
        return mean if beside is None else (1 - BESIDE_SHARE) * mean + BESIDE_SHARE * beside(features)

    return together, heads


def mean_residual(logits: Tensor, material: Material) -> Tensor:
    """Return by how much logits `(n,)` of the material's features are off, the mean of its sources' means."""
    off = residuals(logits, material.targets)
    return torch.stack([off[material.source == number].mean() for number in material.source.unique()]).mean()


def fit_once(
    config: Config, head: nn.Module, read: Reader, material: Material, reader_of: Mapping[str, int] | None = None
) -> None:
    """Let a head learn from features.

    Args:
        config: the run.
        head: of readers and a gate, which learns the sources' kinds, or without.
        read: `(B, 1)` logits of `(B, F)` features while it learns.
        material: what it learns from.
        reader_of: which reader is to read a source; None means `READER`.
    """
    head.requires_grad_(True).train()
    readers = torch.tensor([(reader_of or READER)[source.name] for source in config.sources])
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * len(material.targets) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sizes = torch.bincount(material.source, minlength=len(config.sources)).double()
    shares = sizes[material.source] ** -BALANCE
    first, second = torch.triu_indices(BATCH, BATCH, offset=1)
    for _ in range(steps):
        chosen = torch.multinomial(shares, BATCH, replacement=True)
        features = material.features[chosen]
        features = features + NOISE * torch.randn_like(features)
        scores, wanted = read(features).squeeze(1).sigmoid(), material.targets[chosen]
        trust, source = material.reliabilities[chosen], material.source[chosen]
        same = source[first] == source[second]
        a, b = first[same], second[same]
        gap, told = scores[a] - scores[b], preference(wanted[a] - wanted[b], config.sigma)
        loss = point_loss(scores, wanted, trust) + fidelity_loss(gap, told, trust[a] * trust[b], config.sigma)
        if isinstance(head, Experts):
            loss = loss + GATE_WEIGHT * nn.functional.cross_entropy(head.gate(features), readers[source])
        part = torch.randint(len(material.damaged), (48,))
        spoilt = read(material.damaged[part]).squeeze(1).sigmoid()
        loss = loss + DAMAGE_WEIGHT * point_loss(spoilt, material.damaged_targets[part], torch.ones(48))
        nothing = read(material.nulls[torch.randint(len(material.nulls), (8,))]).squeeze(1).sigmoid()
        loss = loss + NULL_WEIGHT * (nothing - NULL_CEILING).clamp(min=0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.requires_grad_(False).eval()


def imitate(
    head: Experts,
    together: Reader,
    material: Material,
    companion: Companion | None = None,
    steps: int = IMITATION_STEPS,
) -> None:
    """Let one head learn what several say together, of features with noise.

    Args:
        head: the head; it begins at what it is.
        together: `(B, 1)` logits of `(B, F)` features.
        material: pictures to learn from; their targets are not read.
        companion: another student, whose logits count half.
        steps: how many steps of 256 pictures.
    """
    head.eval().requires_grad_(True)
    seen = material.everything()
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(seen), (IMITATION_BATCH,))
        noise = NOISE * torch.rand(len(chosen), 1)
        features = seen[chosen]
        features = features + noise * torch.randn_like(features)
        with torch.no_grad():
            wanted = together(features)
            if companion is not None:
                theirs = companion.features[chosen]
                wanted = (wanted + companion.read(theirs + noise * torch.randn_like(theirs))) / 2
        loss = nn.functional.smooth_l1_loss(head(features), wanted, beta=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.requires_grad_(False)
