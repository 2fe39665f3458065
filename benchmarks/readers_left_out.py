"""What readers make of origins that they did not learn from: `python -m benchmarks.readers_left_out FOLDER`.

FOLDER holds the features that `benchmarks.leaf` leaves there. The backbone has seen all pictures; the readers learn
three times, each time without other generators, repositories or parts of the photographs, and are asked there. Beside
the readers that `leaf` has: the mean of the weights of as many runs in which each picture is read under its own gate.
SRCC with the teacher, with bootstrap intervals, and their mean over the origins that were left out.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import leafiqa
from benchmarks.common import need_data, report
from benchmarks.leaf import CONFIG, all_sources, degraded_from, gather, interpolated
from benchmarks.readers import RUNS, Material, fit_once, fit_readers
from benchmarks.transfer import repositories
from leafiqa.cli.progress import progress
from leafiqa.distillation.config import Config, read_config
from leafiqa.distillation.data import read_source
from leafiqa.evaluation.measures import agreement
from leafiqa.evidence.reliability import targets
from leafiqa.model.student import Student
from leafiqa.training.averaging import average_states

# Of each fold what is left out, by source: repositories of `generated`, beginnings of names of the others.
FOLDS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "agiqa3k": ("glide",),
        "biq2021": ("ss01",),
        "photos": ("ss01",),
        "generated": ("AI-Horde-Styles", "Bias-ai-university-visuals"),
    },
    {
        "agiqa3k": ("midjourney",),
        "biq2021": ("ss02",),
        "photos": ("ss02",),
        "generated": ("awesome-gpt-image-2", "awesome-gpt4o-images", "Awesome-Nano-Banana-images"),
    },
    {"generated": ("Styles-SD35L", "Artists-SD35L")},
)


def under_their_gate(config: Config, student: Student, material: Material) -> None:
    """Let readers go on learning each under its gate: the mean of the weights of several runs."""
    states = []
    for run in range(RUNS):
        torch.manual_seed(config.seed + run)
        head = copy.deepcopy(student.head)
        fit_once(config, head, head, material)
        states.append(head.state_dict())
    student.head.load_state_dict(average_states(states))


WAYS: dict[str, Callable[[Config, Student, Material], None]] = {
    "each under its gate": under_their_gate,
    "as leaf": fit_readers,
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epoch", type=Path, help="the state that the backbone went half way to, see benchmarks.leaf")
    parser.add_argument("--begin", default="weights/hub/leaf_lite0.first.safetensors", help="the first student's file")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    config = all_sources(read_config(CONFIG))
    sources = [read_source(config, source) for source in config.sources]
    judged = [sorted(targets(source.evidence).items()) for source in sources]
    names = [name for of in judged for name, _ in of]
    wanted = np.array([target.score for of in judged for _, target in of])
    degraded = degraded_from(config, [len(of) for of in judged])
    first = leafiqa.create_metric(weights=arguments.begin, device="cpu")
    student = interpolated(first.student, first.card.architecture["backbone"], arguments.epoch)
    material = gather(config, sources, student, first.student, arguments.folder)
    origins = _origins([source.name for source in config.sources], material.source, names)
    found: dict[str, Any] = {name: {"n": len(rows)} for name, rows in origins.items()}
    count, done = arguments.seeds * len(FOLDS) * len(WAYS), 0
    with progress("readers", "trainings") as bar:
        for seed in range(arguments.seeds):
            for fold in FOLDS:
                mine = {f"{source}: {', '.join(parts)}" for source, parts in fold.items()}
                left = torch.zeros(len(names), dtype=torch.bool)
                for name in mine:
                    left[origins[name]] = True
                for way, fit in WAYS.items():
                    made = copy.deepcopy(student)
                    fit(replace(config, seed=1000 * seed), made, material.part(~left, ~left[degraded]))
                    for name in mine:
                        rows = origins[name]
                        with torch.no_grad():
                            scores = made.read(material.features[rows]).sigmoid().numpy()
                        told = agreement(scores, wanted[rows])
                        found[name].setdefault(way, []).append(
                            [round(told.srcc, 4), [round(end, 4) for end in told.srcc_interval]]
                        )
                    done += 1
                    bar(done, count)
    found["mean"] = {
        way: [
            round(float(np.mean([one[way][seed][0] for one in found.values()])), 4) for seed in range(arguments.seeds)
        ]
        for way in WAYS
    }
    report(found, arguments.json)


def _origins(sources: list[str], source: Tensor, names: list[str]) -> dict[str, list[int]]:
    """Return the pictures of each origin, by what it is called."""
    known = repositories()
    found: dict[str, list[int]] = {}
    for fold in FOLDS:
        for kind, parts in fold.items():
            found[f"{kind}: {', '.join(parts)}"] = [
                place
                for place, name in enumerate(names)
                if sources[int(source[place])] == kind
                and (known.get(name) in parts if kind == "generated" else Path(name).name.lower().startswith(parts))
            ]
    return found


if __name__ == "__main__":
    main()
