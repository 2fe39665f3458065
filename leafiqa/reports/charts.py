"""Geometry of a page's charts: where marks go, in the coordinates of an SVG; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_BINS = 48


@dataclass(frozen=True)
class Axis:
    """A linear axis from values to pixels.

    Attributes:
        low: value at the left, or bottom, end.
        high: value at the other end.
        start: pixel of `low`.
        end: pixel of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return pixel and label of round values."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 2))
        for factor in (1, 2, 5, 10):
            if (self.high - self.low) / (step * factor) <= 6:
                step *= factor
                break
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        values = [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(self(value), f"{value:.{digits}f}") for value in values]


def axis_over(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis that holds all finite values, with a little room at both ends."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = 0.04 * (high - low) or max(0.05 * abs(high), 0.05)
    return Axis(low - room, high + room, start, end)


@dataclass(frozen=True)
class Distribution:
    """The shape of some scores.

    Attributes:
        name: whose they are.
        path: an SVG path of the outline.
        median: its pixel.
        worst: pixel of the value that 5 % are below.
        words: the same for those who cannot see it.
    """

    name: str
    path: str
    median: float
    worst: float
    words: str


def distribution(name: str, scores: Array, axis: Axis, height: float) -> Distribution:
    """Return the outline of a histogram on an axis that several share.

    Args:
        name: whose scores they are.
        scores: `(n,)`, finite, at least one.
        axis: of the scores.
        height: of the tallest bar, in pixels.
    """
    counts, edges = np.histogram(scores, bins=_BINS, range=(axis.low, axis.high))
    top = max(1, int(counts.max()))
    points = [f"M{axis(float(edges[0]))},{height}"]
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist()):
        y = round(height * (1 - count / top), 1)
        points.append(f"L{axis(left)},{y}L{axis(right)},{y}")
    points.append(f"L{axis(float(edges[-1]))},{height}Z")
    low, middle, high = np.percentile(scores, [5, 50, 95]).tolist()
    words = f"{name}: {len(scores)} scores, median {middle:.3f}, 5 % below {low:.3f}, 5 % above {high:.3f}"
    return Distribution(name, "".join(points), axis(middle), axis(low), words)


@dataclass(frozen=True)
class Curve:
    """A line with marks.

    Attributes:
        name: whose it is.
        points: pixels of the marks.
        dash: pattern of the line, so that lines differ without colour.
        label_y: where its name stands, so that names do not overlap.
        words: the values for those who cannot see it.
    """

    name: str
    points: list[tuple[float, float]]
    dash: str
    label_y: float
    words: str


@dataclass(frozen=True)
class Curves:
    """Best-of-N curves of several generators on common axes."""

    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: float = 640
    height: float = 300


_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "14 4", "4 2 1 2", "1 4", "12 2 2 2")
_LABEL = 15.0


def draw_curves(
    values: Sequence[tuple[str, Sequence[tuple[int, float]]]], width: float = 640, height: float = 300
) -> Curves:
    """Return best-of-N curves; N is on a logarithmic axis.

    Args:
        values: name, and pairs of N and mean score, for each generator.
        width: of the chart, in pixels.
        height: likewise.
    """
    means = [mean for _, of in values for _, mean in of]
    most = max(n for _, of in values for n, _ in of)
    y = axis_over(means, height - 34, 10)
    x = Axis(0.0, max(math.log2(most), 1e-9), 50, width - 150)
    ends = sorted(range(len(values)), key=lambda i: y(values[i][1][-1][1]))
    labels: dict[int, float] = {}
    lowest = -math.inf
    for i in ends:
        lowest = max(y(values[i][1][-1][1]) + 4, lowest + _LABEL)
        labels[i] = round(lowest, 1)
    made = []
    for i, (name, of) in enumerate(values):
        points = [(x(math.log2(n)), y(mean)) for n, mean in of]
        words = f"{name}: " + ", ".join(f"best of {n} {mean:.3f}" for n, mean in of)
        made.append(Curve(name, points, _DASHES[i % len(_DASHES)], labels[i], words))
    ticks = sorted({n for _, of in values for n, _ in of})
    shown = [n for n in ticks if n & (n - 1) == 0 or n == most]
    return Curves(made, [(x(math.log2(n)), str(n)) for n in shown], y.ticks(), width, height)


@dataclass(frozen=True)
class Whisker:
    """A mean with its interval, on an axis that the rows of a table share."""

    middle: float
    low: float
    high: float
    words: str


@dataclass
class Whiskers:
    """Means with intervals, by name; the axis they share."""

    by_name: dict[str, Whisker] = field(default_factory=dict)
    ticks: list[tuple[float, str]] = field(default_factory=list)
    width: float = 260


def whiskers(values: Sequence[tuple[str, float, tuple[float, float]]], width: float = 260) -> Whiskers:
    """Return marks for means with intervals; those without a mean get none."""
    axis = axis_over([end for _, mean, ends in values for end in (mean, *ends)], 8, width - 8)
    found = Whiskers(ticks=axis.ticks(), width=width)
    for name, mean, (low, high) in values:
        if not math.isfinite(mean):
            continue
        known = math.isfinite(low) and math.isfinite(high)
        words = f"{mean:.3f}, 95 % interval {low:.3f} to {high:.3f}" if known else f"{mean:.3f}, no interval"
        found.by_name[name] = Whisker(axis(mean), axis(low if known else mean), axis(high if known else mean), words)
    return found
