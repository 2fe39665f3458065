"""The forms that callers have images in, other than tensors, and their pixels as arrays. Needs no torch."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, TypeVar, Union

import numpy as np
from PIL import Image

from leafiqa.errors import InputError
from leafiqa.files import printable
from leafiqa.images.decoding import Decoded, SizeRule, decode, open_pil
from leafiqa.images.loading import load_ahead

if TYPE_CHECKING:
    from torch import Tensor

ImageLike = Union[str, "os.PathLike[str]", bytes, IO[bytes], Image.Image, np.ndarray, "Tensor"]
Looked = TypeVar("Looked")
Finished = TypeVar("Finished")

_FORMS = (
    "a (B, 3, H, W) or (3, H, W) tensor, a path, bytes, a binary file object, a PIL image, an (H, W, 3) array, or an "
    "iterable of these"
)
_LONGEST_NAME = 120
# How far outside [0, 1] float pixels may lie, as antialiased or bicubic resizing leaves them.
TOLERANCE = 1e-3
# Forms that stay what they are while others are looked at.
FILES = (str, os.PathLike, bytes)


def is_tensor(source: Any) -> bool:
    """Tell whether `source` is a tensor of torch's; where torch was not imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def is_single(source: Any) -> bool:
    """Tell whether `source` is one image (or one batch tensor) rather than an iterable of images."""
    return (
        isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray))
        or is_tensor(source)
        or hasattr(source, "read")
    )


def to_pixels(source: Any, draft: SizeRule | None = None) -> Decoded:
    """Return one image's pixels, `(H, W, 3)` uint8 or floating point, and notes from decoding.

    Args:
        source: a path, the bytes of a file, a binary file object, a PIL image or an array.
        draft: how small a file may be decoded; see `leafiqa.images.decoding.decode`.

    Raises:
        ImageError: a file that cannot be decoded faithfully.
        InputError: an array of the wrong shape or dtype, or no image at all.
    """
    if isinstance(source, np.ndarray):
        return Decoded(_checked_array(source))
    if isinstance(source, Image.Image):
        return open_pil(source)
    if is_single(source) and not is_tensor(source):
        return decode(source, draft)
    raise InputError(f"an image must be {_FORMS}, got {type(source).__name__}")


def _checked_array(array: np.ndarray) -> np.ndarray:
    got = f"got shape {array.shape}, dtype {array.dtype}"
    if array.ndim != 3 or array.shape[2] != 3:
        hint = ""
        if array.ndim == 4:
            hint = "; pass list(array) for several images"
        elif array.ndim == 3 and array.shape[0] == 3:
            hint = "; channels come last in arrays: array.transpose(1, 2, 0), or pass a torch tensor"
        elif array.ndim == 2:
            hint = "; make grey images RGB with np.stack([array] * 3, axis=-1)"
        raise InputError(f"image arrays must have shape (H, W, 3), {got}{hint}")
    if not array.size:
        raise InputError(f"image arrays must have at least one pixel, {got}")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"image arrays must be uint8 (0..255) or floating point ([0, 1]), {got}")
    if array.dtype == np.float16 or array.dtype.itemsize > 8 or not array.dtype.isnative:
        return np.ascontiguousarray(array, dtype=np.float32)
    # Read at once and never written to; a copy of an array of other strides, or that torch would warn of, as one may
    # not write to it.
    return array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C")


def each(source: Any) -> Iterator[Any]:
    """Iterate over a caller's images.

    Raises:
        InputError: not an iterable.
    """
    if not isinstance(source, Iterable):
        raise InputError(f"images must be {_FORMS}, got {type(source).__name__}")
    if isinstance(source, dict):
        raise InputError("images must not be a dict; pass list(images.values())")
    return iter(source)


def walk(
    images: Any,
    look: Callable[[int, Any], Looked],
    finish: Callable[[Looked], Finished],
    *,
    workers: int | None = None,
    depth: int | None = None,
    begin: Callable[[], None] | None = None,
) -> Iterator[Finished]:
    """Yield what `finish(look(index, image))` returns for each image, in order, while threads work ahead.

    Files and bytes, which stay what they are, are looked at in the threads. Anything else is looked at when it is
    taken from `images`, as a caller may fill one array again and again.

    Args:
        images: an iterable of images.
        look: what it raises is raised here.
        finish: called in the threads.
        workers: threads; see `leafiqa.images.loading.load_ahead`.
        depth: images taken and not yet yielded, at most; None means twice the threads.
        begin: called once in each thread.

    Raises:
        InputError: `images` is no iterable.
    """

    def begun() -> Iterator[Callable[[], Looked]]:
        for index, image in enumerate(each(images)):
            if isinstance(image, FILES):
                yield functools.partial(look, index, image)
            else:
                yield _at_its_turn(look, index, image)

    return load_ahead(lambda looked: finish(looked()), begun(), workers=workers, depth=depth, begin=begin)


def _at_its_turn(look: Callable[[int, Any], Looked], index: int, image: Any) -> Callable[[], Looked]:
    """Look at an image now, and return what gives what was found, or raises what was raised."""
    try:
        looked = look(index, image)
    except Exception as error:  # whatever it is, it is told after what came before it
        return functools.partial(_raise, error)
    return lambda: looked


def _raise(error: Exception) -> Any:
    raise error


def short_name(image: object) -> str:
    """Return what to call an image in a message: its path, or its type."""
    text = str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else type(image).__name__
    text = printable(text)
    return text if len(text) <= _LONGEST_NAME else "..." + text[3 - _LONGEST_NAME :]
