"""What a metric says of a large picture's details: windows of it, looked at as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names of columns are made from this, before anything heavy is imported
    import numpy as np
    from numpy.typing import NDArray

# Four windows of this many pixels along a side are as many pixels as one look of 384x384, as `leaf` takes it.
SIDE, COUNT = 192, 4
# From this many times the pixels of a look on (half as large again along each side) a picture has details of its own.
LARGER = 2.25
# Sides of windows are multiples of this, as those of looks are.
MULTIPLE = 32


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Defects of single pixels, which a look at a large picture reduced cannot see, and what the windows' severities make
# together. A picture is as sharp as it is anywhere: what lies before or behind the plane of focus is no fault.
_TOGETHER: dict[str, Callable[[Sequence[float]], float]] = {
    "blur": min,
    "motion": min,
    "noise": _mean,
    "compression": _mean,
}


def window_size(size: tuple[int, int], look: tuple[int, int]) -> tuple[int, int] | None:
    """Return height and width of windows of a picture, None where it is hardly larger than the look at it.

    Args:
        size: height and width of the picture.
        look: height and width that it is looked at.
    """
    if size[0] * size[1] < LARGER * look[0] * look[1] or min(size) < MULTIPLE:
        return None
    return min(SIDE, size[0] // MULTIPLE * MULTIPLE), min(SIDE, size[1] // MULTIPLE * MULTIPLE)


@dataclass(frozen=True)
class Window:
    """One window of a picture, at full size.

    Attributes:
        top: its first row in the picture.
        left: its first column.
        score: the metric's, of the window as a picture by itself.
        defects: severity of each defect of single pixels, 0 not seen, 1 slight, 2 clear, 3 severe; the most severe
            first.
        pixels: `(h, w, 3)` uint8.
    """

    top: int
    left: int
    score: float
    defects: dict[str, float]
    pixels: NDArray[np.uint8] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pixels, ready for JSON."""
        height, width = self.pixels.shape[:2]
        return {
            "top": self.top,
            "left": self.left,
            "height": height,
            "width": width,
            "score": round(self.score, 6),
            "defects": {name: round(severity, 3) for name, severity in self.defects.items()},
        }


@dataclass(frozen=True)
class Details:
    """What a metric says of a picture's details.

    Attributes:
        score: mean score of the windows, each as a picture by itself. For comparing pictures of one subject and size
            with each other, a burst for instance: beside the picture's own score it says nothing.
        defects: severity of each defect of single pixels, the most severe first: of blur and motion that of the best
            window, of noise and compression the mean.
        size: height and width of the picture.
        windows: what was looked at, where most structure is first.
    """

    score: float
    defects: dict[str, float]
    size: tuple[int, int]
    windows: list[Window]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pixels, ready for JSON."""
        return {
            "score": round(self.score, 6),
            "defects": {name: round(severity, 3) for name, severity in self.defects.items()},
            "size": list(self.size),
            "windows": [window.to_dict() for window in self.windows],
        }


def of_single_pixels(defects: Iterable[str]) -> list[str]:
    """Return those defects that a window tells of, of all that a student knows, in their order."""
    return [name for name in defects if name in _TOGETHER]


def details_of(windows: Sequence[Window], size: tuple[int, int]) -> Details:
    """Put together what a student sees of a picture's windows.

    Args:
        windows: at least one.
        size: height and width of the picture.
    """
    known = {name: _TOGETHER[name]([window.defects[name] for window in windows]) for name in windows[0].defects}
    return Details(
        score=_mean([window.score for window in windows]),
        defects=dict(sorted(known.items(), key=lambda item: -item[1])),
        size=size,
        windows=list(windows),
    )
