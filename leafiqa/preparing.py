"""From images in any form to what a student looks at, on the device that it is on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leafiqa.details import COUNT, window_size
from leafiqa.errors import ImageError, InputError, naming_image, warn_of_image
from leafiqa.images.decoding import Decoded
from leafiqa.images.inputs import LOSS_TOLERANCE, check_tensor, from_decoded, raise_on_values, values_valid
from leafiqa.images.loading import cores, usual_workers
from leafiqa.images.pixels import TOLERANCE, ImageLike, short_name, to_pixels, walk
from leafiqa.images.windows import places_of_structure
from leafiqa.model.exact import exact_float32
from leafiqa.model.holder import StudentHolder
from leafiqa.model.one_thread import may_leave_this_thread
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.resizing import is_plain
from leafiqa.model.student import Student

# Images looked at together, at most, while an iterable is walked.
WINDOW = 64
# Threads that decode for an accelerator, which else would wait for them, and bytes of pixels sent to it in one go.
_MOST_DECODERS = 16
_TOGETHER = 64 << 20
# Bytes of a block that is pinned, at most: torch keeps such blocks until the process ends.
_MOST_PINNED = 256 << 20


@dataclass(frozen=True)
class Looked:
    """One image of several: what `looker` was to make of it, or none; and what to tell the caller of it."""

    index: int
    opened: Any
    remarks: list[str]


@dataclass(frozen=True)
class CloseUp:
    """Windows of one picture at full size.

    Attributes:
        windows: `(K, 3, h, w)` float32 in [0, 1], on the metric's device.
        places: top and left of each in the picture.
        size: height and width of the picture.
    """

    windows: Tensor
    places: list[tuple[int, int]]
    size: tuple[int, int]


class Preparing(StudentHolder):
    """Makes images ready for the student that it holds.

    Args:
        student: the student.
        preprocess: how it looks at an image.
        as_loss: take pixels a little outside [0, 1], and let gradients through.
        inert: see `StudentHolder`.
        draft: decode JPEG files at reduced scale.
    """

    def __init__(self, student: Student, preprocess: Preprocess, *, as_loss: bool, inert: bool, draft: bool) -> None:
        super().__init__(student, inert)
        self.preprocess, self.as_loss, self.draft = preprocess, as_loss, draft

    def prepare_single(self, image: ImageLike) -> tuple[tuple[Tensor, Tensor], list[str]]:
        """Return an image by itself, or a batch tensor, as `prepare` makes it ready, and remarks from decoding."""
        if isinstance(image, Tensor):
            return self.prepare(check_tensor(image)), []
        decoded = self.decode(image)
        return self.prepare_decoded(decoded), decoded.notes

    # Decoders are no business of a compiler's: traced, their errors would look like damaged files.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def decode(self, image: ImageLike) -> Decoded:
        """Return the pixels of a file, PIL image or array, as small as `draft` allows."""
        return to_pixels(image, self.preprocess.smallest_draft if self.draft else None)

    def prepare_decoded(self, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """Do what `prepare` does with an image that was decoded, perhaps smaller than it is."""
        return self.prepare(from_decoded(decoded), decoded.size)

    def prepare(self, tensor: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Move to the device, check values, resize.

        Args:
            tensor: `(B, 3, H, W)`, uint8 or floating point.
            size: height and width of the whole image, where the tensor holds it reduced.

        Returns:
            `(B, 3, h, w)` float32 in [0, 1], and which of them are valid, `(B,)`.
        """
        on_host = tensor.device.type == "cpu"
        if tensor.dtype == torch.uint8 or not tensor.shape[0]:
            valid = torch.ones(tensor.shape[0], dtype=torch.bool, device=tensor.device)
        else:
            valid = values_valid(tensor, LOSS_TOLERANCE if self.as_loss else TOLERANCE)
            if on_host and not torch.compiler.is_compiling():
                raise_on_values(tensor, valid)
            if self.as_loss:
                # Gradients pass as if nothing had been clamped, so that a pixel beyond the end can come back.
                tensor = tensor + (tensor.clamp(0, 1) - tensor).detach()
        # From the host uint8 travels as it is: a quarter of the bytes.
        with torch.autocast(self.device.type, enabled=False), exact_float32(self.device):
            return self.preprocess.resize(tensor.to(self.device), size), valid.to(self.device)

    def need_whole(self) -> None:
        """Check that pictures are decoded at full size.

        Raises:
            InputError: JPEG files are decoded at reduced scale, so that they lack their details.
        """
        if self.draft:
            raise InputError("details take whole pictures, and this metric decodes them reduced: use draft=False")

    @torch.no_grad()
    def close_up(self, whole: Decoded | Tensor, look: Tensor) -> CloseUp | None:
        """Return the windows of a picture that a close look is taken at; None where it is hardly larger than the look.

        Args:
            whole: the picture, decoded at full size, see `need_whole`, or `(1, 3, H, W)` as `prepare` takes it.
            look: `(1, 3, h, w)`, what `prepare` made of it.
        """
        if isinstance(whole, Decoded):
            whole = from_decoded(whole)
        size = (whole.shape[2], whole.shape[3])
        window = window_size(size, (look.shape[2], look.shape[3]))
        if window is None:
            return None
        places = places_of_structure(look[0].permute(1, 2, 0).cpu().numpy(), size, window, COUNT)
        height, width = window
        parts = [whole[0, :, top : top + height, left : left + width].to(self.device) for top, left in places]
        windows = torch.stack(parts)
        # As a loss the look is clamped, too.
        windows = windows.float() / 255 if windows.dtype == torch.uint8 else windows.float().clamp(0, 1)
        return CloseUp(windows, places, size)

    @property
    def decoders(self) -> int:
        """How many threads decode files ahead: on a host few, as the network needs its cores, too."""
        return usual_workers() if self.device.type == "cpu" else min(cores(), _MOST_DECODERS)

    @property
    def together(self) -> int:
        """How many bytes of decoded pixels, about, are worth waiting for before they are made ready in one go."""
        return 0 if self.device.type == "cpu" else _TOGETHER

    # Threads are no business of a compiler's.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def prepare_each(self, images: Iterable[ImageLike]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each image as `prepare` makes it ready, in order, and warn of those that cannot be decoded."""
        waiting: list[Decoded | tuple[Tensor, Tensor] | None] = []
        held = 0
        # Threads decode and do nothing else: an operation of torch's in many of them makes all wait for each other.
        for looked in walk(images, self.looker(images), lambda looked: looked, workers=self.decoders):
            for remark in looked.remarks:
                warn_of_image(remark)
            if not self.together:
                yield self.ready(looked)
                continue
            opened = looked.opened
            if isinstance(opened, Decoded) and opened.pixels.dtype != np.uint8:
                opened = self.ready(looked)
            waiting.append(opened)
            held += opened.pixels.nbytes if isinstance(opened, Decoded) else 0
            if held >= self.together or len(waiting) == WINDOW:
                yield from self.prepare_several(waiting)
                waiting, held = [], 0
        yield from self.prepare_several(waiting)

    def prepare_several(
        self, opened: Sequence[Decoded | tuple[Tensor, Tensor] | None]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each image as `prepare` makes it ready, in order; on an accelerator those of one size together.

        Args:
            opened: images that were decoded, those that are ready, and None for those that could not be decoded.
        """
        alike: dict[Any, list[int]] = {}
        ready: dict[int, tuple[Tensor, Tensor]] = {}
        for place, one in enumerate(opened):
            if not isinstance(one, Decoded):
                ready[place] = self._blank() if one is None else one
            elif self.together and one.pixels.dtype == np.uint8:
                alike.setdefault((one.pixels.shape, one.size), []).append(place)
        for (shape, size), places in alike.items():
            # From pinned memory the transfer runs while this thread goes on. Copied by numpy: torch would use all the
            # cores, which decode, and wait for each of them.
            pinned = self.device.type == "cuda" and len(places) * math.prod(shape) <= _MOST_PINNED
            pixels = torch.empty((len(places), *shape), dtype=torch.uint8, device="cpu", pin_memory=pinned)
            for number, place in enumerate(places):
                np.copyto(pixels.numpy()[number], opened[place].pixels)  # type: ignore[union-attr]
            moved = pixels.to(self.device, non_blocking=pinned).permute(0, 3, 1, 2)
            resized, valid = self.prepare(moved, size)
            ready.update(zip(places, zip(resized.split(1), valid.split(1))))
        for place, one in enumerate(opened):
            yield ready.pop(place) if place in ready else self.prepare_decoded(one)  # type: ignore[arg-type]

    def _blank(self) -> tuple[Tensor, Tensor]:
        """Return what stands for an image that cannot be decoded: its score will be NaN."""
        nothing = torch.zeros(1, 3, 1, 1, device=self.device, dtype=torch.float32)
        return self.preprocess.resize(nothing), torch.zeros(1, dtype=torch.bool, device=self.device)

    def looker(self, images: object, whole: bool = False) -> Callable[[int, ImageLike], Looked]:
        """Return what looks at one of these images, given its place.

        Args:
            images: the images.
            whole: return each decoded, or as a tensor `(1, 3, H, W)`; else decoded, or prepared where that is quick.
        """
        keep = isinstance(images, (list, tuple))  # whether an image's memory stays what it is until it is scored
        return partial(self._look, partial(self._open_whole if whole else self._open, keep))

    def _look(self, open_: Callable[[ImageLike], tuple[Any, list[str]]], index: int, image: ImageLike) -> Looked:
        """Return one image of several, opened; files that cannot be decoded are none."""
        try:
            with naming_image(index):
                opened, notes = open_(image)
        except ImageError as error:
            return Looked(index, None, [f"image {index} has no score (NaN): {short_name(image)}: {error}"])
        return Looked(index, opened, [f"image {index}: {short_name(image)}: {note}" for note in notes])

    def _open(self, keep: bool, image: ImageLike) -> tuple[Decoded | tuple[Tensor, Tensor], list[str]]:
        if isinstance(image, np.ndarray) and image.dtype != np.uint8 and not keep:
            decoded = self.decode(image)  # a copy would be four times as large as one of bytes
            return self.prepare_decoded(decoded), decoded.notes
        if not isinstance(image, Tensor):
            return self._decode(keep, image)
        tensor = _single(image)
        readable = tensor.device.type == "cpu" and is_plain(tensor) and may_leave_this_thread()
        wanted = (torch.uint8, torch.float32) if keep else (torch.uint8,)
        if self.as_loss or not readable or tensor.dtype not in wanted:
            return self.prepare(tensor), []
        pixels = tensor.detach()[0].permute(1, 2, 0).numpy()
        return Decoded(pixels if keep else pixels.copy()), []

    def _open_whole(self, keep: bool, image: ImageLike) -> tuple[Decoded | Tensor, list[str]]:
        if isinstance(image, Tensor):
            tensor = _single(image).detach()
            return tensor if keep else tensor.clone(), []
        return self._decode(keep, image)

    def _decode(self, keep: bool, image: ImageLike) -> tuple[Decoded, list[str]]:
        decoded = self.decode(image)
        if isinstance(image, np.ndarray) and not keep:
            decoded = replace(decoded, pixels=decoded.pixels.copy())
        return decoded, decoded.notes

    def ready(self, looked: Looked) -> tuple[Tensor, Tensor]:
        """Return an image of several as `prepare` makes it ready."""
        with naming_image(looked.index):
            return next(self.prepare_several([looked.opened]))


def _single(image: Tensor) -> Tensor:
    tensor = check_tensor(image)
    if tensor.shape[0] != 1:
        raise InputError(f"a tensor among several must be one image (3, H, W), got {tuple(image.shape)}")
    return tensor
