"""`create_metric`: from a name, a file, a folder or a hub repository to a metric ready to call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.errors import InputError, WeightsError
from leafiqa.model import hub
from leafiqa.model.card import Card, read_card
from leafiqa.model.checkpoint import CHECKPOINT_ENDINGS, find_pair, load_student
from leafiqa.model.registry import bundled

if TYPE_CHECKING:
    import torch

    from leafiqa.metric import Metric


def resolve(weights: str | os.PathLike[str]) -> tuple[Path, Card]:
    """Find the weights file and the card that `weights` means.

    Args:
        weights: a bundled name, a `.safetensors` or `.json` file, a folder holding one such pair, or
            `hf-hub:owner/repo[@revision]`.

    Raises:
        UnknownModelError: looks like a name, and there is none such.
        WeightsError: missing, unreachable or malformed.
    """
    text = os.fspath(weights)
    if text.startswith(hub.PREFIX):
        file, card_file = find_pair(hub.fetch(text))
        return file, read_card(card_file)
    path = Path(text)
    # A bare word is a name; anything with a separator or a checkpoint's ending is a place.
    bare = isinstance(weights, str) and path.name == text and path.suffix.lower() not in CHECKPOINT_ENDINGS
    if bare and not path.is_dir():
        return bundled(text)
    if not path.exists() and path.suffix.lower() not in CHECKPOINT_ENDINGS:
        hint = f" For the Hugging Face Hub write 'hf-hub:{text}'." if text.count("/") == 1 else ""
        raise WeightsError(f"weights {text!r} is neither a file nor a folder.{hint}")
    file, card_file = find_pair(path)
    return file, read_card(card_file)


def create_metric(
    name: str = "leaf",
    *,
    as_loss: bool = False,
    device: str | torch.device | None = None,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Metric:
    """Create a no-reference image quality metric.

    Args:
        name: a name from `list_models()`.
        as_loss: return a scalar to minimise, differentiable with respect to the pixels, instead of scores.
        device: where to compute; None means CUDA where there is one, else the CPU. The metric moves with `.to()`.
        weights: weights to use in place of the bundled ones of `name`: another name, a `.safetensors` file with
            its `.json` card beside it, a folder holding one such pair, or `hf-hub:owner/repo[@revision]`.
        dtype: precision of the network, `torch.float32` (None), `torch.float16` or `torch.bfloat16`. Preprocessing
            and scores are float32 always.

    Returns:
        A `Metric`: call it with a tensor, file, PIL image, array, or any iterable of these.

    Raises:
        UnknownModelError: no model of that name; the message suggests near ones.
        WeightsError: the weights cannot be found, fetched or trusted.
        InputError: an unsupported dtype, or a device that is not there.

    Example:
        >>> metric = leafiqa.create_metric("leaf")
        >>> metric(["a.jpg", "b.png"])
        tensor([0.7312, 0.4085])
    """
    file, card = resolve(name if weights is None else weights)

    import torch

    from leafiqa.metric import Metric

    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype must be torch.float32, torch.float16, torch.bfloat16 or None, got {dtype!r}")
    place = pick_device(device)
    metric = Metric(load_student(file, card), card, as_loss=as_loss)
    if dtype is not None:
        metric.student.backbone.to(dtype)
        metric.student.head.to(dtype)
    return metric.to(place)


def pick_device(device: Any) -> torch.device:
    """Return the device to use: "auto" or None is CUDA where there is one, else the CPU.

    Raises:
        InputError: the device does not exist here.
    """
    import torch

    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        if place.type == "meta":
            raise RuntimeError("it holds no data")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        message = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used here: {message}. Use 'cpu' or 'auto'.") from error
    return place
