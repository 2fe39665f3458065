"""Write a run's weights as a student: `python -m leafiqa.distillation.exporting CONFIG.toml epochN.pt FOLDER`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import leafiqa
from leafiqa.distillation.aspects import learn_aspects
from leafiqa.distillation.config import Config, read_config
from leafiqa.distillation.data import read_source
from leafiqa.distillation.start import architecture
from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import Evidence, cite
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import save_student
from leafiqa.model.places import resolve_text
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student

_RECORDED = (
    "initial experts area stored look crop epochs batch pairs ladders freeze weight_decay warmup ema point_weight "
    "pair_weight ladder_weight damage_weight null_weight sigma reliability_power crossfit reconcile holdout seed"
).split()
_NAME = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_.-]+")


def student_name(config: Config) -> str:
    """Return the student's name, `arch.tag`: the card's, else the backbone and the output folder.

    Raises:
        EvidenceError: the card's name is not of the form `arch.tag`.
    """
    name = str(config.card.get("name") or "")
    if not name:
        # Out of the output folder's name, whatever is in it.
        tag = re.sub(r"[^A-Za-z0-9_.-]+", "-", config.output.resolve().name).strip("-.") or "mine"
        return f"leaf_{config.backbone}.{tag}"
    if not _NAME.fullmatch(name):
        raise EvidenceError(f"the card's name must read arch.tag, of letters, digits, _ and -, got {name!r}")
    return name


def averaged_student(config: Config, state: Path) -> Student:
    """Return the student, in evaluation mode on the CPU, of an `epochN.pt` that a run saved."""
    student = Student(**architecture(config))
    student.load_state_dict(torch.load(state, map_location="cpu", weights_only=True))
    return student.requires_grad_(False).eval()


def export(
    config: Config,
    state: Path,
    folder: Path,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Card:
    """Write `NAME.safetensors` and `NAME.json` from a state dict that a run saved, after learning the aspects.

    Args:
        config: the run's config; its `[card]` table adds to the card what only a person knows.
        state: an `epochN.pt` of the run.
        folder: where to write.
        overwrite: whether a student of that name may be replaced.
        log: takes lines for the reader.
        progress: called with how many pictures the aspects have been learned from, and how many there are.

    Returns:
        The card; its `accuracy` is empty until it is measured on the file written here.

    Raises:
        EvidenceError: the evidence, which the card tells of, cannot be read any more.
        OutputError: there is a student of that name, and `overwrite` is False.
    """
    arguments = architecture(config)
    student = averaged_student(config, state)
    mean, std = arguments.pop("mean"), arguments.pop("std")
    sources = [read_source(config, source) for source in config.sources]
    of_sources = [source.evidence for source in sources]
    told = learn_aspects(config, student, sources, log, progress) if config.aspects else {}
    if student.aspects is not None:
        arguments["defects"] = student.aspects.defects
    training: dict[str, Any] = {
        "data": _data(config, of_sources),
        **config.card.get("training", {}),
        "recipe": "LEAF-style joint point-wise and pair-wise distillation, weighted by the evidence's reliability",
        **{name: getattr(config, name) for name in _RECORDED},
        **dict(zip(("lr", "head_lr"), config.rates)),
        **({"aspects": told} if told else {}),
        "epochs_done": int(state.stem.removeprefix("epoch")),
    }
    if config.begins_at_student:
        # What the student that training began at has seen, this one has seen too.
        before = resolve_text(config.initial)[1]
        begun = {"student": f"{before.name} {before.short_hash}", "teacher": before.teacher}
        training["initial_training"] = {**begun, **before.training}
        training.setdefault("label_budget", before.training.get("label_budget", "unknown"))
    if raters := {rater for evidence in of_sources for rater in evidence.raters}:
        rated = f"ratings by {len(raters)} people are among the evidence"
        training["label_budget"] = "; ".join(filter(None, [training.get("label_budget"), rated]))
    training.setdefault("label_budget", "0 human scores")
    training["initial"] = config.card.get("training", {}).get("initial", Path(config.initial).name)
    fields = {
        "description": "Student distilled from a teacher's evidence",
        "teacher": _teachers(of_sources),
        **config.card,
        "name": student_name(config),
        "training": training,
        "architecture": {name: list(v) if isinstance(v, tuple) else v for name, v in arguments.items()},
        "preprocess": Preprocess(area=config.look**2, mean=mean, std=std).to_dict(),
        "score": {
            "range": [0.0, 1.0],
            "unit": "the full width of the teacher's scale; not calibrated to human opinion scores",
        },
        "leafiqa_version": leafiqa.__version__,
    }
    return save_student(student, folder, fields, overwrite=overwrite)


def _data(config: Config, of_sources: list[Evidence]) -> str:
    """Say what was judged how often, by names of files, not by their places: a card travels."""
    told = [
        f"{source.name}: {len(evidence.points)} images with scores, {len(evidence.pairs)} comparisons, of "
        + cite(source.evidence)
        for source, evidence in zip(config.sources, of_sources)
    ]
    if config.common:
        told.append(f"on the common scale of {cite(config.common)}")
    return "; ".join(told)


def _teachers(of_sources: list[Evidence]) -> dict[str, Any]:
    """Return the teachers that the evidence names, with the number of lines of each."""
    named = sum((evidence.teachers for evidence in of_sources), Counter[str]())
    return {"judged_by": dict(named.most_common())} if named else {}


if __name__ == "__main__":
    card = export(read_config(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), log=print)
    print(card.name, card.sha256)
