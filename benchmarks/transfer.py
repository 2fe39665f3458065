"""What travels: train without some sources and measure on them: `python -m benchmarks.transfer [ARM...] [--seeds N]`.

What holds on the pictures that a student learned from need not hold on others, so every choice is to be measured on
pictures of an origin that training did not see: two of AGIQA-3K's generators, two of the three parts of the
photographs, and one repository of newer generators. Agreement is SRCC with the teacher's scores, on `val` pictures of
the origins that were learned from, and on pictures of those that were left out, side by side, with bootstrap intervals.

The pictures are small and the runs short, so that an arm takes minutes: ratios between arms count, not the figures.
Results are added to `benchmarks/results/transfer.json`; an arm that is there with its seed is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import DATA, need_data
from benchmarks.leaf import gather, interpolated
from benchmarks.readers import fit_readers
from leafiqa.cli.progress import progress
from leafiqa.distillation.config import Config, Source, read_config
from leafiqa.distillation.data import read_source, read_splits
from leafiqa.distillation.eyes import Eyes
from leafiqa.distillation.training_loop import train
from leafiqa.evaluation.measures import agreement
from leafiqa.evidence.linking import read_on_common_scale
from leafiqa.evidence.reliability import targets
from leafiqa.images.decoding import decode
from leafiqa.images.loading import load_ahead
from leafiqa.model.checkpoint import save_student
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student
from leafiqa.training.processes import connect

CONFIG = Path(__file__).with_name("distill_leaf_wide.toml")
RESULT = Path(__file__).with_name("results") / "transfer.json"
# Small pictures and two passes: an arm takes minutes on two cores. Begun at a backbone that saw none of the pictures.
QUICK: dict[str, Any] = {
    "initial": "../runs/efficientnet-lite0.pth",
    "lr": 1.5e-4,
    "area": 192,
    "crop": 160,
    "stored": 256,
    "look": 192,
    "epochs": 2,
    "aspects": 0,
    "pristine": None,
}
TWO = ("agiqa3k", "biq2021")
ARMS: dict[str, dict[str, Any]] = {
    "two sources": {"sources": TWO, "ladders": 1, "damage_weight": 0.0},
    "two sources, 27 degradations": {"sources": TWO},
    "four sources": {},
    "half of the way": {"half": True},
    "four sources, no damage": {"damage_weight": 0.0},
    "four sources, no ladders": {"ladders": 0},
}
MOST = 400


def repositories() -> dict[str, str]:
    """Return the repository that each of the further pictures comes from, without its owner."""
    with (DATA / "more.csv").open(newline="", encoding="utf-8") as file:
        return {row["image"]: row["repository"].rpartition("/")[2] for row in csv.DictReader(file)}


def left_out() -> dict[str, tuple[str, Callable[[str], bool]]]:
    """Return, by what it is called, the source of an origin that is left out and which pictures are of it."""
    known = repositories()

    def part(name: str) -> bool:
        return Path(name).name.lower().startswith(("ss01", "ss02"))

    return {
        "glide": ("agiqa3k", lambda name: Path(name).name.lower().startswith("glide")),
        "Midjourney": ("agiqa3k", lambda name: Path(name).name.lower().startswith("midjourney")),
        "BIQ2021 ss01, ss02": ("biq2021", part),
        "photographs ss01, ss02": ("photos", part),
        "AI Horde": ("generated", lambda name: known.get(name, "") == "AI-Horde-Styles"),
    }


def without(source: Source, folder: Path) -> Source:
    """Return a source whose table puts what is left out into a split of its own."""
    mine = [is_of for name, is_of in left_out().values() if name == source.name]
    table = folder / f"{source.name}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "split"])
        for name, split in read_splits(source).items():
            writer.writerow([name, "left out" if any(is_of(name) for is_of in mine) else split])
    return replace(source, table=table, table_prefix="")


def look_at(eyes: Eyes, source: Source, names: list[str]) -> np.ndarray:
    """Return the student's logits of pictures."""
    pictures = load_ahead(lambda name: eyes.resize(decode(source.images / name).pixels), names)
    return np.array([float(eyes.see(picture)[2]) for picture in pictures])


def trained(config: Config) -> Student:
    """Return the student of a run."""
    with progress("training", "steps") as bar:
        return train(config, connect("cpu"), lambda line: None, bar)


def half_way(config: Config) -> Student:
    """Return a student made as `leaf` was: see `benchmarks.leaf`.

    It begins at two sources, an epoch on all of them follows, and the readers go on learning on features half way.
    """
    two = tuple(source for source in config.sources if source.name in TWO)
    first = trained(
        replace(config, **ARMS["two sources"] | {"sources": two}, experts=2, output=config.output / "first")
    )
    fields = {
        "name": "first.two",
        "architecture": {"backbone": config.backbone, "stages": [1, 2, 3, 4], "hidden": 128, "experts": 2},
        "preprocess": Preprocess(area=config.look**2).to_dict(),
        "score": {"range": [0, 1], "unit": "the teacher's"},
    }
    save_student(first, config.output, fields, half=False)
    begin, epoch = config.output / "first.two.safetensors", config.output / "epoch.pt"
    wide = {"initial": str(begin), "experts": 1, "epochs": 1, "lr": 1e-4, "head_lr": 1e-3}
    torch.save(trained(replace(config, **wide, output=config.output / "wide")).state_dict(), epoch)
    student = interpolated(first, config.backbone, epoch)
    sources = [read_source(config, source) for source in config.sources]
    fit_readers(config, student, gather(config, sources, student, first))
    return student


def measure(arm: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train an arm without what is left out, and measure it on `val` and on what is left out."""
    whole = read_config(CONFIG)
    half = arm.get("half", False)
    changes = {**QUICK, **{name: value for name, value in arm.items() if name not in ("sources", "half")}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        every = {source.name: without(source, folder) for source in whole.sources}
        used = tuple(every[name] for name in arm.get("sources", every))
        config = replace(whole, **changes, sources=used, seed=seed, output=folder / "run")
        student = half_way(config) if half else trained(config)
        eyes = Eyes(student, config.look)
        found: dict[str, Any] = {"val": {}, "left out": {}}
        rng = np.random.default_rng(0)
        for source in every.values():
            scores = {n: t.score for n, t in targets(read_on_common_scale(source.evidence, whole.common)).items()}
            splits = read_splits(source)
            groups = {("val", source.name): [name for name, split in splits.items() if split == "val"]}
            for title, (owner, is_of) in left_out().items():
                if owner == source.name:
                    groups["left out", title] = [name for name in splits if is_of(name)]
            for (kind, title), names in groups.items():
                names = sorted(set(names) & set(scores))
                names = [names[i] for i in rng.permutation(len(names))[:MOST]]
                of = agreement(look_at(eyes, source, names), np.array([scores[name] for name in names]))
                ends = [round(end, 3) for end in of.srcc_interval]
                found[kind][title] = {"n": of.n, "srcc": round(of.srcc, 3), "interval": ends}
    return found


def main() -> None:
    """Run the arms that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    need_data()
    if unknown := set(arguments.arms) - set(ARMS):
        raise SystemExit(f"no such arms: {sorted(unknown)}; there are {list(ARMS)}")
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for seed in range(arguments.seeds):
        for name in arguments.arms or ARMS:
            if str(seed) in results.get(name, {}):
                continue
            results.setdefault(name, {})[str(seed)] = measure(ARMS[name], seed)
            RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            told = {title: of["srcc"] for kind in results[name][str(seed)].values() for title, of in kind.items()}
            print(f"{name}, seed {seed}: {told}", flush=True)


if __name__ == "__main__":
    main()
