"""What a metric says of one picture beside its score: how sure, what is wrong, and where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leafiqa.details import Details
from leafiqa.images.drawing import draw_explanation
from leafiqa.model.aspects import NINETY

if TYPE_CHECKING:
    from PIL import Image

_WORDS = ("not seen", "slight", "clear", "severe")
# From this severity on a defect is worth a word.
SEEN = 0.5


def seen_of(defects: Mapping[str, float]) -> dict[str, float]:
    """Return the defects that are at least slight."""
    return {name: severity for name, severity in defects.items() if severity >= SEEN}


def in_words(defects: Mapping[str, float]) -> str:
    """Return the defects that are at least slight as words: "blur severe (2.8), noise slight (0.6)"."""
    told = [f"{name} {_WORDS[min(3, round(of))]} ({of:.1f})" for name, of in seen_of(defects).items()]
    return ", ".join(told) or "no defects seen"


@dataclass(frozen=True)
class Explanation:
    """What a metric says of one picture.

    Attributes:
        score: the score, as the metric itself gives it.
        standard_error: of the score, in its units.
        interval: lowest and highest score within which nine in ten of such pictures lie: their scores by the teacher,
            or by people where the metric was calibrated to them.
        defects: severity of each defect by name, 0 not seen, 1 slight, 2 clear, 3 severe; the most severe first.
        map: `(h, w)` float32, scores by place: what a picture that looked like this throughout would score.
        score_range: lowest and highest possible score.
        pixels: `(H, W, 3)` uint8, the picture as the student looked at it.
        details: what it says of windows of the picture at full size; None where that was not asked for, or where the
            picture has too few pixels beside the look, or less than 32 along a side.
    """

    score: float
    standard_error: float
    interval: tuple[float, float]
    defects: dict[str, float]
    map: NDArray[np.float32]
    score_range: tuple[float, float]
    pixels: NDArray[np.uint8] = field(repr=False)
    details: Details | None = None

    @property
    def seen(self) -> dict[str, float]:
        """The defects that are at least slight."""
        return seen_of(self.defects)

    @property
    def worst_place(self) -> tuple[float, float]:
        """Where the picture is worst: from its top and from its left, as shares of its height and width."""
        row, column = np.unravel_index(int(self.map.argmin()), self.map.shape)
        return (float(row) + 0.5) / self.map.shape[0], (float(column) + 0.5) / self.map.shape[1]

    def picture(self) -> Image.Image:
        """Return a picture of it: the image, the map laid over it, the defects as bars, and windows of details."""
        windows = []
        if (details := self.details) is not None:
            height, width = details.size
            for one in details.windows:
                worst = in_words(one.defects).split(",")[0]  # there is room for one
                windows.append((one.top / height, one.left / width, one.pixels, worst))
        first, close = self._how_sure(), self._details_in_words()
        return draw_explanation(self.pixels, self.map, self.score_range, first, self.defects, close, windows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pixels, ready for JSON."""
        return {
            "score": round(self.score, 6),
            "standard_error": round(self.standard_error, 6),
            "interval": [round(end, 6) for end in self.interval],
            "defects": {name: round(severity, 3) for name, severity in self.defects.items()},
            "map": [[round(float(cell), 4) for cell in row] for row in self.map],
            "score_range": list(self.score_range),
            "details": None if self.details is None else self.details.to_dict(),
        }

    def _how_sure(self) -> str:
        low, high = self.interval
        return f"{self.score:.3f}, standard error {self.standard_error:.3f}, nine in ten within {low:.3f} to {high:.3f}"

    def _details_in_words(self) -> str:
        if self.details is None:
            return ""
        return f"details at full size: {in_words(self.details.defects)}; windows score {self.details.score:.3f}"

    def __str__(self) -> str:
        down, across = self.worst_place
        where = f"{('top', 'middle', 'bottom')[int(3 * down)]} {('left', 'centre', 'right')[int(3 * across)]}"
        second = f"{in_words(self.defects)}; worst at the {where}, {self.map.min():.3f}"
        return "\n  ".join(line for line in (self._how_sure(), second, self._details_in_words()) if line)


def explained(
    logit: float,
    error: float,
    severities: dict[str, float],
    cells: NDArray[np.float32],
    score_range: tuple[float, float],
    pixels: NDArray[np.uint8],
) -> Explanation:
    """Put what a student sees of one picture on the scale of its scores.

    Args:
        logit: the quality logit; its sigmoid is the score as a share of the range.
        error: its standard error.
        severities: of the defects, in any order.
        cells: `(h, w)` logits by place.
        score_range: lowest and highest possible score.
        pixels: `(H, W, 3)` uint8, the picture as the student looked at it.
    """
    low, high = score_range

    def scaled(value: float) -> float:
        return low + (high - low) / (1 + math.exp(-min(max(value, -30.0), 30.0)))

    share = (scaled(logit) - low) / (high - low)
    return Explanation(
        score=scaled(logit),
        # To first order: the slope of the sigmoid.
        standard_error=(high - low) * share * (1 - share) * error,
        interval=(scaled(logit - NINETY * error), scaled(logit + NINETY * error)),
        defects=dict(sorted(severities.items(), key=lambda item: -item[1])),
        map=(low + (high - low) / (1 + np.exp(-cells.clip(-30, 30)))).astype(np.float32),
        score_range=score_range,
        pixels=pixels,
    )
