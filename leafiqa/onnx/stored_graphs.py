"""Graphs without weights, one an architecture, that come with leafiqa: with a student's weights they need no torch.

A stored graph is what `leafiqa.onnx.exporting` makes of a student, less its weights. Those come from the student's own
`.safetensors` file; batch normalisation is folded into them as `leafiqa.model.fused_network` does it. Made by
`python -m benchmarks.onnx_graphs`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.errors import WeightsError
from leafiqa.model.card import Card
from leafiqa.model.preprocess import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent / "graphs"
# Characters of the backbones' names in a graph's: what tells graphs apart is the hash.
_LONGEST = 100


def architecture_key(card: Card) -> str:
    """Return what tells a student's graph from others: its architecture and the normalisation of its pixels."""
    fields = {**card.architecture, "mean": card.preprocess.get("mean"), "std": card.preprocess.get("std")}
    for name, usual in (("experts", 1), ("hidden", 128), ("residual", False)):
        fields.setdefault(name, usual)
    for name in ("dropout", "defects"):  # without a part in the score
        fields.pop(name, None)
    text = json.dumps(fields, sort_keys=True)
    several = fields["backbone"]
    name = several if isinstance(several, str) else "-".join(several)
    return f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def stored_graph(card: Card) -> tuple[bytes, dict[str, Any]] | None:
    """Return the graph of a student's architecture and what it is filled by; None where leafiqa brings none.

    It is for pictures whose sides are multiples of what the backbone reduces them by.
    """
    place = FOLDER / f"{architecture_key(card)}.onnx"
    if not place.is_file():
        return None
    told: dict[str, Any] = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    if Preprocess.from_dict(card.preprocess).multiple % told["multiple"]:
        return None
    return place.read_bytes(), told


def network_of(weights: Path, card: Card) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """Return a student's graph and the weights to fill it with; none where the graph holds them.

    Raises:
        WeightsError: the file is not the one that the card describes, or cannot be exported.
        InputError: the architecture has no stored graph, and the packages to export it are not installed.
    """
    stored = stored_graph(card)
    if stored is None:
        from leafiqa.model.checkpoint import load_student
        from leafiqa.onnx.exporting import network_model

        multiple = Preprocess.from_dict(card.preprocess).multiple
        return network_model(load_student(weights, card), multiple).SerializeToString(), {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from leafiqa.model.checkpoint import read_weights
    from leafiqa.model.differences import whole

    try:
        tensors = whole(load(read_weights(weights, card)), card, weights.parent)
        return stored[0], filled(tensors, stored[1])
    except (SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{weights} does not fit the architecture on its card: {error}") from error


def filled(tensors: dict[str, NDArray[np.float32]], told: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return the initializers of a stored graph.

    Args:
        tensors: the student's state dict.
        told: `initializers`, their names, and `folded`: for a convolution the batch normalisation after it and its
            epsilon.

    Raises:
        WeightsError: a weight is not finite.
    """
    found = {}
    for name in told["initializers"]:
        module, _, part = name.rpartition(".")
        if module not in told["folded"]:
            found[name] = tensors[name]
            continue
        norm, epsilon = told["folded"][module]
        scale = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"] + np.float32(epsilon))
        if part == "weight":
            found[name] = tensors[name] * scale[:, None, None, None]
        else:
            own = tensors.get(name, np.zeros_like(scale))
            found[name] = tensors[f"{norm}.bias"] + (own - tensors[f"{norm}.running_mean"]) * scale
    for name, value in found.items():
        if not np.isfinite(value).all():
            raise WeightsError(f"the student holds NaN or infinity in {name}: its training has failed")
        found[name] = np.ascontiguousarray(value, dtype=np.float32)
    return found
