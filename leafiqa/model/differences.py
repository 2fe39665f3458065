"""A student stored as what differs from another one, its base: a calibration is small then.

Of a tensor that is the base's, nothing is stored. Of a large one that was moved, a whole number of steps for each
weight, eight bits; a step is a fraction of how far the weights moved, so most of these numbers are near zero, and any
archive packs them to about half a byte. What is small, or new, is stored as it is. Nothing here needs torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.errors import WeightsError
from leafiqa.model.card import Card, read_card
from leafiqa.model.registry import weights_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_MOVED, _STEP = "moved:", "step:"
_BACKBONE = "backbone."
# A step, as a share of the root mean square of how far a tensor's weights moved: rounding adds .07 of that.
_STEP_SHARE = 0.25
_MOST_STEPS = 127
# Tensors with fewer numbers are stored as they are.
_SMALL = 4096


def difference(arrays: Arrays, base: Arrays) -> Arrays:
    """Return what is to be stored of a student beside its base.

    Args:
        arrays: the student's state, float32.
        base: the base's, as it is read from its file.
    """
    stored: Arrays = {}
    for name, value in arrays.items():
        known = base.get(name)
        if known is not None and np.array_equal(value, known):
            continue
        if known is None or known.shape != value.shape or value.size < _SMALL:
            stored[name] = halved(value)
            continue
        moved = value.astype(np.float32) - known.astype(np.float32)
        far = float(np.sqrt(np.square(moved).mean()))
        if far > float(np.sqrt(np.square(value.astype(np.float32)).mean())):
            stored[name] = halved(value)  # another tensor by the same name: nearer to nothing than to the base's
            continue
        step = max(_STEP_SHARE * far, float(np.abs(moved).max()) / _MOST_STEPS)
        stored[_MOVED + name] = np.rint(moved / np.float32(step)).clip(-_MOST_STEPS, _MOST_STEPS).astype(np.int8)
        stored[_STEP + name] = np.array([step], np.float32)
    return stored


def halved(value: NDArray[Any]) -> NDArray[Any]:
    """Return an array of floating point numbers in half precision, where that can hold it.

    Running variances may exceed what it holds, 65504.
    """
    if value.dtype.kind != "f":
        return value
    with np.errstate(over="ignore"):
        halved = value.astype(np.float16)
    return halved if np.isfinite(halved).all() else value


def whole(stored: Arrays, card: Card, folder: Path | None) -> Arrays:
    """Return a student's state, float32: what is stored, put onto its base where it has one.

    Args:
        stored: the arrays of its file.
        card: its card.
        folder: where its file lies; the base is looked for there, then among the bundled students.

    Raises:
        WeightsError: the base is not to be had, or does not go with what is stored.
    """
    state: Arrays = {}
    for weights, base in reversed(bases(card, folder)):
        state = _put_onto(state, _stored_in(weights, base), base)
    return _put_onto(state, stored, card)


def _put_onto(state: Arrays, stored: Arrays, card: Card) -> Arrays:
    """Return the state of a student, given that of its base, empty where it has none, and what is stored of its own."""
    state = _placed(state, card.base)
    for name, value in stored.items():
        if name.startswith(_STEP):
            continue
        if not name.startswith(_MOVED):
            state[name] = value.astype(np.float32)
            continue
        own = name[len(_MOVED) :]
        step = stored.get(_STEP + own)
        if step is None or step.shape != (1,) or own not in state or state[own].shape != value.shape:
            raise WeightsError(f"{card.name}: {own} does not go with the student that it is stored beside")
        state[own] = state[own] + value.astype(np.float32) * step.astype(np.float32)
    return state


def _placed(state: Arrays, base: dict[str, Any]) -> Arrays:
    """Return a base's state, its backbone called as it is in the student that differs from it."""
    if (place := base.get("backbone")) is None:
        return dict(state)
    return {
        f"{_BACKBONE}{place}.{name.removeprefix(_BACKBONE)}" if name.startswith(_BACKBONE) else name: value
        for name, value in state.items()
    }


def _stored_in(weights: Path, card: Card) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from leafiqa.model.checkpoint import read_weights

    try:
        return dict(load(read_weights(weights, card)))
    except (SafetensorError, TypeError, KeyError) as error:
        raise WeightsError(f"{weights} cannot be read: {error}") from error


def as_base(card: Card, architecture: dict[str, Any]) -> dict[str, Any]:
    """Return what stands on the card of a student that is stored as what differs from this one.

    Args:
        card: this one's card.
        architecture: the student's.

    Raises:
        WeightsError: this one is not bundled, or none of the student's several backbones.
    """
    base: dict[str, Any] = {"name": card.name, "sha256": card.sha256}
    find_base(base, None)
    several, own = architecture["backbone"], card.architecture["backbone"]
    if isinstance(several, str) or list(several) == own:
        return base
    if own not in several:
        raise WeightsError(f"{card.name} is a {own}, which is none of the student's backbones, {list(several)}")
    return {**base, "backbone": list(several).index(own)}


def base_arrays(base: dict[str, Any], folder: Path | None) -> Arrays:
    """Return the state of a base, float32, its backbone called as it is in the student that differs from it.

    Raises:
        WeightsError: it is not to be had.
    """
    weights, card = find_base(base, folder)
    return _placed(whole(_stored_in(weights, card), card, weights.parent), base)


def bases(card: Card, folder: Path | None) -> list[tuple[Path, Card]]:
    """Return the weights file and the card of a student's base, of that one's base, and so on; none where it has none.

    Args:
        card: the student's card.
        folder: looked in before the bundled students.

    Raises:
        WeightsError: one of them is not to be had, or they go in a circle.
    """
    found: list[tuple[Path, Card]] = []
    one = card
    while one.base:
        weights, one = find_base(one.base, folder, one.name)
        if one.sha256 in [known.sha256 for _, known in found]:
            raise WeightsError(
                f"{card.name} is stored as what differs from {one.name}, and that in the end from itself"
            )
        found.append((weights, one))
        folder = weights.parent
    return found


def find_base(base: dict[str, Any], folder: Path | None, of: str = "this student") -> tuple[Path, Card]:
    """Return the weights file and the card of a base.

    Args:
        base: its `name` and `sha256`.
        folder: looked in before the bundled students.
        of: what to call the student that differs from it, in errors.

    Raises:
        WeightsError: it is in neither place.
    """
    there = []
    for place in (folder, weights_folder()):
        file = None if place is None else place / f"{base['name']}.safetensors"
        if file is None or not file.is_file() or not file.with_suffix(".json").is_file():
            continue
        card = read_card(file.with_suffix(".json"))
        there.append(f"{file} is {card.short_hash}")
        if card.sha256 == base["sha256"]:
            return file, card
    raise WeightsError(
        f"{of} is stored as what differs from {base['name']} {base['sha256'][:12]}, which is neither beside it "
        f"nor among the bundled ones{'; ' + ', '.join(there) if there else ''}. Put the two files of that student "
        "beside it"
    )
