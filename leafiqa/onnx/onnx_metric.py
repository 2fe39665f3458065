"""The metric in ONNX Runtime: images in, scores out, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.errors import ImageError, InputError, warn_of_image
from leafiqa.files import printable
from leafiqa.images.decoding import Decoded
from leafiqa.images.loading import load_ahead
from leafiqa.images.pixels import TOLERANCE, ImageLike, is_single, is_tensor, short_name, to_pixels, walk
from leafiqa.model.card import Card
from leafiqa.model.places import resolve
from leafiqa.model.preprocess import Preprocess
from leafiqa.onnx.packages import need
from leafiqa.onnx.sessions import open_session
from leafiqa.onnx.stored_graphs import network_of, resizing_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images held resized while an iterable is walked, and pixels of one that are resized at a time.
_WINDOW = 16
_PIECE_PIXELS = 1 << 19

Prepared = tuple["NDArray[np.float32] | None", bool]


class OnnxMetric:
    """A no-reference image quality metric that runs in ONNX Runtime, on the CPU and without torch.

    Made by `leafiqa.create_metric(..., backend="onnx")`. Its scores equal those of the torch metric to 1e-4. Calling
    it from several threads at once gives the same scores as one call after another.

    Attributes:
        metric_name: name of the model, `arch.tag`.
        metric_mode: "NR", no reference.
        lower_better: False, a higher score is a better image.
        as_loss: False; a loss needs gradients, which are torch's.
        card: the model card.
        draft: whether JPEG files are decoded at reduced scale.
        device: "cpu".
        prepares_in_threads: True: images are resized where they are decoded, on one thread each.
    """

    metric_mode = "NR"
    lower_better = False
    as_loss = False
    device = "cpu"
    prepares_in_threads = True

    def __init__(self, card: Card, network: Any, draft: bool = False) -> None:
        self.card, self.draft = card, draft
        self.preprocess = Preprocess.from_dict(card.preprocess)
        self.metric_name = card.name
        self._network = network
        kinds = ("uint8", "float")
        self._resizers = {kind: open_session(resizing_graph(kind), threads=1, arena=False) for kind in kinds}

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
        elif is_single(images):
            decoded = self.decode(images)  # type: ignore[arg-type]
            for note in decoded.notes:
                warn_of_image(f"{short_name(images)}: {note}")
            return self.score_prepared([self.prepare_decoded(decoded)])
        found = [np.empty(0, np.float32)]
        window: list[Prepared] = []
        for prepared, remarks in walk(images, self._look):
            for remark in remarks:
                warn_of_image(remark)
            window.append(prepared)
            if len(window) == _WINDOW:
                found.append(self.score_prepared(window))
                window = []
        return np.concatenate([*found, self.score_prepared(window)])

    def _look(self, index: int, image: ImageLike) -> tuple[Prepared, list[str]]:
        try:
            if is_tensor(image):
                several = _unbatched(image)
                if len(several) != 1:
                    raise InputError(f"a tensor among several must be one image, got {tuple(image.shape)}")  # type: ignore[union-attr]
                image = several[0]
            decoded = self.decode(image)
            remarks = [f"image {index}: {short_name(image)}: {note}" for note in decoded.notes]
            return self.prepare_decoded(decoded), remarks
        except ImageError as error:
            return (None, False), [f"image {index} has no score (NaN): {short_name(image)}: {error}"]
        except InputError as error:
            raise InputError(f"image {index}: {error}") from error

    def explain(self, image: object) -> None:
        """Refuse: what is said beside a score takes torch.

        Raises:
            InputError: always.
        """
        raise InputError("explaining a score takes torch: create_metric(..., backend='torch').explain(image)")

    def decode(self, image: ImageLike) -> Decoded:
        """Return the pixels of a file, PIL image or array, as small as `draft` allows."""
        return to_pixels(image, self.preprocess.smallest_draft if self.draft else None)

    def prepare_decoded(self, decoded: Decoded) -> Prepared:
        """Check and resize an image: float32 `(1, h, w, 3)` in [0, 1], and True.

        Raises:
            InputError: float pixels outside [0, 1].
        """
        pixels, white = decoded.pixels[None], 255
        if pixels.dtype != np.uint8:
            pixels, white = np.ascontiguousarray(pixels, dtype=np.float32), 1
            low, high = float(pixels.min()), float(pixels.max())
            if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
                raise InputError(f"a float image must lie in [0, 1]; it spans [{low:.4g}, {high:.4g}]")
        height, width = self.preprocess.size_for(*(decoded.size or pixels.shape[1:3]))
        if pixels.shape[1] > (lines := max(1, _PIECE_PIXELS // pixels.shape[2])):
            # Rows are narrowed in pieces, several at once, and a large picture is never held whole as floats.
            pieces = (pixels[:, start : start + lines] for start in range(0, pixels.shape[1], lines))
            narrowed = load_ahead(lambda piece: self._resize(piece, piece.shape[1], width), pieces)
            pixels = np.concatenate(list(narrowed), axis=1)
        return self._resize(pixels, height, width) / np.float32(white), True

    def _resize(self, pixels: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
        """Resize `(1, H, W, 3)` pixels, which stay in their range."""
        resizer = self._resizers["uint8" if pixels.dtype == np.uint8 else "float"]
        given = {"image": np.ascontiguousarray(pixels), "size": np.array([1, height, width, 3], np.int64)}
        resized: NDArray[np.float32] = resizer.run(None, given)[0]
        return resized

    def score_prepared(self, window: list[Prepared]) -> NDArray[np.float32]:
        """Score resized images one after the other; NaN where there is none."""
        low, high = self.score_range
        scores = np.full(len(window), np.nan, np.float32)
        for place, (pixels, valid) in enumerate(window):
            if valid:
                scores[place] = low + (high - low) * self._network.run(None, {"pixels": pixels})[0][0]
        return scores

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
        threads: that the network computes on; None means one a core.

    Raises:
        InputError: onnxruntime is not installed.
        UnknownModelError, WeightsError: see `leafiqa.create_metric`.
    """
    need("onnxruntime")
    file, card = resolve(name, weights)
    graph, tensors = network_of(file, card)
    return OnnxMetric(card, open_session(graph, weights=tensors, threads=threads), draft=draft)
