"""Ways of making `leaf` beside each other, on a GPU: `python -m benchmarks.gpu_leaf PREPARED OUTPUT TASK...`.

Each way is tried without some origins first (those of `benchmarks.transfer`) and measured on them, then trained on
everything. PREPARED holds shards made by `benchmarks.bank`; OUTPUT gets the agreement with the teacher, each picture's
logit, and the states of the students that have seen everything. Tasks that would not end in time are not begun.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

import benchmarks.readers as readers_of_leaf
from benchmarks.bank import Bank
from benchmarks.gpu_cuts import Cutter
from benchmarks.gpu_runs import Lesson, lesson, look_at, probe, run
from benchmarks.leaf import KEPT, interpolated
from benchmarks.readers import Material, fit_readers
from benchmarks.transfer import MOST, TWO
from leafiqa.distillation.start import load_imagenet
from leafiqa.model.checkpoint import load_student
from leafiqa.model.places import resolve
from leafiqa.model.student import Student
from leafiqa.training.averaging import average_states, between
from leafiqa.training.degradations.ladders import DEGRADATIONS

FOUR = (*TWO, "photos", "generated")
# Sides of the squares of whole pictures and of crops: a run's, in turn.
LOOKS = ((320, 288), (352, 304), (288, 256))
# Peak learning rates of backbone and head.
FROM_IMAGENET, FROM_STUDENT = (2e-4, 1.5e-3), (1.4e-4, 7e-4)
SHARES = (0.25, 0.5, 0.75, 1.0)


class Trials:
    """What all ways of making a student share.

    Args:
        bank: the pictures.
        device: the device.
        output: where results go.
        seconds: how long there is.
    """

    def __init__(self, bank: Bank, device: torch.device, output: Path, seconds: float) -> None:
        self.bank, self.device, self.output = bank, device, output
        self.cutter = Cutter(bank, device)
        self.ends = time.monotonic() + seconds
        self.results: dict[str, Any] = {}
        self.logits: dict[str, np.ndarray] = {}
        self.made: dict[int, tuple[Student, Student, Student, Student]] = {}
        output.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        self.groups: dict[str, list[int]] = {}
        for title in dict.fromkeys(one.told.group for one in bank.pictures if one.told.group):
            of = [n for n, one in enumerate(bank.pictures) if one.told.group == title]
            self.groups[f"left out: {title}"] = [of[i] for i in rng.permutation(len(of))[:MOST]]
        for source in FOUR:
            of = [n for n, one in enumerate(bank.pictures) if one.told.source == source and one.told.split == "val"]
            self.groups[f"val: {source}"] = of

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.ends - time.monotonic()

    def measure(self, name: str, student: Student, whole: bool) -> None:
        """Note how a student agrees with the teacher."""
        found = {}
        for title, numbers in self.groups.items():
            if numbers and not (whole and title.startswith("left out")):
                logits = look_at(student, self.bank.several(numbers))[0].float().cpu().numpy()
                known = np.array([self.bank.pictures[n].told.score for n in numbers])
                found[title] = round(float(spearmanr(logits, known)[0]), 4)
                self.logits[f"{name} | {title}"] = logits.astype(np.float32)
        self.results[name] = found
        print(f"{name} [{self.left:.0f} s left]: " + ", ".join(f"{t}: {v:.3f}" for t, v in found.items()), flush=True)
        (self.output / "results.json").write_text(json.dumps(self.results, indent=1), encoding="utf-8")

    def save_logits(self) -> None:
        """Write each picture's logit, by student and group of pictures, and the names."""
        names = {
            f"names | {t}": np.array([self.bank.pictures[n].told.name for n in of]) for t, of in self.groups.items()
        }
        np.savez_compressed(self.output / "logits.npz", **names, **self.logits)

    def soup(
        self, of: Lesson, begin: Student, runs: int, epochs: float, rates: tuple[float, float], seed: int
    ) -> Student:
        """Return the mean of runs from one beginning."""
        states = [
            run(self.cutter, of, begin, looks=[LOOKS[n % 3]], epochs=epochs, rates=rates, seed=seed + n)
            for n in range(runs)
        ]
        return with_state(begin, average_states(states))

    def imagenet(self, weights: Path, of: Lesson, experts: int, seed: int, backbone: str) -> Student:
        """Return a student from an ImageNet backbone, its head fitted to what it is to learn."""
        student = Student(backbone, experts=experts)
        load_imagenet(student, weights)
        student.requires_grad_(False).eval().to(self.device)
        probe(self.cutter, of, student, area=320, crop=288, seed=seed)
        return student

    def kept(self, of: Lesson, first: Student, share: float | None) -> Lesson:
        """Return a lesson whose targets are in part the first student's own scores, where it had learned already."""
        targets = of.targets.clone()
        for source in TWO:
            numbers = of.numbers[source].tolist()
            here = torch.tensor(numbers, device=self.device)
            own = look_at(first, self.bank.several(numbers))[0].sigmoid()
            wanted = targets[here]
            slope, offset = np.polyfit(own.cpu().numpy(), wanted.cpu().numpy(), 1)
            part = KEPT[source] if share is None else share
            targets[here] = (1 - part) * wanted + part * (float(slope) * own + float(offset))
        return replace(of, targets=targets)

    def with_readers(self, of: Lesson, student: Student, runs: int, damaged: int = 2500) -> Student:
        """Return a student whose readers have gone on learning on frozen features, see `benchmarks.leaf`."""
        rng = np.random.default_rng(5)
        order = [name for name in FOUR if name in of.numbers]
        numbers = np.concatenate([of.numbers[name] for name in order])
        features = look_at(student, self.bank.several(numbers))[1].cpu()
        spoilt, wanted = [], []
        for version in (1, 2):
            part = [int(n) for name in order for n in rng.choice(of.laddered[name], damaged // (2 * len(order)))]
            spoilt.append(look_at(student, self.bank.several(part, version))[1].cpu())
            pictures = [self.bank.pictures[n] for n in part]
            left = [1 - DEGRADATIONS[one.kind].cost * one.levels[version - 1] for one in pictures]
            wanted.append(of.targets[part].cpu() * torch.tensor(left))
        nulls = look_at(student, self.bank.several(self.cutter.nulls.tolist()))[1].cpu()
        chosen = torch.from_numpy(numbers)
        source = torch.tensor([order.index(self.bank.pictures[int(n)].told.source) for n in numbers])
        material = Material(
            features,
            of.targets.cpu()[chosen],
            of.trust.cpu()[chosen],
            source,
            torch.cat(spoilt),
            torch.cat(wanted),
            nulls,
        )
        config: Any = SimpleNamespace(sources=[SimpleNamespace(name=name) for name in order], sigma=0.1, seed=0)
        made = copy.deepcopy(student).cpu()
        for module in made.head.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = readers_of_leaf.DROPOUT
        made.head.requires_grad_(True)
        readers_of_leaf.RUNS = runs
        fit_readers(config, made, material)
        return made.requires_grad_(False).eval().to(self.device)

    def save(self, name: str, student: Student) -> None:
        """Write a student's state, in half precision."""
        state = {
            key: value.cpu().half() if key.startswith("backbone") else value.cpu()
            for key, value in student.state_dict().items()
        }
        torch.save(state, self.output / f"{name}.pt")


def with_state(student: Student, state: dict[str, Tensor]) -> Student:
    """Return a copy of a student with other weights."""
    made = copy.deepcopy(student)
    made.load_state_dict(state)
    return made.requires_grad_(False).eval()


def on_the_way(first: Student, last: Student, share: float) -> Student:
    """Return the student a share of the way from the first to the last."""
    return with_state(first, between(first.state_dict(), last.state_dict(), share))


def third_reader(first: Student, backbone: str) -> Student:
    """Return a student of two readers with a third one, for newer generators, that begins at the first."""
    student = interpolated(copy.deepcopy(first).cpu(), backbone, None)
    return student.to(first.feature_mean.device)


def try_left_out(trials: Trials, arguments: argparse.Namespace, seed: int) -> None:
    """Train the main ways without some origins and measure them there."""
    name = f"left out, seed {seed}: "
    two = lesson(trials.bank, TWO, True, trials.device)
    four = lesson(trials.bank, FOUR, True, trials.device)
    begin = trials.imagenet(arguments.imagenet, two, 2, seed, arguments.backbone)
    first = trials.soup(two, begin, arguments.runs, 4 * arguments.scale, FROM_IMAGENET, 100 * seed)
    trials.measure(name + "two sources", first, False)
    begin = trials.imagenet(arguments.imagenet, four, 3, seed, arguments.backbone)
    plain = trials.soup(four, begin, arguments.runs, 4 * arguments.scale, FROM_IMAGENET, 100 * seed + 10)
    trials.measure(name + "four sources", plain, False)
    start = third_reader(first, arguments.backbone)
    on = trials.soup(
        trials.kept(four, first, 0.5), start, arguments.runs, 2 * arguments.scale, FROM_STUDENT, 100 * seed + 20
    )
    for share in SHARES:
        trials.measure(name + f"from two to four, {share:g} of the way", on_the_way(start, on, share), False)
    trials.made[seed] = (first, plain, start, on)


def try_readers(trials: Trials, arguments: argparse.Namespace, seed: int) -> None:
    """Let the readers of what `try_left_out` made go on learning on frozen features."""
    name = f"left out, seed {seed}: "
    four = lesson(trials.bank, FOUR, True, trials.device)
    first, plain, start, on = trials.made[seed]
    trials.measure(name + "four sources, then readers", trials.with_readers(four, plain, 3), False)
    own = trials.kept(four, first, None)
    trials.measure(
        name + "half of the way, then readers", trials.with_readers(own, on_the_way(start, on, 0.5), 3), False
    )
    trials.measure(name + "readers alone", trials.with_readers(own, start, 3), False)


def try_variants(trials: Trials, arguments: argparse.Namespace, seed: int) -> None:
    """Train on four sources with one thing changed at a time."""
    name = f"left out, seed {seed}: four sources, "
    four = lesson(trials.bank, FOUR, True, trials.device)
    for title, of, experts in (
        ("one reader", four, 1),
        ("drawn by size", lesson(trials.bank, FOUR, True, trials.device, balance=0.0), 3),
    ):
        begin = trials.imagenet(arguments.imagenet, of, experts, seed, arguments.backbone)
        made = trials.soup(of, begin, arguments.runs, 4 * arguments.scale, FROM_IMAGENET, 100 * seed + 10)
        trials.measure(name + title, made, False)


def make_whole(trials: Trials, arguments: argparse.Namespace, seed: int) -> None:
    """Train on everything: on from the first `leaf`, and from the ImageNet backbone."""
    four = lesson(trials.bank, FOUR, False, trials.device)
    first = load_student(*resolve("", arguments.first))
    first.aspects = None
    first.requires_grad_(False).eval().to(trials.device)
    trials.measure("whole: the first leaf", first, True)
    start = third_reader(first, arguments.backbone)
    on = trials.soup(
        trials.kept(four, first, 0.5), start, arguments.runs, 2 * arguments.scale, FROM_STUDENT, 1000 + seed
    )
    trials.save(f"on_{seed}", on)
    for share in SHARES:
        trials.measure(
            f"whole, seed {seed}: from the first leaf, {share:g} of the way", on_the_way(start, on, share), True
        )
    begin = trials.imagenet(arguments.imagenet, four, 3, seed, arguments.backbone)
    plain = trials.soup(four, begin, arguments.runs, 4 * arguments.scale, FROM_IMAGENET, 1100 + seed)
    trials.save(f"plain_{seed}", plain)
    trials.measure(f"whole, seed {seed}: four sources", plain, True)


def main() -> None:
    """Do as much as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("tasks", nargs="+", help=f"each a seed behind one of {', '.join(TASKS)}, such as left_out-0")
    parser.add_argument("--imagenet", type=Path, default=Path("../runs/efficientnet-lite0.pth"))
    parser.add_argument("--first", default="weights/hub/leaf_lite0.first.safetensors")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--runs", type=int, default=3, help="runs that are averaged")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all epochs")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    shards = sorted(int(path.stem[1:]) for path in arguments.prepared.glob("s*.json"))
    began = time.monotonic()
    bank = Bank(arguments.prepared, shards, device)
    trials = Trials(bank, device, arguments.output, arguments.seconds - (time.monotonic() - began))
    print(
        f"{len(bank.pictures)} pictures in {time.monotonic() - began:.1f} s; "
        + str({t: len(of) for t, of in trials.groups.items()})
    )
    for task in arguments.tasks:
        kind, _, seed = task.partition("-")
        began = time.monotonic()
        if trials.left < 5:
            print(f"{task} is not begun", flush=True)
            continue
        TASKS[kind](trials, arguments, int(seed))
        trials.save_logits()
        print(f"{task}: {time.monotonic() - began:.0f} s", flush=True)


TASKS: dict[str, Callable[[Trials, argparse.Namespace, int], None]] = {
    "left_out": try_left_out,
    "readers": try_readers,
    "variants": try_variants,
    "whole": make_whole,
}


if __name__ == "__main__":
    main()
