"""A student on disk: `NAME.safetensors` and `NAME.json` side by side. Nothing here ever unpickles."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.errors import WeightsError
from leafiqa.model.card import Card, read_card

if TYPE_CHECKING:
    from leafiqa.model.student import Student

_PICKLED = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
CHECKPOINT_ENDINGS = _PICKLED | {".safetensors", ".json"}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def find_pair(path: Path) -> tuple[Path, Path]:
    """Return `(weights, card)` for a weights file, a card file or a folder that holds one such pair.

    Raises:
        WeightsError: there is no such pair, there are several, or the file is a pickle.
    """
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            names = [file.name for file in found]
            raise WeightsError(
                f"weights folder {path} must hold exactly one .safetensors file, found {names or 'none'}"
                + ("; pass one of them" if found else "")
            )
        path = found[0]
    if path.suffix.lower() in _PICKLED:
        raise WeightsError(
            f"{path} is a pickle, which can run any code when loaded, so leafiqa does not load it. Convert it where "
            "you trust it: safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'NAME.safetensors')"
        )
    if path.suffix not in {".safetensors", ".json"}:
        raise WeightsError(f"weights must be a .safetensors file with its .json card beside it, got {path}")
    weights, card = path.with_suffix(".safetensors"), path.with_suffix(".json")
    for file in (weights, card):
        if not file.is_file():
            raise WeightsError(f"{file} does not exist; a student is {weights.name} and {card.name} side by side")
    return weights, card


def load_student(weights: Path, card: Card) -> Student:
    """Build the student that a card describes and fill it from the weights file, after checking its hash.

    Raises:
        WeightsError: the file is not the one the card describes, or does not fit the architecture.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from leafiqa.model.preprocess import Preprocess
    from leafiqa.model.student import Student

    try:
        content = weights.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {weights}: {error.strerror}") from error
    # Hash and parse the same bytes: a file swapped between two reads would slip through.
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise WeightsError(
            f"{weights} is damaged or was changed: its sha256 is\n  {found}\nbut its card says\n  {card.sha256}\n"
            "Delete it and fetch it again."
        )
    preprocess = Preprocess.from_dict(card.preprocess)
    try:
        tensors = {name: tensor.float() for name, tensor in load(content).items()}
        # Building a network draws random weights, which are then overwritten: leave the caller's random state alone.
        with torch.random.fork_rng(devices=[]):
            student = Student(
                **{**card.architecture, "stages": tuple(card.architecture["stages"])},
                mean=preprocess.mean,
                std=preprocess.std,
            ).float()
        student.load_state_dict(tensors)
    except WeightsError:
        raise
    except (SafetensorError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise WeightsError(f"{weights} does not fit the architecture on its card: {error}") from error
    return student.eval()


def save_student(student: Student, folder: Path, card_fields: dict[str, Any], half: bool = True) -> Card:
    """Write a student and its card, each whole or not at all.

    Over a student of the same name, a kill in the instant between the two leaves the new weights beside the old card,
    which loading refuses by their hash; saving again mends that.

    Args:
        student: the student to save.
        folder: where to; the files are called after the card's `name`.
        card_fields: the fields of `Card` except `sha256`.
        half: store the weights in fp16. Half the size, and scores move by about 1e-4; measure on what is stored.

    Returns:
        The card that was written.
    """
    import torch
    from safetensors.torch import save

    tensors = {
        name: tensor.to(torch.float16 if half and tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in student.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    tensors.update({k: v for k, v in student.state_dict().items() if k.endswith("num_batches_tracked")})
    content = save(tensors, metadata={"format": "pt"})
    card = Card(**card_fields, sha256=hashlib.sha256(content).hexdigest())
    json.loads(card.to_json())
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, data in ((".safetensors", content), (".json", card.to_json().encode())):
        target = folder / (card.name + suffix)
        temporary = target.with_name(f"{target.name}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        written.append((temporary, target))
    for temporary, target in written:
        temporary.replace(target)
    return read_card(folder / (card.name + ".json"))
