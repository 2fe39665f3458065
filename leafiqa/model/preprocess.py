"""From pixels to the student's input. The numbers travel in the model card, never in the caller's code."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from leafiqa.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_RESIZERS = ("antialiased-triangle",)
# More pixels than any photograph that a student looks at: a card that asks for more would only use up the memory.
_MOST_AREA = 1 << 24
_DRAFT = 2


@dataclass(frozen=True)
class Preprocess:
    """How a student looks at an image.

    The whole image is resized, antialiased, to about `area` pixels with its aspect ratio kept (to the nearest
    `multiple`, and up to `max_aspect`, beyond which it is squeezed). There is no crop: each pixel counts.

    Attributes:
        area: pixels of the resized image.
        multiple: both sides of the resized image are multiples of this.
        max_aspect: longest side over shortest side that is still kept.
        mean: per-channel mean, RGB, of pixels in [0, 1].
        std: per-channel standard deviation, RGB, of pixels in [0, 1].
        filter: the resizing filter.
    """

    area: int = 320 * 320
    multiple: int = 32
    max_aspect: float = 4.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    filter: str = "antialiased-triangle"

    def __post_init__(self) -> None:
        if self.filter not in _RESIZERS:
            raise WeightsError(f"preprocess.filter must be one of {_RESIZERS}, got {self.filter!r}")
        if (
            not 1 <= self.area <= _MOST_AREA
            or not 1 <= self.multiple <= 4096
            or self.max_aspect < 1
            or min(self.std) <= 0
        ):
            raise WeightsError(f"preprocess numbers are out of range: {self.to_dict()}")

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocess:
        """Build from a card's `preprocess` entry.

        Raises:
            WeightsError: a field is unknown or out of range.
        """
        if not isinstance(fields, dict):
            raise WeightsError(f"preprocess must be an object, got {fields!r}")
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if unknown:
            raise WeightsError(
                f"preprocess has unknown fields {sorted(unknown)}; this leafiqa knows "
                f"{sorted(cls.__dataclass_fields__)}. A newer leafiqa may be needed."
            )
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        for name, value in values.items():
            if name == "filter":
                continue  # looked at when it is built
            if name in ("mean", "std"):
                good = isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))
            elif name in ("area", "multiple"):
                good = type(value) is int
            else:
                good = _is_number(value)
            if not good:
                raise WeightsError(f"preprocess.{name} is not what it should be: {value!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types that `from_dict` reads back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Return `(height, width)` of the resized image for an image of this height and width."""
        aspect = min(max(width / height, 1 / self.max_aspect), self.max_aspect)
        return tuple(
            max(1, round(side / self.multiple)) * self.multiple
            for side in (math.sqrt(self.area / aspect), math.sqrt(self.area * aspect))
        )  # type: ignore[return-value]

    def smallest_draft(self, height: int, width: int) -> tuple[int, int]:
        """Return the least height and width that an image may be decoded at, to be looked at: twice the resized ones.

        Halved twice or more an image has lost detail that resizing would have let through; see docs/speed.md.
        """
        resized = self.size_for(height, width)
        return _DRAFT * resized[0], _DRAFT * resized[1]

    def resize(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Resize `(B, 3, H, W)` images, uint8 or float in [0, 1], to float32 `(B, 3, h, w)` in [0, 1].

        Of one size to another it is a handful of matrix products, of which compiling makes nothing faster, but takes
        minutes for each size: `torch.compile` leaves it out.

        Args:
            images: the images.
            size: height and width of the whole images, where these are reduced already.
        """
        from leafiqa.model.resizing import resize_uncompiled  # torch takes a second to import

        return resize_uncompiled(images, *self.size_for(*(size or images.shape[-2:])))


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
