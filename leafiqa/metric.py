"""The metric: images in any form in, one score each out."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from leafiqa.details import Details, Window, details_of, of_single_pixels
from leafiqa.errors import InputError, naming_image, warn_of_image
from leafiqa.explanation import Explanation, explained
from leafiqa.files import printable
from leafiqa.images.decoding import Decoded
from leafiqa.images.inputs import check_tensor, from_decoded
from leafiqa.images.pixels import ImageLike, is_single, short_name, walk
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import load_student
from leafiqa.model.device import pick_device
from leafiqa.model.exact import exact_float32
from leafiqa.model.fused_network import ScoringNetwork
from leafiqa.model.one_thread import can_compute_alone, compute_alone, may_leave_this_thread
from leafiqa.model.places import resolve
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.shapes import batch_size_for, by_shape
from leafiqa.model.student import Student
from leafiqa.preparing import WINDOW, CloseUp, Looked, Preparing

# Images scored at the same time, at most.
_MOST_AT_ONCE = 16

Found = TypeVar("Found")


class Metric(Preparing):
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
        draft: whether JPEG files are decoded at reduced scale.
    """

    metric_mode = "NR"
    lower_better = False

    def __init__(
        self,
        student: Student,
        card: Card,
        as_loss: bool = False,
        inert: bool = True,
        draft: bool = False,
    ) -> None:
        super().__init__(student, Preprocess.from_dict(card.preprocess), as_loss=as_loss, inert=inert, draft=draft)
        self.card = card
        self.metric_name = card.name
        # A network that is trained changes with every step: what is made of it would be made anew each time.
        self._network = ScoringNetwork() if inert else None

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest possible score; no score lies outside."""
        return self.card.score_range

    @property
    def engine(self) -> str:
        """What computes scores, and where."""
        return f"torch {torch.__version__} on {self.device}"

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

    def differentiable_scores(self, images: Tensor) -> Tensor:
        """Return scores `(B,)` of a `(B, 3, H, W)` tensor, with gradients where torch's mode has them.

        Raises:
            InputError: see `forward`.
        """
        return self._scores(images)

    def explain(self, image: ImageLike, *, details: bool = False) -> Explanation:
        """Say of an image how sure its score is, what is wrong with it, and where.

        Args:
            image: one image, in any form that the metric itself takes.
            details: also look at windows of it at full size, where it is so much larger than what the metric looks at
                that faults of single pixels are lost: a large photograph can be out of focus by some pixels, and its
                score does not tell. Costs as much again.

        Raises:
            WeightsError: the student tells a score and nothing else.
            InputError: several images, see `explain_each`; or a wrong type, shape or values; or details are asked of a
                metric that decodes files at reduced scale.
            ImageError: it cannot be decoded.
        """
        if not isinstance(image, Tensor) and not is_single(image):
            raise InputError(f"explain takes one image, explain_each several; got {type(image).__name__}")
        found, notes = self._explain_single(image, details)
        for note in notes:
            warn_of_image(f"{short_name(image)}: {note}")
        if len(found) != 1 or found[0] is None:
            wrong = f"{len(found)} images; explain_each takes several" if len(found) != 1 else "values outside [0, 1]"
            raise InputError(f"explain takes one image, this tensor has {wrong}")
        return found[0]

    def explain_each(self, images: Iterable[ImageLike], *, details: bool = False) -> list[Explanation | None]:
        """Explain several images.

        Args:
            images: a tensor `(B, 3, H, W)`, or an iterable of images in any mixture of forms and sizes.
            details: see `explain`.

        Returns:
            An `Explanation` each, in input order; None for a file that cannot be decoded, of which an `ImageWarning`
            says why.

        Raises:
            WeightsError: the student tells a score and nothing else.
            InputError: see `forward` and `explain`.
        """
        self.student.need_aspects()
        if isinstance(images, Tensor):
            found, _ = self._explain_single(images, details)
            return found
        threads = self.at_once(images)
        if details:  # each by itself: they are large, and windows of one go together
            self.need_whole()
            each = self._look_at_each(images, self._explain_looked, threads, whole=True)
        elif threads is not None:
            each = self._look_at_each(images, lambda looked: self.explain_prepared([self.ready(looked)]), threads)
        else:
            return self.explain_prepared(self.prepare_each(images))
        return [one for found in each for one in found]

    def _explain_single(self, image: ImageLike, details: bool) -> tuple[list[Explanation | None], list[str]]:
        """Return explanations of an image by itself, or of a batch tensor, and remarks from decoding."""
        if not details:
            (resized, valid), notes = self.prepare_single(image)
            return self._explain_resized(resized, valid), notes
        self.need_whole()
        if isinstance(image, Tensor):
            return self._explain_whole(check_tensor(image)), []
        decoded = self.decode(image)
        return self._explain_whole(decoded), decoded.notes

    @torch.no_grad()
    def _explain_whole(self, whole: Decoded | Tensor) -> list[Explanation | None]:
        """Explain an image that was decoded, or each of a tensor `(B, 3, H, W)`, with its details."""
        tensor = from_decoded(whole) if isinstance(whole, Decoded) else whole
        resized, valid = self.prepare(tensor)
        found = self._explain_resized(resized, valid)
        for place, one in enumerate(found):
            if one is not None:
                close_up = self.close_up(tensor[place : place + 1], resized[place : place + 1])
                found[place] = replace(one, details=self.look_closely(close_up))
        return found

    def _explain_looked(self, looked: Looked) -> list[Explanation | None]:
        """Explain one image of several with its details."""
        with naming_image(looked.index):
            return [None] if looked.opened is None else self._explain_whole(looked.opened)

    def look_closely(self, close_up: CloseUp | None) -> Details | None:
        """Return what the student sees of a picture's windows; None where there are none.

        Raises:
            WeightsError: the student tells a score and nothing else.
        """
        if close_up is None:
            return None
        every = torch.ones(len(close_up.windows), dtype=torch.bool)
        windows = []
        for (top, left), seen in zip(close_up.places, self._explain_resized(close_up.windows, every)):
            if seen is not None:
                defects = {name: seen.defects[name] for name in of_single_pixels(seen.defects)}
                windows.append(Window(top, left, seen.score, defects, seen.pixels))
        return details_of(windows, close_up.size)

    @torch.no_grad()
    def _explain_resized(self, resized: Tensor, valid: Tensor) -> list[Explanation | None]:
        names = self.student.need_aspects().defects
        if not resized.shape[0]:
            return []
        with exact_float32(resized.device), torch.autocast(resized.device.type, enabled=False):
            student = self.scoring_student(resized)
            seen = [student.explain(part) for part in resized.split(batch_size_for(resized))]
        pixels = (resized.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()
        found: list[Explanation | None] = []
        for part in seen:
            rows = zip(part.logits.tolist(), part.errors.tolist(), part.severities.tolist(), part.cells.cpu().numpy())
            for logit, error, severities, cells in rows:
                place = len(found)
                of = dict(zip(names, severities))
                found.append(
                    explained(logit, error, of, cells, self.score_range, pixels[place]) if bool(valid[place]) else None
                )
        return found

    def _scores(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        if isinstance(images, Tensor) or is_single(images):
            (resized, valid), notes = self.prepare_single(images)  # type: ignore[arg-type]
            for note in notes:
                warn_of_image(f"{short_name(images)}: {note}")
            return self._score_resized(resized, valid)
        if (threads := self.at_once(images)) is not None:
            found = self._look_at_each(images, lambda looked: self.score_prepared([self.ready(looked)]), threads)  # type: ignore[arg-type]
            return torch.cat(found) if found else torch.empty(0, device=self.device, dtype=torch.float32)
        parts: list[Tensor] = []
        prepared = self.prepare_each(images)  # type: ignore[arg-type]
        while window := list(itertools.islice(prepared, WINDOW)):
            parts.append(self._score_window(window))
        return torch.cat(parts) if parts else torch.empty(0, device=self.device, dtype=torch.float32)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def at_once(self, images: object) -> int | None:
        """Return how many of several images are scored at the same time, each by one core; None: one after the other.

        As many as torch may use threads. One after the other, each by all cores, where there are fewer images than
        that, on an accelerator, as a loss, and where the network is trained.
        """
        threads = min(torch.get_num_threads(), _MOST_AT_ONCE)
        if self.device.type != "cpu" or self.as_loss or self._network is None or threads < 2:
            return None
        if operator.length_hint(images, threads) < threads or not may_leave_this_thread() or not can_compute_alone():
            return None
        return threads

    # What a thread that scores images begins with.
    begin_thread = staticmethod(compute_alone)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _look_at_each(
        self, images: Iterable[ImageLike], finish: Callable[[Looked], Found], threads: int | None, whole: bool = False
    ) -> list[Found]:
        """Return what `finish` makes of each image, and warn of those that cannot be decoded.

        Args:
            images: the images.
            finish: given what `looker` returns.
            threads: that finish, too, several images at the same time, each computing alone; None: threads decode, and
                do nothing else.
            whole: see `looker`.
        """

        def with_remarks(looked: Looked) -> tuple[Found, list[str]]:
            return finish(looked), looked.remarks

        look = self.looker(images, whole)
        if threads is None:
            each: Iterable[tuple[Found, list[str]]]
            each = map(with_remarks, walk(images, look, lambda looked: looked, workers=self.decoders))
        else:
            each = walk(images, look, with_remarks, workers=threads, begin=self.begin_thread)
        all_found = []
        for found, remarks in each:
            for remark in remarks:
                warn_of_image(remark)
            all_found.append(found)
        return all_found

    def score_prepared(self, window: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Score single images that `prepare` made ready, without gradients, and return them in order."""
        with torch.no_grad():
            return self._score_window(window)

    def explain_prepared(self, window: Iterable[tuple[Tensor, Tensor]]) -> list[Explanation | None]:
        """Explain single images that `prepare` made ready, in order; None for one that is not valid.

        Raises:
            WeightsError: the student tells a score and nothing else.
        """
        found: list[Explanation | None] = []
        left = iter(window)
        while part := list(itertools.islice(left, WINDOW)):
            found += self.of_each(part, self._explain_resized)
        return found

    def _score_window(self, window: list[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.cat(self.of_each(window, lambda batch, valid: self._score_resized(batch, valid).split(1)))

    def of_each(
        self, window: list[tuple[Tensor, Tensor]], look: Callable[[Tensor, Tensor], Sequence[Found]]
    ) -> list[Found]:
        """Return what `look` finds of resized single images, in order.

        Args:
            window: images that `prepare` made ready.
            look: given some of one size, as many as a device computes well at a time, and which of them are valid.
        """
        found: dict[int, Found] = {}
        for alike in by_shape([resized for resized, _ in window]):
            size = batch_size_for(window[alike[0]][0])
            for members in (alike[start : start + size] for start in range(0, len(alike), size)):
                batch = torch.cat([window[i][0] for i in members])
                valid = torch.cat([window[i][1] for i in members])
                found.update(zip(members, look(batch, valid)))
        return [found[i] for i in range(len(window))]

    def scoring_student(self, resized: Tensor) -> Student:
        """Return what looks at resized images: inert, on a host, without gradients, a fused copy of the student."""
        return self.student if self._network is None else self._network.of(self.student, resized)

    def _score_resized(self, resized: Tensor, valid: Tensor) -> Tensor:
        low, high = self.score_range
        with exact_float32(resized.device), torch.autocast(resized.device.type, enabled=False):
            student = self.scoring_student(resized)
            batches = resized.split(batch_size_for(resized)) if resized.shape[0] else ()
            parts = [student(batch).sigmoid() for batch in batches]
        scores = torch.cat(parts) if parts else resized.new_empty(0)
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
    draft: bool = False,
) -> Metric:
    """Load a metric; `leafiqa.create_metric`, which describes the arguments, is this function's public face."""
    file, card = resolve(name, weights)
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype must be torch.float32, torch.float16, torch.bfloat16 or None, got {dtype!r}")
    place = pick_device(device)
    metric = Metric(load_student(file, card), card, as_loss=as_loss, inert=inert, draft=draft)
    if dtype is not None:
        metric.student.backbone.to(dtype)
        metric.student.head.to(dtype)
        if dtype != torch.float32:
            # Tensor cores read features in this order: a quarter faster than putting them into it layer by layer.
            metric.student.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return metric.to(place)
