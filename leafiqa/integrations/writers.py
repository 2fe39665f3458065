"""Write validations to TensorBoard and Weights & Biases."""

from __future__ import annotations

from typing import Any

import numpy as np

from leafiqa.errors import InputError
from leafiqa.integrations.tracker import Validation


def to_tensorboard(validation: Validation, writer: Any) -> None:
    """Write a validation's numbers and worst pictures to TensorBoard.

    Args:
        validation: what `QualityTracker.compute` returned.
        writer: a `torch.utils.tensorboard.SummaryWriter`, or another with its methods.

    Raises:
        InputError: it is none.
    """
    if not hasattr(writer, "add_scalar") or not hasattr(writer, "add_image"):
        raise InputError(f"writer must be a SummaryWriter (torch.utils.tensorboard), got {type(writer).__name__}")
    for name, value in validation.scalars().items():
        writer.add_scalar(name, value, global_step=validation.step)
    for place, one in enumerate(validation.worst):
        pixels = np.asarray(one.image)
        writer.add_image(f"quality/worst_{place}", pixels, global_step=validation.step, dataformats="HWC")
    told = "\n".join(f"{place}. {one.score:.3f} {one.prompt}" for place, one in enumerate(validation.worst))
    if told:
        writer.add_text("quality/worst", told, global_step=validation.step)


def to_wandb(validation: Validation, run: Any) -> None:
    """Write a validation's numbers and worst pictures to Weights & Biases.

    Args:
        validation: what `QualityTracker.compute` returned.
        run: what `wandb.init` returned.

    Raises:
        InputError: it is no run, or wandb is not installed.
    """
    if not hasattr(run, "log"):
        raise InputError(f"run must be what wandb.init() returned, got {type(run).__name__}")
    try:
        import wandb
    except ImportError as error:
        raise InputError("to_wandb needs wandb: pip install wandb") from error
    content: dict[str, Any] = dict(validation.scalars())
    if validation.worst:
        content["quality/worst"] = [
            wandb.Image(one.image, caption=f"{one.score:.3f} {one.prompt}") for one in validation.worst
        ]
    run.log(content, step=validation.step)
