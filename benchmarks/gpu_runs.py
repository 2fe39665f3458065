"""Runs of distillation on a GPU, from pictures that lie in its memory.

The same losses and optimisation as `leafiqa distill`, in larger steps. Each step draws its pictures from all sources
almost alike, so that the photographs, of which there are most, do not push the others out of the student. A step takes
the host about 35 ms, whatever its pictures, on slow cores beside an H200, and the GPU less: with larger steps it would
have more to do.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.bank import Bank
from benchmarks.readers import NULL_CEILING, READER
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.shapes import in_batches
from leafiqa.model.student import Student
from leafiqa.training.degradations.ladders import DEGRADATIONS
from leafiqa.training.degradations.nothing import null_image
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss
from leafiqa.training.optimisation import Optimisation, freeze

LOOK, STORED = 384, 448
BATCH, LADDERED, NULLS = 32, 8, 1
# Pristine photographs, which have no score, among the pictures of a step.
PRISTINE_SHARE = 0.05
SIGMA, LADDER_STEP = 0.1, 0.8
WEIGHTS = {"point": 1.0, "pair": 1.0, "ladder": 0.5, "damage": 0.3, "null": 0.5, "gate": 0.1}
DECAY, EMA, WARMUP = 0.02, 0.995, 80
FROZEN = 2
_PROBE, _PROBE_STEPS = 1500, 300


@dataclass(frozen=True)
class Lesson:
    """What a run learns from.

    Attributes:
        numbers: of each source, which pictures of the bank; pristine photographs under "pristine".
        targets: of each picture of the bank the score to learn, NaN where there is none.
        trust: reliability of each.
        sources: index of each picture's source, to compare only pictures of one.
        readers: which reader is to read each picture.
        balance: sources are drawn by their size to one minus this.
    """

    numbers: dict[str, np.ndarray]
    targets: Tensor
    trust: Tensor
    sources: Tensor
    readers: Tensor
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
    return Lesson(
        {name: np.array(of) for name, of in numbers.items()},
        torch.tensor(known, device=device),
        torch.tensor([one.told.reliability for one in bank.pictures], device=device),
        torch.tensor([order.index(name) for name in names], device=device),
        torch.tensor([READER.get(name, 1) for name in names], device=device),
        balance,
    )


class Cutter:
    """Cuts a step's pictures out of the bank."""

    def __init__(self, bank: Bank, device: torch.device, seed: int = 0) -> None:
        self.bank, self.device = bank, device
        rng = np.random.default_rng(seed)
        nothing = np.stack([null_image(STORED, rng) for _ in range(64)])
        self.nulls = torch.from_numpy(nothing).to(device)

    def cut(self, wanted: list[tuple[Tensor, ...]], area: int, crop: int, rng: np.random.Generator) -> Tensor:
        """Return random crops `(B, 3, crop, crop)` in [0, 1]; versions that come together are cut at the same place.

        Args:
            wanted: of each picture its versions, `(h, w, 3)` uint8 of one size; the crops of all first ones come first.
            area: side of the square to whose area whole pictures would be resized.
            crop: side of the crops.
            rng: draws places and flips.
        """
        parts: list[Tensor] = []
        later: list[Tensor] = []
        flips = rng.integers(2, size=len(wanted)).astype(bool)
        for versions in wanted:
            height, width = versions[0].shape[:2]
            side = min(round(crop * STORED / area), height, width)
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            first, *others = (one[top : top + side, left : left + side].permute(2, 0, 1) for one in versions)
            parts.append(first)
            later += others

        def resized(pixels: Tensor) -> Tensor:
            floats = pixels.float() / 255
            if floats.shape[-1] == crop:
                return floats
            return functional.interpolate(floats, size=(crop, crop), mode="bilinear", antialias=True)

        pictures = in_batches(resized, [*parts, *later])
        flipped = np.concatenate([flips, np.repeat(flips, [len(versions) - 1 for versions in wanted])])
        mirrored = torch.from_numpy(flipped).to(self.device, non_blocking=True)[:, None, None, None]
        return torch.where(mirrored, pictures.flip(3), pictures).contiguous(memory_format=torch.channels_last)


def draw(bank: Bank, of: Lesson, rng: np.random.Generator) -> np.ndarray:
    """Return the numbers of a step's pictures."""
    names = [name for name in of.numbers if name != "pristine"]
    sizes = np.array([len(of.numbers[name]) for name in names], float) ** (1 - of.balance)
    shares = sizes / sizes.sum()
    if "pristine" in of.numbers:
        names, shares = [*names, "pristine"], np.append(shares * (1 - PRISTINE_SHARE), PRISTINE_SHARE)
    chosen = rng.choice(len(names), BATCH, p=shares)
    return np.array([rng.choice(of.numbers[names[source]]) for source in chosen])


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
    spoilt = scores[BATCH : BATCH + 2 * LADDERED].view(LADDERED, 2)
    whole, levels = own[:LADDERED], steps.levels[shown[:LADDERED]]
    gaps = torch.cat([whole - spoilt[:, 0], whole - spoilt[:, 1], spoilt[:, 0] - spoilt[:, 1]])
    apart = torch.cat([levels[:, 0], levels[:, 1], levels[:, 1] - levels[:, 0]])
    order = torch.special.ndtr(LADDER_STEP * apart)
    total = total + WEIGHTS["ladder"] * fidelity_loss(gaps, order, torch.ones_like(gaps), SIGMA)
    left = wanted[:LADDERED, None] * (1 - steps.costs[shown[:LADDERED], None] * levels)
    doubt = trust[:LADDERED, None].expand(-1, 2)
    total = total + WEIGHTS["damage"] * point_loss(spoilt.flatten(), left.flatten(), doubt.flatten())
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
    area: int,
    crop: int,
    epochs: float,
    rates: tuple[float, float],
    seed: int,
) -> dict[str, Tensor]:
    """Train a copy of a student and return the moving average of its weights, on the CPU.

    Args:
        cutter: where pictures come from.
        of: what to learn.
        begin: the student to begin at, on the device.
        area: side of the square to whose area whole pictures are resized.
        crop: side of what is seen of them.
        epochs: passes over the pictures.
        rates: peak learning rates of backbone and head.
        seed: draws everything.
    """
    device = cutter.device
    began = time.monotonic()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    count = max(1, round(epochs * of.count / BATCH))
    student = copy.deepcopy(begin).requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(student, FROZEN)
    optimisation = Optimisation(
        student,
        rates=rates,
        weight_decay=DECAY,
        total=count,
        warmup=WARMUP,
        ema=EMA,
        example=torch.zeros(1, 3, crop, crop, device=device),
    )
    steps = _Steps(cutter.bank, device)
    gated = hasattr(student.head, "gate")
    for _ in range(count):
        numbers = draw(cutter.bank, of, rng)
        wanted = [
            tuple(cutter.bank.picture(int(n), version) for version in (range(3) if place < LADDERED else (0,)))
            for place, n in enumerate(numbers)
        ]
        pixels = cutter.cut(wanted, area, crop, rng)
        nothing = cutter.cut(
            [(cutter.nulls[int(n)],) for n in rng.integers(len(cutter.nulls), size=NULLS)], area, crop, rng
        )
        with torch.autocast(device.type, torch.bfloat16):
            standard = student.standardise(student.features(torch.cat([pixels, nothing])))
            logits = student.read(standard)
            gate = student.head.gate(standard[:BATCH]) if gated else None  # type: ignore[operator, union-attr]
        shown = torch.from_numpy(numbers).to(device, non_blocking=True)
        loss = _losses(logits.float().sigmoid(), gate, shown, of, steps)
        optimisation.begin_step()
        loss.backward()
        optimisation.end_step()
    seen = count * (BATCH + 2 * LADDERED + NULLS)
    print(f"run of {count} steps: {seen / (time.monotonic() - began):.0f} pictures a second", flush=True)
    return {name: value.float().cpu() for name, value in optimisation.average.state_dict().items()}


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
            part = [(cutter.bank.picture(int(n)),) for n in numbers[start : start + 100]]
            rows.append(student.features(cutter.cut(part, area, crop, rng)))
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
