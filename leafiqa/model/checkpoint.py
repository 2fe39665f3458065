"""A student on disk: `NAME.safetensors` and `NAME.json` side by side. Nothing here ever unpickles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.errors import OutputError, WeightsError
from leafiqa.files import write_whole
from leafiqa.model.card import Card, parse_card

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from leafiqa.model.student import Student

_PICKLED = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
CHECKPOINT_ENDINGS = _PICKLED | {".safetensors", ".json"}


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
    return unpack_student(read_weights(weights, card), card, str(weights), weights.parent)


def read_weights(weights: Path, card: Card) -> bytes:
    """Return a weights file's bytes, after checking that they are those that the card describes.

    Raises:
        WeightsError: they are not, or cannot be read.
    """
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
    return content


def unpack_student(content: bytes, card: Card, where: str, folder: Path | None = None) -> Student:
    """Build the student that a card describes out of the bytes of its weights file.

    Args:
        content: the file's content.
        card: the card.
        where: what to call the content in errors.
        folder: where to look first for the student that it holds the difference from, if it does.

    Raises:
        WeightsError: the content does not fit the architecture, or holds NaN or infinity; or its base is not there.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from leafiqa.model.differences import whole
    from leafiqa.model.preprocess import Preprocess
    from leafiqa.model.student import Student

    preprocess = Preprocess.from_dict(card.preprocess)
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in card.architecture.items()
    }
    try:
        # What numpy lacks, bfloat16, is made float here.
        stored = {name: (of.float() if of.is_floating_point() else of).numpy() for name, of in load(content).items()}
        tensors = {name: torch.from_numpy(value) for name, value in whole(stored, card, folder).items()}
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise WeightsError(f"{where} holds NaN or infinity in {name}: its training has failed")
        # Building a network draws random weights, which are then overwritten: leave the caller's random state alone.
        with torch.random.fork_rng(devices=[]):
            student = Student(
                **arguments,
                mean=preprocess.mean,
                std=preprocess.std,
            ).float()
        if card.base:  # which may have parts that this student has not; what is stored itself must fit
            own = {*student.state_dict(), *stored}
            tensors = {name: tensor for name, tensor in tensors.items() if name in own}
        student.load_state_dict(tensors)
    except WeightsError:
        raise
    except (SafetensorError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise WeightsError(f"{where} does not fit the architecture on its card: {error}") from error
    return student.eval()


def pack_student(
    student: Student, card_fields: dict[str, Any], *, half: bool = True, base: Card | None = None
) -> tuple[bytes, Card]:
    """Return a student as the bytes of its weights file, and its card.

    Args:
        student: the student.
        card_fields: the fields of `Card` except `sha256`.
        half: store the weights in fp16, except those that it cannot hold. Half the size, and scores move by about
            1e-4; measure on what is stored.
        base: the card of a bundled student; only what differs from it is stored then, see `differences`.

    Raises:
        WeightsError: a weight is not finite: the training failed; or the base is not bundled.
    """
    from safetensors.numpy import save

    from leafiqa.model.differences import as_base, base_arrays, difference, halved

    arrays = {name: _array(name, tensor) for name, tensor in student.state_dict().items()}
    of_base: dict[str, Any] = {}
    if base is not None:
        of_base = as_base(base, card_fields["architecture"])
        arrays = difference(arrays, base_arrays(of_base, None))
    elif half:
        arrays = {name: halved(value) for name, value in arrays.items()}
    content = save(arrays, metadata={"format": "pt"})
    fields = {name: value for name, value in card_fields.items() if name != "base"}
    card = Card(**fields, base=of_base, sha256=hashlib.sha256(content).hexdigest())
    return content, parse_card(card.to_json(), f"the card of {card.name}")


def save_student(
    student: Student, folder: Path, card_fields: dict[str, Any], *, half: bool = True, overwrite: bool = False
) -> Card:
    """Write a student and its card; see `pack_student` and `write_student`.

    Returns:
        The card that was written.

    Raises:
        WeightsError: a weight is not finite: the training failed.
        OutputError: there is a student of that name, and `overwrite` is False.
    """
    content, card = pack_student(student, card_fields, half=half)
    write_student(content, card, folder, overwrite=overwrite)
    return card


def write_student(content: bytes, card: Card, folder: Path, *, overwrite: bool = False) -> Path:
    """Write a packed student and its card, each whole or not at all.

    Over a student of the same name, a kill in the instant between the two leaves the new weights beside the old card,
    which loading refuses by their hash; saving again mends that.

    Args:
        content: the weights file's bytes.
        card: the card; the files are called after its `name`.
        folder: where to; made if it is not there.
        overwrite: whether a student of that name may be replaced.

    Returns:
        The `.safetensors` file.

    Raises:
        OutputError: there is a student of that name, and `overwrite` is False.
    """
    check_free(folder, card.name, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{card.name}.safetensors"
    write_whole(file, content)
    write_whole(folder / f"{card.name}.json", card.to_json())
    return file


def check_free(folder: Path, name: str, overwrite: bool) -> None:
    """Refuse to replace a student, before work begins.

    Raises:
        OutputError: `folder` is a file or in one, or holds a student `name`, and `overwrite` is False.
    """
    if (blocking := next((place for place in (folder, *folder.parents) if place.is_file()), None)) is not None:
        raise OutputError(f"cannot write into {folder}: {blocking} is a file; choose another folder")
    there = [file for file in (folder / f"{name}.safetensors", folder / f"{name}.json") if file.exists()]
    if there and not overwrite:
        raise OutputError(
            f"{there[0]} exists already: choose another name or folder, or allow replacing it with overwrite=True "
            "(--overwrite on the command line)"
        )


def _array(name: str, tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array, float32 where it holds floating point numbers.

    Raises:
        WeightsError: it holds NaN or infinity.
    """
    if not tensor.is_floating_point():
        return tensor.cpu().contiguous().numpy()
    if not bool(tensor.isfinite().all()):
        raise WeightsError(f"this student is not saved: its {name} holds NaN or infinity, so its training has failed")
    return tensor.float().cpu().contiguous().numpy()
