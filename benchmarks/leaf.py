"""How `leaf` was made: `python -m benchmarks.leaf FOLDER --epoch EPOCH.pt`.

The first `leaf` saw two sources. Training on four moved its backbone towards the new ones, and away from what it knew:
so half of the way is gone (WiSE-FT, Wortsman et al., CVPR 2022). The backbone is the mean of its own and that of
`EPOCH.pt`, the state after the first epoch of `leafiqa distill benchmarks/distill_leaf_wide.toml`. On its features,
computed once, its readers go on learning beside three further ones, for newer generators and for generated pictures and
photographs of many origins (`benchmarks.readers`, `benchmarks.varied_pictures`): from the teacher's scores on one
scale, from the first `leaf`'s own scores where it had learned already, and from degraded pictures. The second `leaf`,
`--beside weights/hub/leaf_lite0.second.safetensors`, has the same backbone and readers that learned from the sources
without those many origins: what it says counts in the mean that the readers imitate.

The larger student is made by `benchmarks.larger` and `benchmarks.two_backbones`.

Run from the repository root, with the data beside it and the further pictures extracted to `../runs/more`, those of
`benchmarks.varied_pictures` too.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import leafiqa
from benchmarks.common import need_data
from benchmarks.errors_elsewhere import errors_elsewhere, origins_of
from benchmarks.readers import DROPOUT, READER, RUNS, Material, fit_readers
from benchmarks.varied_pictures import varied_sources
from leafiqa.cli.progress import progress
from leafiqa.distillation.aspects import HeldOut, learn_aspects
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
FIRST = "d5377f79d8f0"
# How much the first `leaf`'s own score counts as a target.
KEPT = {"agiqa3k": 0.8, "biq2021": 0.8, "photos": 0.0, "generated": 0.0, "gallery": 0.0, "snaps": 0.0}
# How often a picture of each source is degraded, to two severities: twice as often of that with the weakest generators
# and of that with the most photographs. And how many pictures of nothing there are with each.
DAMAGED = {"agiqa3k": 1250, "biq2021": 625, "photos": 1250, "generated": 625, "gallery": 625, "snaps": 625}
NULLS = 40
# Which of the first student's readers each reader begins at, and what the gate thinks of those that are new.
BEGINS_AT, NEW = (0, 1, 0, 0, 1), -1.0


def all_sources(config: Config) -> Config:
    """Return the run with the pictures of many origins beside its sources, from which readers learn, no backbone."""
    return dataclasses.replace(config, sources=(*config.sources, *varied_sources()))


def interpolated(first: Student, backbone: str, state: Path | None) -> Student:
    """Return the first student with further readers, its backbone half way to that of a run's state if there is one."""
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
        for number, begins_at in enumerate(BEGINS_AT):
            student.head.experts[number].load_state_dict(first.head.experts[begins_at].state_dict())
            student.head.gate.weight[number] = first.head.gate.weight[begins_at]
            is_new = number >= len(first.head.experts)
            student.head.gate.bias[number] = first.head.gate.bias[begins_at] + (NEW if is_new else 0.0)
    return student.requires_grad_(False).eval()


def same_backbone(student: Student, other: Student) -> bool:
    """Return whether two students have the same features, but for rounding."""
    state = student.state_dict()
    return all(
        name in state and torch.allclose(value, state[name], atol=1e-4)
        for name, value in other.state_dict().items()
        if name.startswith(("backbone.", "feature_"))
    )


def gather(
    config: Config, sources: list[SourceEvidence], student: Student, first: Student, kept: Path | None = None
) -> Material:
    """Compute all features, of the pictures with evidence, of degraded ones and of nothing.

    Args:
        config: the run.
        sources: the evidence of each of its sources.
        student: whose features they are.
        first: the student whose scores count, too.
        kept: a folder where each source's are kept, and taken from if they are there.
    """
    found = []
    for number, source in enumerate(config.sources):
        file = kept / f"features-{source.name}.pt" if kept is not None else None
        if file is not None and file.exists():
            found.append(Material(**torch.load(file, weights_only=True)))
            continue
        found.append(of_source(config, number, sources[number], student, first))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(vars(found[-1]), file)
    return joined(found)


def of_source(config: Config, number: int, source: SourceEvidence, student: Student, first: Student) -> Material:
    """Compute the features of the pictures of one source, as `gather` does."""
    eyes, before = Eyes(student, config.look), Eyes(first, config.look)

    def features(pixels: np.ndarray) -> Tensor:
        return eyes.see(eyes.resize(pixels))[1][0]

    rng = np.random.default_rng([config.seed, number])
    judged = sorted(targets(source.evidence).items())
    folder, share = config.sources[number].images, KEPT[config.sources[number].name]
    spoilt = spread(len(judged), DAMAGED[config.sources[number].name], rng)
    rows, firsts, damaged, damaged_targets = [], [], [], []
    pixels = load_ahead(lambda name: decode(folder / name).pixels, [name for name, _ in judged])
    with progress(f"features of {config.sources[number].name}", "pictures") as bar:
        for count, ((_, target), times, picture) in enumerate(zip(judged, spoilt, pixels), 1):
            rows.append(features(picture))
            if share > 0:
                firsts.append(float(before.see(before.resize(picture))[2].sigmoid()))
            for _ in range(times):
                kind = list(DEGRADATIONS)[int(rng.integers(len(DEGRADATIONS)))]
                seed = int(rng.integers(2**31))
                for level in sorted(rng.choice(5, 2, replace=False) + 1):
                    damaged.append(features(degrade(picture, kind, float(level), seed)))
                    damaged_targets.append(target.score * (1 - DEGRADATIONS[kind].cost * float(level)))
            bar(count, len(judged))
    wanted = torch.tensor([target.score for _, target in judged])
    if share > 0:
        own = torch.tensor(firsts)
        slope, offset = np.polyfit(own.numpy(), wanted.numpy(), 1)
        wanted = (1 - share) * wanted + share * (float(slope) * own + float(offset))
    return Material(
        torch.stack(rows),
        wanted,
        torch.tensor([target.reliability for _, target in judged]),
        torch.full((len(judged),), number),
        torch.stack(damaged),
        torch.tensor(damaged_targets),
        torch.stack([features(null_image(512, rng)) for _ in range(NULLS)]),
    )


def joined(parts: list[Material]) -> Material:
    """Return the material of several sources as one."""
    return Material(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def spread(pictures: int, times: int, rng: np.random.Generator) -> list[int]:
    """Return how often each picture of a source is degraded, drawn with replacement."""
    counts: list[int] = np.bincount(rng.choice(pictures, times), minlength=pictures).tolist()
    return counts


def degraded_from(config: Config, pictures: list[int]) -> Tensor:
    """Return of which picture each damaged one of the material was made, given how many pictures each source has."""
    counts: list[int] = []
    for number, (source, of) in enumerate(zip(config.sources, pictures)):
        counts += spread(of, DAMAGED[source.name], np.random.default_rng([config.seed, number]))
    return torch.repeat_interleave(torch.arange(len(counts)), 2 * torch.tensor(counts))


def held_out_elsewhere(
    config: Config, sources: list[SourceEvidence], student: Student, material: Material, beside: nn.Module | None
) -> list[HeldOut]:
    """Return what readers make of pictures of repositories that they did not learn from, see `errors_elsewhere`."""
    degraded = degraded_from(config, [len(targets(source.evidence)) for source in sources])
    return errors_elsewhere(config, student, material, origins_of(sources), degraded, beside)


def card_fields(config: Config, before: Card, student: Student, told: dict[str, Any]) -> dict[str, Any]:
    """Return the card but for its hash.

    Args:
        config: the run.
        before: the card of the student that it began at.
        student: what was made.
        told: what `learn_aspects` tells.
    """
    head = student.head
    return {
        **config.card,
        "architecture": {
            "backbone": before.architecture["backbone"],
            "stages": [1, 2, 3, 4],
            "hidden": 128,
            "experts": len(head.experts) if isinstance(head, Experts) else 1,
            "defects": list(student.aspects.defects) if student.aspects is not None else [],
        },
        "preprocess": before.preprocess,
        "score": {key: value for key, value in before.score.items() if key != "percentiles"},
        "training": {
            **config.card["training"],
            "recipe": "LEAF-style joint point-wise and pair-wise distillation, weighted by the evidence's reliability",
            "made_by": "python -m benchmarks.leaf",
            "look": config.look,
            "runs_of_readers": RUNS,
            "seed": config.seed,
            "aspects": told,
            "initial_training": {"student": f"{before.name} {before.short_hash}", **before.training},
        },
        "leafiqa_version": leafiqa.__version__,
    }


def with_aspects(
    config: Config, student: Student, sources: list[SourceEvidence], elsewhere: Sequence[HeldOut]
) -> dict[str, Any]:
    """Let a finished student learn what it tells beside a score; return what its card is to say of that."""
    with progress("aspects", "pictures") as bar:
        told = learn_aspects(config, student, sources, print, bar, elsewhere)
    if told:
        told["errors_elsewhere"] = f"{len(elsewhere)} of them of repositories that the readers had not learned from"
    return told


def main() -> None:
    """Make the student and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--epoch", type=Path, required=True, help="a state of the run that the backbone goes half way to"
    )
    parser.add_argument("--begin", default="weights/hub/leaf_lite0.first.safetensors", help="the first student's file")
    parser.add_argument("--beside", help="a student with the same backbone, whose scores count in what readers imitate")
    arguments = parser.parse_args()
    need_data()
    config = all_sources(read_config(CONFIG))
    metric = leafiqa.create_metric(weights=arguments.begin, device="cpu")
    if metric.card.short_hash != FIRST:
        raise SystemExit(f"--begin must be {FIRST}; got {metric.card.short_hash}")
    sources = [read_source(config, source) for source in config.sources]
    torch.manual_seed(config.seed)
    student = interpolated(metric.student, metric.card.architecture["backbone"], arguments.epoch)
    beside = leafiqa.create_metric(weights=arguments.beside, device="cpu") if arguments.beside else None
    if beside is not None and not same_backbone(student, beside.student):
        raise SystemExit(f"--beside must have the backbone that is made here; that of {arguments.beside} differs")
    material = gather(config, sources, student, metric.student, arguments.folder)
    head = beside.student.head if beside is not None else None
    elsewhere = held_out_elsewhere(config, sources, student, material, head)
    fit_readers(config, student, material, head)
    told = with_aspects(config, student, sources, elsewhere)
    fields = card_fields(config, metric.card, student, told)
    if beside is not None:
        fields["training"]["readers_beside"] = f"{beside.card.name} {beside.card.short_hash}"
    card = save_student(student, arguments.folder, fields, overwrite=True)
    print(card.name, card.sha256)


if __name__ == "__main__":
    main()
