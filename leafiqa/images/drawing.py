"""Draw what a metric says of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# From bad to good, told apart in any kind of colour vision: orange, pale, blue (after ColorBrewer's PuOr).
_COLOURS = np.array([(179, 88, 6), (241, 163, 64), (247, 247, 247), (153, 142, 195), (84, 39, 136)], np.float32)
_SIDE = 480
_MARGIN = 16
_LINE = 22
_TEXT = (30, 30, 30)
_BAR = (179, 88, 6)
_SHOWN = 6
# Room for words under a narrow window.
_CAPTION = 170


def colours_of(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Return `(h, w, 3)` colours of `(h, w)` values between `low` and `high`."""
    place = ((values - low) / (high - low)).clip(0, 1) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    return np.stack([np.interp(place, steps, _COLOURS[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def overlay(pixels: NDArray[np.uint8], values: NDArray[np.float32], low: float, high: float) -> Image.Image:
    """Lay a map over a picture: its colours over the picture's light and shade.

    Args:
        pixels: `(H, W, 3)`.
        values: `(h, w)`, over the whole picture.
        low: the value of the first colour.
        high: the value of the last colour.
    """
    image = Image.fromarray(pixels)
    colours = Image.fromarray(colours_of(values, low, high)).resize(image.size, Image.Resampling.BICUBIC)
    return Image.blend(image.convert("L").convert("RGB"), colours, 0.55)


def draw_explanation(
    pixels: NDArray[np.uint8],
    values: NDArray[np.float32],
    score_range: tuple[float, float],
    title: str,
    defects: dict[str, float],
    close: str,
    windows: Sequence[tuple[float, float, NDArray[np.uint8], str]],
) -> Image.Image:
    """Draw a picture, the map over it, a line of text, the most severe defects as bars, and windows at full size.

    Args:
        pixels: `(H, W, 3)`.
        values: `(h, w)` scores by place.
        score_range: lowest and highest possible score.
        title: the line of text.
        defects: severities in [0, 3] by name, the most severe first.
        close: a line of text on the windows.
        windows: of each where it begins, as shares of the picture's height and width, its pixels, and words on it;
            none where there are no details.
    """
    picture = Image.fromarray(pixels)
    factor = min(_SIDE / picture.width, _SIDE / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    # Colours over the values that there are, so that small differences show; the legend says which they are.
    low, high = float(values.min()), float(values.max())
    if high - low < 0.02 * (score_range[1] - score_range[0]):
        middle, least = (low + high) / 2, 0.01 * (score_range[1] - score_range[0])
        low, high = middle - least, middle + least
    shown = list(defects.items())[:_SHOWN]
    across = _MARGIN + sum(max(part.shape[1], _CAPTION) + _MARGIN for _, _, part, _ in windows)
    down = max((part.shape[0] + 2 * _LINE + _MARGIN for _, _, part, _ in windows), default=0)
    width = max(3 * _MARGIN + 2 * size[0], 640, across)
    height = 4 * _MARGIN + size[1] + _LINE * (2 + len(shown)) + down
    page = Image.new("RGB", (width, height), (255, 255, 255))
    page.paste(picture.resize(size, Image.Resampling.LANCZOS), (_MARGIN, _MARGIN))
    laid = overlay(pixels, values, low, high).resize(size, Image.Resampling.LANCZOS)
    page.paste(laid, (2 * _MARGIN + size[0], _MARGIN))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    top = 2 * _MARGIN + size[1]
    draw.text((_MARGIN, top), title, _TEXT, font)
    _legend(page, draw, font, top + _LINE, low, high)
    for number, (name, severity) in enumerate(shown):
        line = top + _MARGIN + _LINE * (2 + number)
        draw.text((_MARGIN, line), name, _TEXT, font)
        draw.rectangle((120, line + 3, 120 + round(severity * 120), line + 15), _BAR)
        draw.text((128 + round(severity * 120), line), f"{severity:.1f}", _TEXT, font)
    left, top = _MARGIN, height - down
    if windows:
        draw.text((left, top), f"{close} (each number stands in its window's corner)", _TEXT, font)
    for number, (row, column, part, words) in enumerate(windows, 1):
        corner = (_MARGIN + round(column * size[0]), _MARGIN + round(row * size[1]))
        _numbered(draw, font, corner, number)
        page.paste(Image.fromarray(part), (left, top + _LINE))
        _numbered(draw, font, (left, top + _LINE), number)
        draw.text((left, top + _LINE + part.shape[0]), words, _TEXT, font)
        left += max(part.shape[1], _CAPTION) + _MARGIN
    return page


def _numbered(draw: ImageDraw.ImageDraw, font: object, corner: tuple[int, int], number: int) -> None:
    """Mark a window by its number at its upper left corner."""
    left, top = corner
    draw.rectangle((left, top, left + 14, top + 16), (255, 255, 255), _TEXT)
    draw.text((left + 3, top), str(number), _TEXT, font)  # type: ignore[arg-type]


def _legend(page: Image.Image, draw: ImageDraw.ImageDraw, font: object, top: int, low: float, high: float) -> None:
    ramp = np.linspace(low, high, 160, dtype=np.float32)[None].repeat(12, axis=0)
    draw.text((_MARGIN, top), f"map: {low:.2f}", _TEXT, font)  # type: ignore[arg-type]
    page.paste(Image.fromarray(colours_of(ramp, low, high)), (120, top + 3))
    draw.text((288, top), f"{high:.2f}", _TEXT, font)  # type: ignore[arg-type]
