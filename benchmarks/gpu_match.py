"""Students that learn from several others, on a GPU: `python -m benchmarks.gpu_match PREPARED OUTPUT TASK...`.

A larger student is trained from its ImageNet backbone. What it, `leaf`, the larger bundled student and, of the kinds
that it saw, the first `leaf` say together of random crops, degraded pictures and mixtures of two is what a small and a
large student then learn, beside the teacher's evidence (`benchmarks.gpu_runs`). The same is done without some origins
(those of `benchmarks.transfer`), beside training for as long from the evidence alone. OUTPUT gets agreement with the
teacher, each picture's logit and the states of what has seen everything. Each task takes as many seconds as stand
behind it, or a little more. The folder `--weights` holds `leaf_lite0.general`, `leaf_lite2.second` and
`leaf_lite0.first` with their cards, and the ImageNet state dicts as `tf_efficientnet_lite0.pth` and `..._lite2.pth`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.bank import Bank
from benchmarks.gpu_leaf import FOUR, Trials, third_reader, with_state
from benchmarks.gpu_runs import BATCH, Lesson, Others, lesson, others, run
from benchmarks.transfer import TWO
from leafiqa.model.checkpoint import load_student
from leafiqa.model.places import resolve
from leafiqa.model.student import Student

LOOKS = ((320, 288), (352, 304), (384, 320))
# For steps of many pictures: peak learning rates of backbone and head.
FROM_IMAGENET, FROM_STUDENT = (4e-4, 2e-3), (2e-4, 1e-3)
EVERY: dict[str, float] = dict.fromkeys(FOUR, 1.0) | {"pristine": 1.0}
# What the first `leaf` saw.
SEEN = {"agiqa3k": 1.0, "biq2021": 1.0}
LITE0, LITE2 = "tf_efficientnet_lite0", "tf_efficientnet_lite2"


class Matching:
    """What the tasks share.

    Args:
        trials: the pictures, and where results go.
        weights: folder of the bundled students, the first `leaf` and the ImageNet backbones.
    """

    def __init__(self, trials: Trials, weights: Path) -> None:
        self.trials, self.weights = trials, weights
        self.made: dict[str, Student] = {}

    def bundled(self, name: str) -> Student:
        """Return a student of a file."""
        student = load_student(*resolve("", str(self.weights / f"{name}.safetensors")))
        student.aspects = None
        return student.requires_grad_(False).eval().to(self.trials.device)

    def plain(self, backbone: str, of: Lesson, seconds: float, seed: int) -> Student:
        """Return a student from its ImageNet backbone that learned from the evidence alone."""
        experts = 3 if "generated" in of.numbers else 2
        begin = self.trials.imagenet(self.weights / f"{backbone}.pth", of, experts, seed, backbone)
        return self.on(begin, of, seconds, seed, FROM_IMAGENET)

    def on(
        self,
        begin: Student,
        of: Lesson,
        seconds: float,
        seed: int,
        rates: tuple[float, float] = FROM_STUDENT,
        learn_from: Others | None = None,
    ) -> Student:
        """Return a student that has gone on learning."""
        state = run(
            self.trials.cutter, of, begin, looks=LOOKS, rates=rates, seed=seed, seconds=seconds, learn_from=learn_from
        )
        return with_state(begin, state)

    def note(self, name: str, student: Student, whole: bool) -> None:
        """Measure a student and keep it."""
        self.made[name] = student
        self.trials.measure(name, student, whole)

    def note_mean(self, name: str, several: Sequence[str]) -> None:
        """Measure what several students, measured before, say together."""
        trials = self.trials
        found = {}
        for title, numbers in trials.groups.items():
            rows = [trials.logits[f"{one} | {title}"] for one in several if f"{one} | {title}" in trials.logits]
            if rows:
                known = np.array([trials.bank.pictures[n].told.score for n in numbers])
                found[title] = round(float(spearmanr(np.mean(rows, 0), known)[0]), 4)
        trials.results[name] = found
        print(f"{name}: " + ", ".join(f"{t}: {v:.3f}" for t, v in found.items()), flush=True)


def larger(all_of: Matching, seconds: float, seed: int) -> None:
    """Train a larger student on everything."""
    for name, file in (("leaf", "leaf_lite0.general"), ("lite2", "leaf_lite2.second"), ("first", "leaf_lite0.first")):
        if name not in all_of.made:
            all_of.note(name, all_of.bundled(file), True)
    of = lesson(all_of.trials.bank, FOUR, False, all_of.trials.device)
    made = all_of.plain(LITE2, of, seconds, seed)
    all_of.note(f"larger-{seed}", made, True)
    all_of.trials.save(f"larger_{seed}", made)
    all_of.note_mean(f"mean of leaf, lite2, larger-{seed}", ["leaf", "lite2", f"larger-{seed}"])


def _together(all_of: Matching, of: Lesson) -> Others:
    news = [name for name in all_of.made if name.startswith("larger")]
    students = [all_of.made[name] for name in ("leaf", "lite2", "first", *news)]
    return others(students, [EVERY, EVERY, SEEN, *[EVERY] * len(news)], of)


def on_everything(all_of: Matching, seconds: float, seed: int, begin: str, name: str) -> None:
    """Let a bundled student learn from all of them."""
    of = lesson(all_of.trials.bank, FOUR, False, all_of.trials.device)
    made = all_of.on(all_of.made[begin], of, seconds, seed, learn_from=_together(all_of, of))
    all_of.note(f"{name}-{seed}", made, True)
    all_of.trials.save(f"{name}_{seed}", made)


def left_out(all_of: Matching, seconds: float, seed: int) -> None:
    """Do the like without some origins, beside training for as long from the evidence alone."""
    trials = all_of.trials
    two, four = (lesson(trials.bank, names, True, trials.device) for names in (TWO, FOUR))
    name = f"left out, seed {seed}: "
    first = all_of.plain(LITE0, two, 0.15 * seconds, seed)
    all_of.note(name + "small, two sources", first, False)
    small = all_of.plain(LITE0, four, 0.2 * seconds, seed)
    all_of.note(name + "small, four sources", small, False)
    large = all_of.plain(LITE2, four, 0.25 * seconds, seed)
    all_of.note(name + "large, four sources", large, False)
    all_of.note_mean(name + "mean of small and large", [name + "small, four sources", name + "large, four sources"])
    longer = all_of.on(small, four, 0.15 * seconds, seed)
    all_of.note(name + "small, trained on", longer, False)
    for title, begin in (("small", small), ("two sources", third_reader(first, LITE0))):
        taught_by = others([small, large, first], [EVERY, EVERY, SEEN], four)
        made = all_of.on(begin, four, 0.125 * seconds, seed, learn_from=taught_by)
        all_of.note(name + f"learned from others, begun at {title}", made, False)


TASKS: dict[str, Callable[[Matching, float, int], None]] = {
    "larger": larger,
    "small": partial(on_everything, begin="leaf", name="small"),
    "large": partial(on_everything, begin="lite2", name="large"),
    "left_out": left_out,
}


def main() -> None:
    """Do the tasks in their order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("tasks", nargs="+", help=f"such as larger-0-90: of {', '.join(TASKS)}, a seed, and seconds")
    parser.add_argument("--weights", type=Path, required=True, help="students and ImageNet backbones")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    began = time.monotonic()
    shards = sorted(int(path.stem[1:]) for path in arguments.prepared.glob("s*.json"))
    bank = Bank(arguments.prepared, shards, device)
    print(f"{len(bank.pictures)} pictures in {time.monotonic() - began:.1f} s, steps of {BATCH}", flush=True)
    all_of = Matching(Trials(bank, device, arguments.output, 600), arguments.weights)
    for task in arguments.tasks:
        kind, seed, seconds = task.split("-")
        began = time.monotonic()
        TASKS[kind](all_of, float(seconds), int(seed))
        all_of.trials.save_logits()
        print(f"{task}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
