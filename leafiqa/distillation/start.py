"""Where a student begins: a student of leafiqa, timm's pretrained weights, or a file of ImageNet weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leafiqa.distillation.config import Config
from leafiqa.errors import EvidenceError
from leafiqa.model.checkpoint import load_student
from leafiqa.model.head import Experts
from leafiqa.model.places import resolve_text
from leafiqa.model.student import Student

_HIDDEN = 128


@dataclass(frozen=True)
class Start:
    """A student to train.

    Attributes:
        student: the student.
        trained_head: whether its head was trained before; a new one is fitted to frozen features first.
    """

    student: Student
    trained_head: bool


def gate_is_new(config: Config) -> bool:
    """Tell whether the head gets a gate that the student which training begins at does not have."""
    if config.experts < 2:
        return False
    return (
        not config.begins_at_student or resolve_text(config.initial)[1].architecture.get("experts", 1) != config.experts
    )


def architecture(config: Config) -> dict[str, Any]:
    """Return the arguments of `Student` that the config means, `mean` and `std` of its pixels among them.

    Raises:
        EvidenceError: the config begins at a student of another backbone, or of several.
        WeightsError: there is no such student.
    """
    if config.begins_at_student:
        _, card = resolve_text(config.initial)
        if not isinstance(card.architecture["backbone"], str):
            raise EvidenceError(
                f"initial {config.initial!r} has several backbones, {', '.join(card.architecture['backbone'])}, and a "
                "run trains one: begin at 'leaf', at 'timm' or at a file of ImageNet weights"
            )
        if card.architecture["backbone"] != config.backbone:
            raise EvidenceError(
                f"initial {config.initial!r} is a {card.architecture['backbone']}, the config's backbone "
                f"{config.backbone!r}: make them the same, or begin at 'timm' or a file of ImageNet weights"
            )
        has = card.architecture.get("experts", 1)
        if has > 1 and config.experts not in (0, 1, has):
            raise EvidenceError(
                f"experts must be 0 or {has}, as of initial {config.initial!r}, or 1 for a new single reader, got "
                f"{config.experts}"
            )
        # Aspects are learned anew, once the student is finished.
        known = {name: value for name, value in card.architecture.items() if name != "defects"}
        arguments = {**known, "mean": card.preprocess["mean"], "std": card.preprocess["std"]}
        if config.experts:
            arguments["experts"] = config.experts
        return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    import timm

    try:
        plain = timm.create_model(config.backbone, features_only=True)
    except Exception as error:  # timm and the networks themselves raise whatever they like
        raise EvidenceError(
            f"backbone {config.backbone!r} is no timm network that gives feature maps: {str(error).splitlines()[0]}; "
            "timm.list_models(pretrained=True) lists the names"
        ) from error
    # The four deepest stages: of networks with four these are all, of those with five the first is left out.
    count = len(plain.feature_info.channels())  # type: ignore[union-attr, operator]
    normalised: dict[str, Any] = getattr(plain, "pretrained_cfg", None) or {}
    return {
        "backbone": config.backbone,
        "stages": tuple(range(max(0, count - 4), count)),
        "hidden": _HIDDEN,
        **({"experts": config.experts} if config.experts > 1 else {}),
        "mean": tuple(normalised.get("mean", (0.5, 0.5, 0.5))),
        "std": tuple(normalised.get("std", (0.5, 0.5, 0.5))),
    }


def begin(config: Config, weights: bool = True) -> Start:
    """Build the student and fill it with the weights that the run begins at.

    Args:
        config: the run.
        weights: False leaves the weights random, for a checkpoint to fill.

    Raises:
        EvidenceError: the weights do not fit the backbone.
        WeightsError: they cannot be found or read.
    """
    arguments = architecture(config)
    if config.begins_at_student and weights:
        file, card = resolve_text(config.initial)
        known = load_student(file, card)
        known.aspects = None
        if config.experts == 1 and isinstance(known.head, Experts):
            student = Student(**arguments)
            student.backbone.load_state_dict(known.backbone.state_dict())
            return Start(student, trained_head=False)
        if not gate_is_new(config):
            return Start(known, trained_head=True)
        student = Student(**arguments)
        kept = {name: value for name, value in known.state_dict().items() if not name.startswith("head.")}
        student.load_state_dict(kept, strict=False)
        if isinstance(student.head, Experts) and isinstance(known.head, torch.nn.Sequential):
            student.head.begin_at(known.head)
        return Start(student, trained_head=True)
    student = Student(**arguments)
    if weights and config.initial == "timm":
        _from_timm(student, config.backbone)
    elif weights:
        load_imagenet(student, Path(config.initial))
    return Start(student, trained_head=config.begins_at_student)


def _from_timm(student: Student, backbone: str) -> None:
    """Let timm fetch its pretrained weights (through huggingface-hub's cache) and copy them."""
    import timm

    try:
        source = timm.create_model(backbone, pretrained=True, features_only=True)
    except Exception as error:  # timm passes on whatever its download raises
        raise EvidenceError(
            f"timm cannot get pretrained weights of {backbone}: {str(error).splitlines()[0]}. Without a network "
            "begin at a student of leafiqa (initial = 'leaf') or at a file of weights"
        ) from error
    wanted = student.backbone.state_dict()
    student.backbone.load_state_dict({k: v for k, v in source.state_dict().items() if k in wanted})


def load_imagenet(student: Student, path: Path) -> None:
    """Copy ImageNet weights into the backbone, tensor by tensor in order (both state dicts have one order)."""
    try:
        source = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a missing file, no state dict, or a pickle that would run code
        raise EvidenceError(f"initial: cannot read {path} as a state dict: {str(error).splitlines()[0]}") from error
    pairs = [(k, v) for k, v in source.items() if not k.endswith("num_batches_tracked")]
    target = {k: v for k, v in student.backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    if len(pairs) < len(target):
        raise EvidenceError(f"initial: {path} holds {len(pairs)} tensors, the backbone has {len(target)}")
    for (name, value), (source_name, source_value) in zip(target.items(), pairs):
        if value.shape != source_value.shape:
            found, wanted = tuple(source_value.shape), tuple(value.shape)
            raise EvidenceError(f"initial: in {path}, {source_name} {found} does not fit {name} {wanted}")
        value.copy_(source_value)
