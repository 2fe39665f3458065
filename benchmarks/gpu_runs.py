"""Runs of distillation on a GPU, from pictures that lie in its memory.

The same losses and optimisation as `leafiqa distill`, in larger steps. Each step draws its pictures from all sources
almost alike, so that the photographs, of which there are most, do not push the others out of the student. A run may
also learn what other students say of what it sees, mixtures of two pictures among it (knowledge distillation with
consistent views, Beyer et al., CVPR 2022).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.bank import Bank
from benchmarks.gpu_cuts import Cutter, joined
from benchmarks.readers import NULL_CEILING, READER
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.shapes import in_batches
from leafiqa.model.student import Student
from leafiqa.training.batch_norm_folding import fold_batch_norm
from leafiqa.training.degradations.ladders import DEGRADATIONS
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss
from leafiqa.training.optimisation import Optimisation, freeze

LOOK = 384
BATCH, LADDERED, NULLS, MIXED = 160, 32, 2, 64
# Pristine photographs, which have no score, among the pictures of a step.
PRISTINE_SHARE = 0.05
SIGMA, LADDER_STEP = 0.1, 0.8
WEIGHTS = {"point": 1.0, "pair": 1.0, "ladder": 0.5, "damage": 0.3, "null": 0.5, "gate": 0.1}
DECAY, EMA, WARMUP = 0.02, 0.99, 40
# A run with other students: how much their logits, their order and the evidence's own losses count.
MATCH, ORDER, EVIDENCE = 1.0, 0.5, 0.3
FROZEN = 2
_PROBE, _PROBE_STEPS = 1500, 300
# Steps after which a run that is given seconds knows how many it can take.
_TRIED = 12


@dataclass(frozen=True)
class Lesson:
    """What a run learns from.

    Attributes:
        numbers: of each source, which pictures of the bank; pristine photographs under "pristine".
        targets: of each picture of the bank the score to learn, NaN where there is none.
        trust: reliability of each.
        sources: index of each picture's source, to compare only pictures of one.
        readers: which reader is to read each picture.
        order: names of the sources, by index.
        laddered: of `numbers` those of which there are degraded versions.
        balance: sources are drawn by their size to one minus this.
    """

    numbers: dict[str, np.ndarray]
    targets: Tensor
    trust: Tensor
    sources: Tensor
    readers: Tensor
    order: list[str]
    laddered: dict[str, np.ndarray]
    balance: float = 0.7

    @property
    def count(self) -> int:
        """Pictures with a score."""
        return sum(len(of) for name, of in self.numbers.items() if name != "pristine")


def lesson(
    bank: Bank,
    sources: Sequence[str],
    leave_out: bool,
    device: torch.device,
    balance: float = 0.7,
) -> Lesson:
    """Return what can be learned from the train pictures of some sources, without those of a group if so told."""
    names = [one.told.source for one in bank.pictures]
    numbers: dict[str, list[int]] = {}
    for number, one in enumerate(bank.pictures):
        told = one.told
        if told.split == "train" and told.source in (*sources, "pristine") and not (leave_out and told.group):
            numbers.setdefault(told.source, []).append(number)
    known = [float("nan") if one.told.score is None else one.told.score for one in bank.pictures]
    order = sorted(set(names))
    found = {name: np.array(of) for name, of in numbers.items()}
    return Lesson(
        found,
        torch.tensor(known, device=device),
        torch.tensor([one.told.reliability for one in bank.pictures], device=device),
        torch.tensor([order.index(name) for name in names], device=device),
        torch.tensor([READER.get(name, 1) for name in names], device=device),
        order,
        {name: np.array([n for n in of if bank.pictures[n].levels]) for name, of in found.items()},
        balance,
    )


@dataclass(frozen=True)
class Others:
    """Students that a run learns from.

    Attributes:
        students: they, ready to look.
        counts: how much each counts for pictures of each source, `(students, sources)`.
    """

    students: list[Student]
    counts: Tensor

    @torch.no_grad()
    def say(self, pixels: Tensor, shares: Tensor) -> Tensor:
        """Return what they say together, logits `(B,)`, of pictures of which a share is of each source."""
        with torch.autocast(pixels.device.type, torch.float16 if pixels.is_cuda else torch.bfloat16):
            logits = torch.stack([student(pixels).float() for student in self.students])
        counts = self.counts @ shares.T
        return (counts * logits).sum(0) / counts.sum(0)


def others(students: Sequence[Student], counts: Sequence[dict[str, float]], of: Lesson) -> Others:
    """Return students to learn from; a source that is not named counts nothing of that student."""
    order = of.order
    device = of.targets.device
    ready = []
    for student in students:
        one = copy.deepcopy(student).requires_grad_(False).eval()
        fold_batch_norm(one.backbone, torch.zeros(1, 3, 64, 64, device=device))
        ready.append(one.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    table = [[one.get(name, 0.0) for name in order] for one in counts]
    return Others(ready, torch.tensor(table, device=device))


def draw(bank: Bank, of: Lesson, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the numbers of a step's pictures, first those of which there are degraded versions."""
    names = [name for name in of.numbers if name != "pristine"]
    sizes = np.array([len(of.numbers[name]) for name in names], float) ** (1 - of.balance)
    shares = sizes / sizes.sum()
    if "pristine" in of.numbers:
        names, shares = [*names, "pristine"], np.append(shares * (1 - PRISTINE_SHARE), PRISTINE_SHARE)
    chosen = rng.choice(len(names), BATCH, p=shares)
    numbers = np.empty(BATCH, np.int64)
    for place, name in enumerate(names):
        for part, known in ((chosen[:LADDERED], of.laddered), (chosen[LADDERED:], of.numbers)):
            here = np.flatnonzero(part == place) + (0 if known is of.laddered else LADDERED)
            numbers[here] = rng.choice(known[name], len(here))
    return numbers


class _Steps:
    """What does not change from step to step."""

    def __init__(self, bank: Bank, device: torch.device) -> None:
        levels = [one.levels or (0, 0) for one in bank.pictures]
        self.levels = torch.tensor(levels, dtype=torch.float32, device=device)
        costs = [DEGRADATIONS[one.kind].cost if one.kind else 0.0 for one in bank.pictures]
        self.costs = torch.tensor(costs, device=device)
        self.first, self.second = torch.triu_indices(BATCH, BATCH, offset=1, device=device)


def _losses(scores: Tensor, gate: Tensor | None, shown: Tensor, of: Lesson, steps: _Steps) -> Tensor:
    """Return the sum of all losses of a step.

    Args:
        scores: of the step's pictures, then of two degraded versions of the first ones, then of nothing.
        gate: logits of the gate on the step's pictures, if it is to learn.
        shown: numbers of the step's pictures.
        of: what is learned.
        steps: what does not change.
    """
    wanted, trust, source = of.targets[shown], of.trust[shown], of.sources[shown]
    known = wanted.isfinite()
    wanted, trust = wanted.nan_to_num(), trust * known
    own = scores[:BATCH]
    total = WEIGHTS["point"] * point_loss(own, wanted, trust)
    a, b = steps.first, steps.second
    weights = trust[a] * trust[b] * (source[a] == source[b])
    told = preference(wanted[a] - wanted[b], SIGMA)
    total = total + WEIGHTS["pair"] * fidelity_loss(own[a] - own[b], told, weights, SIGMA)
    spoilt = scores[BATCH : BATCH + 2 * LADDERED].view(2, LADDERED).T
    whole, levels = own[:LADDERED], steps.levels[shown[:LADDERED]]
    gaps = torch.cat([whole - spoilt[:, 0], whole - spoilt[:, 1], spoilt[:, 0] - spoilt[:, 1]])
    apart = torch.cat([levels[:, 0], levels[:, 1], levels[:, 1] - levels[:, 0]])
    order = torch.special.ndtr(LADDER_STEP * apart)
    total = total + WEIGHTS["ladder"] * fidelity_loss(gaps, order, torch.ones_like(gaps), SIGMA)
    left = wanted[:LADDERED, None] * (1 - steps.costs[shown[:LADDERED], None] * levels)
    doubt = trust[:LADDERED, None].expand(-1, 2)
    total = total + WEIGHTS["damage"] * point_loss(spoilt.reshape(-1), left.reshape(-1), doubt.reshape(-1))
    nothing = (scores[BATCH + 2 * LADDERED :] - NULL_CEILING).clamp(min=0).square().mean()
    total = total + WEIGHTS["null"] * nothing
    if gate is not None:
        total = total + WEIGHTS["gate"] * functional.cross_entropy(gate.float(), of.readers[shown])
    return total


def run(
    cutter: Cutter,
    of: Lesson,
    begin: Student,
    *,
    looks: Sequence[tuple[int, int]],
    rates: tuple[float, float],
    seed: int,
    epochs: float = 0.0,
    seconds: float = 0.0,
    learn_from: Others | None = None,
) -> dict[str, Tensor]:
    """Train a copy of a student and return the moving average of its weights, on the CPU.

    Args:
        cutter: where pictures come from.
        of: what to learn.
        begin: the student to begin at, on the device.
        looks: sides of the squares to whose area whole pictures are resized, and of what is seen of them; drawn anew
            for each step.
        rates: peak learning rates of backbone and head.
        seed: draws everything.
        epochs: passes over the pictures.
        seconds: how long to train, instead.
        learn_from: other students, to learn what they say.
    """
    device = cutter.device
    began = time.monotonic()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    student = copy.deepcopy(begin).requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(student, FROZEN)
    optimisation = Optimisation(
        student,
        rates=rates,
        weight_decay=DECAY,
        total=max(1, round(epochs * of.count / BATCH)) if epochs else 1_000_000,
        warmup=WARMUP,
        ema=EMA,
        example=torch.zeros(1, 3, 64, 64, device=device),
    )
    steps = _Steps(cutter.bank, device)
    gated = hasattr(student.head, "gate")
    names = torch.eye(len(of.order), device=device)
    while optimisation.step < optimisation.total:
        if not epochs and optimisation.step == _TRIED:
            since = time.monotonic()
        if not epochs and optimisation.step == 3 * _TRIED:
            pace = (time.monotonic() - since) / (2 * _TRIED)
            optimisation.total = optimisation.step + max(1, int((seconds + began - time.monotonic()) / pace))
        area, crop = looks[int(rng.integers(len(looks)))]
        numbers = draw(cutter.bank, of, rng)
        plain = cutter.draw(numbers, area, crop, rng)
        nothing = cutter.draw(rng.choice(cutter.nulls, NULLS), area, crop, rng)
        pixels = cutter.cut(joined([plain, *(plain.of_version(n, LADDERED) for n in (1, 2)), nothing]), crop)
        shown = torch.from_numpy(numbers).to(device, non_blocking=True)
        if learn_from is not None:
            share = names[of.sources[shown]]
            part = torch.rand(MIXED, 1, device=device)
            blend = part[:, :, None, None]
            pixels = torch.cat([pixels, blend * pixels[:MIXED] + (1 - blend) * pixels[MIXED : 2 * MIXED]])
            of_which = torch.cat(
                [
                    share,
                    share[:LADDERED],
                    share[:LADDERED],
                    share[:NULLS],
                    part * share[:MIXED] + (1 - part) * share[MIXED : 2 * MIXED],
                ]
            )
            told = learn_from.say(pixels, of_which)
        with torch.autocast(device.type, torch.bfloat16):
            standard = student.standardise(student.features(pixels))
            logits = student.read(standard)
            gate = student.head.gate(standard[:BATCH]) if gated else None  # type: ignore[operator, union-attr]
        logits = logits.float()
        seen = BATCH + 2 * LADDERED + NULLS
        loss = _losses(logits[:seen].sigmoid(), gate, shown, of, steps)
        if learn_from is not None:
            loss = EVIDENCE * loss + _match(logits, told, steps)
        optimisation.begin_step()
        loss.backward()
        optimisation.end_step()
    count = optimisation.step * len(pixels)
    pace = count / (time.monotonic() - began)
    print(f"run of {optimisation.step} steps: {pace:.0f} pictures a second", flush=True)
    return {name: value.float().cpu() for name, value in optimisation.average.state_dict().items()}


def _match(logits: Tensor, told: Tensor, steps: _Steps) -> Tensor:
    """Return the loss that other students' logits of the same views are for."""
    kept = torch.ones_like(told, dtype=torch.bool)
    kept[BATCH + 2 * LADDERED : BATCH + 2 * LADDERED + NULLS] = False
    near = functional.smooth_l1_loss(logits[kept], told[kept], beta=0.2)
    a, b = steps.first, steps.second
    own, wanted = logits[:BATCH].sigmoid(), told[:BATCH].sigmoid()
    order = preference(wanted[a] - wanted[b], SIGMA)
    gaps = own[a] - own[b]
    return MATCH * near + ORDER * fidelity_loss(gaps, order, torch.ones_like(gaps), SIGMA)


def probe(cutter: Cutter, of: Lesson, student: Student, *, area: int, crop: int, seed: int) -> None:
    """Set a new student's standardisation and fit its head on frozen features, before anything else learns."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    numbers = np.concatenate([of_source for name, of_source in of.numbers.items() if name != "pristine"])
    numbers = rng.permutation(numbers)[:_PROBE]
    student.eval()
    rows = []
    with torch.no_grad(), torch.autocast(cutter.device.type, torch.bfloat16):
        for start in range(0, len(numbers), 100):
            part = cutter.draw(numbers[start : start + 100], area, crop, rng)
            rows.append(student.features(cutter.cut(part, crop)))
    features = torch.cat(rows)
    student.feature_mean.copy_(features.mean(0))
    student.feature_std.copy_(features.std(0).clamp(min=1e-3))
    shown = torch.from_numpy(numbers).to(cutter.device)
    standard, wanted, trust = student.standardise(features), of.targets[shown], of.trust[shown]
    head = student.head.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(_PROBE_STEPS):
        part = torch.from_numpy(rng.integers(len(numbers), size=128)).to(cutter.device)
        loss = point_loss(head(standard[part]).squeeze(1).sigmoid(), wanted[part], trust[part])
        if hasattr(head, "gate"):
            gate = head.gate(standard[part]).float()  # type: ignore[operator, union-attr]
            loss = loss + WEIGHTS["gate"] * functional.cross_entropy(gate, of.readers[shown[part]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.requires_grad_(False).eval()


@torch.no_grad()
def look_at(student: Student, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return logits and standardised features of whole pictures `(h, w, 3)`, looked at as when they are scored."""
    look = Preprocess(area=LOOK**2)
    student.eval()

    def seen(pixels: Tensor) -> Tensor:
        standard = student.standardise(student.features(look.resize(pixels)))
        return torch.cat([student.read(standard)[:, None], standard], dim=1)

    rows = in_batches(seen, [picture.permute(2, 0, 1) for picture in pictures], 128)
    return rows[:, 0], rows[:, 1:]
