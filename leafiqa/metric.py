"""The metric: images in any form in, one score each out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from leafiqa.errors import ImageError, ImageWarning, InputError
from leafiqa.files import printable
from leafiqa.images.inputs import (
    LOSS_TOLERANCE,
    TOLERANCE,
    ImageLike,
    each,
    is_single,
    raise_on_values,
    to_tensor,
    values_valid,
)
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import load_student
from leafiqa.model.device import pick_device
from leafiqa.model.exact import exact_float32
from leafiqa.model.places import resolve
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student

# Resized images in one forward pass, and images held resized while an iterable is walked.
_BATCH = 16
_WINDOW = 64


class Metric(nn.Module):
    """A no-reference image quality metric; made by `leafiqa.create_metric`.

    Inside a module of yours it is inert: its network is none of the module's children, so it has no part in the
    module's parameters, buffers, `state_dict`, `train()`, `half()` or conversions, and stays what it is. It follows the
    module to another device. With `inert=False` it is an ordinary child instead, whose network may be trained.

    Calling it from several threads at once gives the same scores as one call after another.

    Attributes:
        metric_name: name of the model, `arch.tag`.
        metric_mode: "NR", no reference.
        lower_better: False, a higher score is a better image.
        as_loss: whether calling it returns a loss to minimise.
        card: the model card.
        student: the network.
        inert: whether the network is kept out of the module tree.
    """

    metric_mode = "NR"
    lower_better = False
    student: Student

    def __init__(self, student: Student, card: Card, as_loss: bool = False, inert: bool = True) -> None:
        super().__init__()
        self.inert = inert
        student.requires_grad_(False).train(False)
        if inert:
            # Past nn.Module's own bookkeeping, which would make it a child.
            self.__dict__["student"] = student
        else:
            self.student = student
        self.card = card
        self.preprocess = Preprocess.from_dict(card.preprocess)
        self.metric_name = card.name
        self.as_loss = as_loss
        super().train(False)

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest possible score; no score lies outside."""
        return self.card.score_range

    @property
    def device(self) -> torch.device:
        """The device that scores are computed on."""
        return self.student.mean.device

    def train(self, mode: bool = True) -> Metric:
        """Do nothing while inert: a metric inside a model that is being trained stays in evaluation mode."""
        return super().train(False if self.inert else mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Metric:
        """Follow `.to(device)`, `.cuda()` and the like; inert, changes of precision are not followed."""
        super()._apply(fn, recurse)
        if self.inert:
            place = fn(torch.empty(0, device=self.device)).device
            if place.type != "meta":
                self.student.to(place)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing: Any,
        unexpected: Any,
        errors: Any,
    ) -> None:
        """Take nothing while inert: checkpoints of a module written when its metric had entries still load."""
        if not self.inert:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)

    def forward(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        """Score images.

        Args:
            images: a tensor `(B, 3, H, W)` or `(3, H, W)`, RGB (one channel: grey), uint8 or floating point in
                [0, 1]; a path, bytes, a binary file object, a PIL image, an `(H, W, 3)` array; or an iterable of
                these, in any mixture of forms and sizes.

        Returns:
            Scores `(N,)`, float32, in input order, on the metric's device, within `score_range`. With `as_loss` a
            scalar to minimise instead: the top of the range minus the mean score, differentiable with respect to
            float pixels. Pixels up to 0.25 outside [0, 1], as a network under training makes them, are clamped then.

            A file in an iterable that cannot be decoded scores NaN, with an `ImageWarning` that says which and why.
            So does an image outside [0, 1] on an accelerator, where looking at its values would make the caller wait.

        Raises:
            InputError: wrong type, shape, channel count or dtype; on the CPU also values outside [0, 1] or NaN.
            ImageError: a single image, not in an iterable, that cannot be decoded.
        """
        if not self.as_loss:
            with torch.no_grad():
                return self._scores(images)
        scores = self._scores(images)
        if not scores.numel():
            raise InputError("as_loss needs at least one image, got none")
        return self.score_range[1] - scores.mean()

    def _scores(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        if isinstance(images, Tensor) or is_single(images):
            tensor, notes = to_tensor(images)  # type: ignore[arg-type]
            for note in notes:
                _warn(f"{_short(images)}: {note}")
            resized, valid = self.prepare(tensor)
            return self._score_resized(resized, valid)
        parts: list[Tensor] = []
        window: list[tuple[Tensor, Tensor]] = []
        for prepared in self._prepare_each(images):  # type: ignore[arg-type]
            window.append(prepared)
            if len(window) == _WINDOW:
                parts.append(self.score_prepared(window))
                window = []
        if window:
            parts.append(self.score_prepared(window))
        return torch.cat(parts) if parts else torch.empty(0, device=self.device, dtype=torch.float32)

    def prepare(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Move to the device, check values, resize: `(B, 3, h, w)` float32 in [0, 1] and `(B,)` valid."""
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
            return self.preprocess.resize(tensor.to(self.device)), valid.to(self.device)

    def _prepare_each(self, images: Iterable[ImageLike]) -> Iterator[tuple[Tensor, Tensor]]:
        for index, image in enumerate(each(images)):  # type: ignore[arg-type]
            try:
                tensor, notes = to_tensor(image)
            except ImageError as error:
                _warn(f"image {index} has no score (NaN): {_short(image)}: {error}")
                blank = torch.zeros(1, 3, 1, 1, device=self.device, dtype=torch.float32)
                yield self.preprocess.resize(blank), torch.zeros(1, dtype=torch.bool, device=self.device)
                continue
            except InputError as error:
                raise InputError(f"image {index}: {error}") from error
            if tensor.shape[0] != 1:
                raise InputError(
                    f"image {index}: a tensor among several must be one image (3, H, W), got {tuple(tensor.shape)}"
                )
            for note in notes:
                _warn(f"image {index}: {_short(image)}: {note}")
            try:
                prepared = self.prepare(tensor)
            except InputError as error:
                raise InputError(f"image {index}: {error}") from error
            yield prepared

    def score_prepared(self, window: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Score resized single images, those of one size together, and return them in order."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (resized, _) in enumerate(window):
            groups.setdefault(tuple(resized.shape), []).append(index)
        scores: list[Tensor] = [valid for _, valid in window]
        for members in groups.values():
            batch = torch.cat([window[i][0] for i in members])
            valid = torch.cat([window[i][1] for i in members])
            for i, score in zip(members, self._score_resized(batch, valid).split(1)):
                scores[i] = score
        return torch.cat(scores)

    def _score_resized(self, resized: Tensor, valid: Tensor) -> Tensor:
        low, high = self.score_range
        with exact_float32(resized.device), torch.autocast(resized.device.type, enabled=False):
            logits = [self.student(batch) for batch in resized.split(_BATCH)] if resized.shape[0] else []
        scores = torch.cat(logits).sigmoid() if logits else resized.new_empty(0)
        return torch.where(valid, low + (high - low) * scores, torch.nan)

    def __repr__(self) -> str:
        return (
            f"Metric({printable(self.metric_name)}, weights {self.card.short_hash}, range {self.score_range}, "
            f"as_loss={self.as_loss}, device={self.device})"
        )


def load_metric(
    name: str = "leaf",
    *,
    as_loss: bool = False,
    device: str | torch.device | None = None,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    inert: bool = True,
) -> Metric:
    """Load a metric; `leafiqa.create_metric`, which describes the arguments, is this function's public face."""
    file, card = resolve(name, weights)
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype must be torch.float32, torch.float16, torch.bfloat16 or None, got {dtype!r}")
    place = pick_device(device)
    metric = Metric(load_student(file, card), card, as_loss=as_loss, inert=inert)
    if dtype is not None:
        metric.student.backbone.to(dtype)
        metric.student.head.to(dtype)
    return metric.to(place)


def _warn(message: str) -> None:
    """Warn at the line of the caller's that called into leafiqa or the metric, through torch's own frames."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("leafiqa", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ImageWarning, stacklevel=level)


def _short(image: object) -> str:
    text = str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else type(image).__name__
    text = printable(text)
    return text if len(text) <= 120 else "..." + text[-117:]
