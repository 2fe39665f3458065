"""Contact sheets: several images in one view, scored and ranked in one call. Cheap, for hosted models billed by call.

Judgments of one sheet share its context, so each carries the sheet's name as its `view`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from leafiqa.errors import TeacherError

_LABEL = 22
_GAP = 8


def fit_within(image: Image.Image, side: int | None) -> Image.Image:
    """Return an image made smaller to at most this side, its aspect ratio kept; never larger, and None leaves it be."""
    if side is None or max(image.size) <= side:
        return image
    smaller = image.copy()
    smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
    return smaller


def largest_cell(count: int, side: int) -> int:
    """Return the side of a cell with which a sheet of `count` images is at most `side` wide and high, in pixels."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    return max(1, min((side - _GAP) // columns - _GAP, (side - _GAP) // rows - _GAP - _LABEL))


def compose(images: Sequence[Image.Image], cell: int) -> Image.Image:
    """Return a sheet of images, numbered from 1 in reading order, on grey.

    Args:
        images: from two on; each is made to fit into its cell with its aspect ratio kept, and never enlarged, since
            enlarging looks like blur.
        cell: side of a cell, in pixels.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = cell + _GAP, cell + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), (128, 128, 128))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for number, image in enumerate(images):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        shown = fit_within(image, cell)
        draw.text((left + cell / 2, top + _LABEL / 2), str(number + 1), fill="white", font=font, anchor="mm")
        sheet.paste(shown, (left + (cell - shown.width) // 2, top + _LABEL + (cell - shown.height) // 2))
    return sheet


def read_sheet(found: dict[str, Any], count: int) -> tuple[list[float], list[float | None], list[int] | None]:
    """Return the scores, confidences and ranking (places from 0, best first) that an answer on a sheet holds.

    Raises:
        TeacherError: a score is missing or out of range; one sheet of nine with eight scores says that the model lost
            count, so none of them is trusted.
    """
    scores = _each(found.get("scores"), count, "scores", 0, 100)
    confidences = found.get("confidences")
    stated = [None] * count if confidences is None else _each(confidences, count, "confidences", 0, 1)
    ranking = found.get("ranking")
    if ranking is None:
        return scores, list(stated), None
    try:
        places = [int(number) - 1 for number in ranking]
    except (TypeError, ValueError) as error:
        raise TeacherError(f"ranking must be a list of numbers, the answer says {ranking!r}") from error
    if sorted(places) != list(range(count)):
        raise TeacherError(f"ranking must hold each of 1 to {count} once, the answer says {ranking!r}")
    return scores, list(stated), places


def _each(value: Any, count: int, name: str, low: float, high: float) -> list[float]:
    if isinstance(value, dict):
        value = [value.get(str(number)) for number in range(1, count + 1)]
    if not isinstance(value, list) or len(value) != count:
        raise TeacherError(f"{name} must hold {count} numbers, the answer says {str(value)[:120]}")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not low <= one <= high:
            raise TeacherError(f"{name} must be numbers from {low:g} to {high:g}, the answer says {one!r}")
    return [float(one) for one in value]


def deal(names: Sequence[str], counts: Sequence[int], side: int, repeat: int, seed: int) -> list[tuple[str, ...]]:
    """Deal images to sheets so that each has been on `repeat` sheets in the end.

    Each further round is shuffled anew, so that an image meets other company and stands elsewhere. A last image alone
    joins the sheet before it.

    Args:
        names: the images.
        counts: on how many sheets each has been judged before.
        side: images along a side of a sheet.
        repeat: sheets for each image.
        seed: seeds the shuffling.
    """
    sheets: list[tuple[str, ...]] = []
    for number in range(repeat):
        left = [name for name, count in zip(names, counts) if count <= number]
        order = np.random.default_rng([seed, number, len(left)]).permutation(len(left))
        shuffled = [left[i] for i in order]
        cut = [tuple(shuffled[i : i + side * side]) for i in range(0, len(shuffled), side * side)]
        if len(cut) > 1 and len(cut[-1]) == 1:
            cut[-2:] = [cut[-2][:-1], (cut[-2][-1], *cut[-1])]
        sheets += cut
    return sheets
