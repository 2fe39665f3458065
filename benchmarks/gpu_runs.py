"""Runs of distillation on a GPU, from pictures that lie in its memory.

The same losses as `leafiqa distill`, in larger steps and without a wait for the GPU in any of them. Each step draws its
pictures from all sources almost alike, so that the photographs, of which there are most, do not push the others out of
the student. A step takes the host about 35 ms, whatever its pictures, on slow cores beside an H200, and the GPU less:
with larger steps it would have more to do.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.bank import Bank
from benchmarks.leaf import READER
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student
from leafiqa.training.batch_norm_folding import fold_batch_norm
from leafiqa.training.degradations.ladders import DEGRADATIONS
from leafiqa.training.degradations.nothing import null_image
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss
from leafiqa.training.optimisation import freeze

LOOK, STORED = 384, 448
BATCH, LADDERED, NULLS = 32, 8, 1
# Pristine photographs, which have no score, among the pictures of a step.
PRISTINE_SHARE = 0.05
SIGMA, LADDER_STEP, NULL_CEILING = 0.1, 0.8, 0.1
WEIGHTS = {"point": 1.0, "pair": 1.0, "ladder": 0.5, "damage": 0.3, "null": 0.5, "gate": 0.1}
DECAY, CLIP, EMA = 0.02, 2.0, 0.995
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
    left_out: Callable[[str, str], bool],
    device: torch.device,
    balance: float = 0.7,
) -> Lesson:
    """Return what can be learned from the train pictures of some sources, but for origins that are left out."""
    names = [one.told.source for one in bank.pictures]
    numbers: dict[str, list[int]] = {}
    for number, one in enumerate(bank.pictures):
        told = one.told
        if told.split == "train" and told.source in (*sources, "pristine") and not left_out(told.source, told.origin):
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
            wanted: of each picture its versions, `(h, w, 3)` uint8 of one size; all first versions come first.
            area: side of the square to whose area whole pictures would be resized.
            crop: side of the crops.
            rng: draws places and flips.
        """
        groups: dict[int, tuple[list[int], list[Tensor]]] = {}
        flips = [bool(rng.integers(2)) for _ in wanted]
        flipped: list[bool] = list(flips)
        later = len(wanted)
        for place, versions in enumerate(wanted):
            height, width = versions[0].shape[:2]
            side = min(round(crop * STORED / area), height, width)
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            places, parts = groups.setdefault(side, ([], []))
            for number, version in enumerate(versions):
                parts.append(version[top : top + side, left : left + side])
                places.append(place if number == 0 else later)
                if number:
                    later += 1
                    flipped.append(flips[place])
        made, order = [], []
        for side, (places, parts) in groups.items():
            floats = torch.stack(parts).permute(0, 3, 1, 2).float() / 255
            if side != crop:
                floats = functional.interpolate(floats, size=(crop, crop), mode="bilinear", antialias=True)
            made.append(floats)
            order += places
        back = torch.tensor(order).argsort().to(self.device, non_blocking=True)
        pictures = torch.cat(made)[back]
        mirrored = torch.tensor(flipped).to(self.device, non_blocking=True)[:, None, None, None]
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
        names = list(DEGRADATIONS)
        levels = [one.levels or (0, 0) for one in bank.pictures]
        self.levels = torch.tensor(levels, dtype=torch.float32, device=device)
        costs = [DEGRADATIONS[one.kind].cost if one.kind in names else 0.0 for one in bank.pictures]
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
    student = copy.deepcopy(begin).requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(student).requires_grad_(False).eval()
    freeze(student, FROZEN)
    student.train()
    fold_batch_norm(student.backbone, torch.zeros(1, 3, crop, crop, device=device))
    backbone = [p for p in student.backbone.parameters() if p.requires_grad]
    head = [p for p in student.head.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": backbone}, {"params": head}], weight_decay=DECAY, fused=device.type == "cuda"
    )
    slow, fast = list(average.parameters()), [p.detach() for p in student.parameters()]
    steps = _Steps(cutter.bank, device)
    count = max(1, round(epochs * of.count / BATCH))
    warmup = max(1, min(80, count // 5))
    gated = hasattr(student.head, "gate")
    for step in range(count):
        share = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / count))
        for group, peak in zip(optimizer.param_groups, rates):
            group["lr"] = peak * share
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
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*backbone, *head], CLIP)
        optimizer.step()
        torch._foreach_lerp_(slow, fast, 1 - min(EMA, (step + 1) / (step + 11)))
    launched = time.monotonic() - began
    state = {name: value.float().cpu() for name, value in average.state_dict().items()}
    seen = count * (BATCH + 2 * LADDERED + NULLS)
    took = time.monotonic() - began
    print(
        f"run of {count} steps: {seen / took:.0f} pictures a second, {launched / took:.2f} of the time launching",
        flush=True,
    )
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise SystemExit("the run has failed: its weights are not finite")
    return state


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
def look_at(bank: Bank, student: Student, numbers: Sequence[int], version: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and standardised features of whole pictures, as a student looks at them when it scores them."""
    look = Preprocess(area=LOOK**2)
    student.eval()
    groups: dict[tuple[int, int], list[int]] = {}
    for place, number in enumerate(numbers):
        one = bank.pictures[number]
        groups.setdefault((one.height, one.width), []).append(place)
    logits, features, order = [], [], []
    for places in groups.values():
        for start in range(0, len(places), 128):
            part = places[start : start + 128]
            pictures = torch.stack([bank.picture(numbers[place], version) for place in part]).permute(0, 3, 1, 2)
            standard = student.standardise(student.features(look.resize(pictures)))
            logits.append(student.read(standard))
            features.append(standard)
            order += part
    back = torch.tensor(order).argsort().to(logits[0].device)
    return torch.cat(logits)[back], torch.cat(features)[back]
