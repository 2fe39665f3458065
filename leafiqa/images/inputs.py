"""Check and unify what callers pass: any form of image to a `(1, 3, H, W)` tensor, uint8 or float in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from leafiqa.errors import InputError
from leafiqa.images.decoding import Decoded
from leafiqa.images.pixels import TOLERANCE, ImageLike, to_pixels

# How far outside [0, 1] float pixels may lie where a loss is asked for: what a network that is being trained draws
# overshoots, and is clamped.
LOSS_TOLERANCE = 0.25
_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(images: Tensor) -> Tensor:
    """Check a tensor's shape and dtype and return it as `(B, 3, H, W)`; values are not looked at.

    One channel is taken as grey.

    Raises:
        InputError: wrong shape, channel count or dtype.
    """
    got = f"got shape {tuple(images.shape)}, dtype {images.dtype}"
    if images.dim() == 3:
        images = images[None]
    if images.dim() == 4 and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)  # grey
    if images.dim() != 4:
        raise InputError(f"image tensors must have shape (B, 3, H, W) or (3, H, W), {got}")
    if images.shape[1] != 3:
        hint = ""
        if images.shape[-1] == 3:
            hint = "; channels come first here: tensor.movedim(-1, -3)"
        elif images.shape[1] == 4:
            hint = "; lay the image over a background and drop alpha"
        raise InputError(f"image tensors must have 3 channels (RGB), {got}{hint}")
    if images.shape[2] < 1 or images.shape[3] < 1:
        raise InputError(f"image tensors must have at least one pixel, {got}")
    if images.dtype not in _DTYPES:
        raise InputError(
            f"image tensors must be uint8 (0..255), or float16, bfloat16, float32 or float64 ([0, 1]), {got}"
        )
    return images


def values_valid(images: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Return for each image of a float batch whether all pixels are numbers in [0, 1]: `(B,)` bool, no sync."""
    low, high = images.detach().flatten(1).aminmax(dim=1)
    return (low >= -tolerance) & (high <= 1 + tolerance)  # NaN fails both


def raise_on_values(images: Tensor, valid: Tensor) -> None:
    """Raise the error that explains why not all of `valid` holds. Reads values back: for host tensors only.

    Raises:
        InputError: always, if any image is invalid.
    """
    if bool(valid.all()):
        return
    index = int((~valid).nonzero()[0])
    image = images.detach()[index]
    which = f"image {index} of the batch" if len(images) > 1 else "it"
    if bool(image.isnan().any()):
        raise InputError(f"an image tensor must not hold NaN; {which} does")
    low, high = float(image.min()), float(image.max())
    hint = "; it looks like 0..255: divide by 255 or pass uint8" if 1.5 < high <= 255 and low >= 0 else ""
    hint = hint or ("; it looks like [-1, 1]: pass (x + 1) / 2" if -1.01 <= low < 0 and high <= 1.01 else "")
    raise InputError(f"a float image tensor must lie in [0, 1]; {which} spans [{low:.4g}, {high:.4g}]{hint}")


def from_decoded(decoded: Decoded) -> Tensor:
    """Return decoded pixels as a `(1, 3, H, W)` tensor that shares their memory."""
    return check_tensor(torch.from_numpy(decoded.pixels).permute(2, 0, 1)[None])


# Decoders are no business of a compiler's: traced, their errors would look like damaged files.
@torch.compiler.disable
def to_tensor(source: ImageLike) -> tuple[Tensor, list[str]]:
    """Turn one image of any form into a tensor.

    Returns:
        `(1, 3, H, W)` uint8 or float tensor (`(B, 3, H, W)` for a batch tensor), and notes from decoding.

    Raises:
        ImageError: a file that cannot be decoded faithfully.
        InputError: a tensor or array of the wrong shape, dtype or range, or no image at all.
    """
    if isinstance(source, Tensor):
        return check_tensor(source), []
    decoded = to_pixels(source)
    return from_decoded(decoded), decoded.notes
