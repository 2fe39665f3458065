"""The metric in ONNX Runtime: images in, scores out, without torch."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.errors import ImageError, InputError, naming_image, warn_of_image
from leafiqa.files import printable
from leafiqa.images.decoding import Decoded
from leafiqa.images.loading import cores, load_ahead
from leafiqa.images.memory import keep_blocks
from leafiqa.images.pixels import TOLERANCE, ImageLike, is_single, is_tensor, short_name, to_pixels, walk
from leafiqa.model.card import Card
from leafiqa.model.places import resolve
from leafiqa.model.preprocess import Preprocess
from leafiqa.onnx.packages import need
from leafiqa.onnx.runtime_resizing import resize
from leafiqa.onnx.sessions import open_session
from leafiqa.onnx.stored_graphs import network_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images that are scored at the same time where the caller does not say: each is held in full size.
_MOST_AT_ONCE = 16
# Attributes that are of this process.
_OPENED = ("_network", "_lock", "_on_all_cores")


@dataclass(frozen=True)
class _Looked:
    """One image of several: decoded, or None where it cannot be; and what to tell the caller of it."""

    index: int
    decoded: Decoded | None
    remarks: list[str]


class OnnxMetric:
    """A no-reference image quality metric that runs in ONNX Runtime, on the CPU and without torch.

    Made by `leafiqa.create_metric(..., backend="onnx")`. Its scores equal those of the torch metric to 1e-4. Calling
    it from several threads at once gives the same scores as one call after another.

    Of several images one goes through the network on each core, which wastes nothing; a single one is computed by all
    of them. It can be copied and pickled, for another process say.

    Args:
        card: the model card.
        graph: the network, an ONNX model.
        weights: what to fill it with, if it has none.
        draft: decode JPEG files at reduced scale.
        threads: that compute; None means one a core, and at most sixteen images at the same time.

    Attributes:
        metric_name: name of the model, `arch.tag`.
        metric_mode: "NR", no reference.
        lower_better: False, a higher score is a better image.
        as_loss: False; a loss needs gradients, which are torch's.
        card: the model card.
        draft: whether JPEG files are decoded at reduced scale.
        device: "cpu".
        most_at_once: how many images are scored at the same time, in the threads that decode.
        decoders: how many threads decode files ahead, beside a metric that runs in torch.
        together: 0: an image is made ready as soon as it was decoded.
        begin_thread: None: a thread that scores images need not be told anything.
    """

    metric_mode = "NR"
    lower_better = False
    as_loss = False
    device = "cpu"
    decoders = 1
    together = 0
    begin_thread = None

    def __init__(
        self,
        card: Card,
        graph: bytes,
        weights: dict[str, NDArray[np.float32]],
        draft: bool = False,
        threads: int | None = None,
    ) -> None:
        self.card, self.draft = card, draft
        self.preprocess = Preprocess.from_dict(card.preprocess)
        self.metric_name = card.name
        self.most_at_once = threads or min(_MOST_AT_ONCE, cores())
        self._graph, self._weights, self._threads = graph, weights, threads
        self._open()

    def _open(self) -> None:
        keep_blocks()  # before the network is made; decoding does it, too, but arrays are not decoded
        self._network = open_session(self._graph, weights=self._weights, threads=1)
        self._lock = threading.Lock()
        self._on_all_cores: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle is made of: sessions are opened anew."""
        return {name: value for name, value in self.__dict__.items() if name not in _OPENED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` gave."""
        self.__dict__.update(state)
        self._open()

    def at_once(self, images: object) -> int:
        """Return how many of several images are scored at the same time."""
        return self.most_at_once

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest possible score; no score lies outside."""
        return self.card.score_range

    @property
    def engine(self) -> str:
        """What computes scores, and where."""
        return f"onnxruntime {need('onnxruntime').__version__} on cpu"

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float32]:
        """Score images.

        Args:
            images: a path, bytes, a binary file object, a PIL image, an `(H, W, 3)` array (uint8, or floating point
                in [0, 1]), a tensor `(B, 3, H, W)` or `(3, H, W)` on the host; or an iterable of these, in any mixture
                of forms and sizes.

        Returns:
            Scores `(N,)`, float32, in input order, within `score_range`. A file in an iterable that cannot be decoded
            scores NaN, with an `ImageWarning` that says which and why.

        Raises:
            InputError: wrong type, shape, channel count, dtype or values.
            ImageError: a single image, not in an iterable, that cannot be decoded.
        """
        if is_tensor(images):
            images = _unbatched(images)
            images = images[0] if len(images) == 1 else images
        if is_single(images):
            decoded = self.decode(images)  # type: ignore[arg-type]
            for note in decoded.notes:
                warn_of_image(f"{short_name(images)}: {note}")
            prepared = self._prepare(decoded, self.most_at_once)
            return np.array([self._score(prepared, self._network_for_one())], np.float32)
        # The arrays of a list are there at once; one that an iterator gives may be filled again for the next image.
        copy = not isinstance(images, (list, tuple))
        scores = []
        for score, remarks in walk(images, partial(self._look, copy), self._finish, workers=self.most_at_once):
            for remark in remarks:
                warn_of_image(remark)
            scores.append(score)
        return np.array(scores, np.float32)

    def _look(self, copy: bool, index: int, image: ImageLike) -> _Looked:
        try:
            with naming_image(index):
                if is_tensor(image):
                    several = _unbatched(image)
                    if len(several) != 1:
                        raise InputError(f"a tensor among several must be one image, got {tuple(image.shape)}")  # type: ignore[union-attr]
                    image = several[0]
                decoded = self.decode(image)
            if copy and isinstance(image, np.ndarray):
                decoded = replace(decoded, pixels=decoded.pixels.copy())
            return _Looked(index, decoded, [f"image {index}: {short_name(image)}: {note}" for note in decoded.notes])
        except ImageError as error:
            return _Looked(index, None, [f"image {index} has no score (NaN): {short_name(image)}: {error}"])

    def _finish(self, looked: _Looked) -> tuple[float, list[str]]:
        if looked.decoded is None:
            return math.nan, looked.remarks
        with naming_image(looked.index):
            return self._score(self.prepare_decoded(looked.decoded), self._network), looked.remarks

    def explain(self, image: object, *, details: bool = False) -> None:
        """Refuse: what is said beside a score takes torch.

        Raises:
            InputError: always.
        """
        raise InputError("explaining a score takes torch: create_metric(..., backend='torch').explain(image)")

    def explain_each(self, images: object, *, details: bool = False) -> None:
        """Refuse, as `explain` does.

        Raises:
            InputError: always.
        """
        self.explain(images)

    def decode(self, image: ImageLike) -> Decoded:
        """Return the pixels of a file, PIL image or array, as small as `draft` allows."""
        return to_pixels(image, self.preprocess.smallest_draft if self.draft else None)

    def prepare_decoded(self, decoded: Decoded) -> NDArray[np.float32]:
        """Check and resize an image on this thread: float32 `(1, h, w, 3)` in [0, 1].

        Raises:
            InputError: float pixels outside [0, 1].
        """
        return self._prepare(decoded, 1)

    def _prepare(self, decoded: Decoded, threads: int) -> NDArray[np.float32]:
        pixels, white = decoded.pixels[None], 255
        if pixels.dtype != np.uint8:
            pixels, white = np.ascontiguousarray(pixels, dtype=np.float32), 1
            low, high = float(pixels.min()), float(pixels.max())
            if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
                raise InputError(f"a float image must lie in [0, 1]; it spans [{low:.4g}, {high:.4g}]")
        height, width = self.preprocess.size_for(*(decoded.size or pixels.shape[1:3]))
        return resize(pixels, height, width, threads) / np.float32(white)

    def prepare_several(self, opened: Sequence[Decoded]) -> list[NDArray[np.float32]]:
        """Check and resize images, one after the other."""
        return [self.prepare_decoded(one) for one in opened]

    def score_prepared(self, window: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Score resized images: a single one on this thread, of several as many at the same time as there are cores."""
        scored: Iterable[float] = (self._score(pixels, self._network) for pixels in window)
        if min(len(window), self.most_at_once) > 1:
            scored = load_ahead(lambda pixels: self._score(pixels, self._network), window, workers=self.most_at_once)
        return np.array(list(scored), np.float32)

    def _score(self, pixels: NDArray[np.float32], network: Any) -> float:
        low, high = self.score_range
        return float(low + (high - low) * network.run(None, {"pixels": pixels})[0][0])

    def _network_for_one(self) -> Any:
        """Return the network on all cores, made when a single image is scored for the first time."""
        with self._lock:
            if self._on_all_cores is None:
                one = self.most_at_once == 1
                self._on_all_cores = (
                    self._network if one else open_session(self._graph, weights=self._weights, threads=self._threads)
                )
            return self._on_all_cores

    def __repr__(self) -> str:
        return (
            f"OnnxMetric({printable(self.metric_name)}, weights {self.card.short_hash}, range {self.score_range}, "
            f"{self.engine})"
        )


def _unbatched(images: Any) -> list[NDArray[Any]]:
    """Return the images of a tensor of torch's, `(B, 3, H, W)` or `(3, H, W)`, as `(H, W, 3)` arrays.

    Raises:
        InputError: another shape or dtype.
    """
    from leafiqa.images.inputs import check_tensor

    tensor = check_tensor(images).detach().cpu()
    tensor = tensor if str(tensor.dtype) == "torch.uint8" else tensor.float()
    # Reordered by numpy: after a parallel operation of torch's its threads wait for another one, on the cores that ONNX
    # Runtime needs now.
    return list(np.ascontiguousarray(tensor.numpy().transpose(0, 2, 3, 1)))


def load_onnx_metric(
    name: str = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    draft: bool = False,
    threads: int | None = None,
) -> OnnxMetric:
    """Load a metric that runs in ONNX Runtime; `leafiqa.create_metric` is this function's public face.

    Args:
        name: see `leafiqa.create_metric`.
        weights: see `leafiqa.create_metric`.
        draft: see `leafiqa.create_metric`.
        threads: see `OnnxMetric`.

    Raises:
        InputError: onnxruntime is not installed.
        UnknownModelError, WeightsError: see `leafiqa.create_metric`.
    """
    need("onnxruntime")
    file, card = resolve(name, weights)
    graph, tensors = network_of(file, card)
    return OnnxMetric(card, graph, tensors, draft, threads)
