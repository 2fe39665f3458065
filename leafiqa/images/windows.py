"""Places in a picture that are worth a close look: where its structure is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A window's centre is at least this share of the picture's height and width from that of any other.
_APART = 1 / 6
# And it has at least this share of the first window's structure: an empty wall is neither in focus nor out of it.
_LEAST = 0.2


def places_of_structure(
    look: NDArray[np.float32], size: tuple[int, int], window: tuple[int, int], count: int
) -> list[tuple[int, int]]:
    """Choose windows of a large picture where a reduced copy of it has most structure.

    The copy decides, not the picture itself: noise, which is finer, attracts no window, and a picture that is out of
    focus a little has the windows that it would have in focus. Of one that is in focus in a part, that part has most.

    Args:
        look: `(h, w, 3)`, the whole picture reduced.
        size: height and width of the picture.
        window: height and width of a window, in pixels of the picture; no larger than it.
        count: windows.

    Returns:
        Top and left of each window, in pixels of the picture, that of most structure first; fewer where no more fit,
        or the rest of the picture is empty.
    """
    grey = look.mean(axis=2, dtype=np.float64)
    steps = np.zeros_like(grey)
    steps[:-1] += np.abs(np.diff(grey, axis=0))
    steps[:, :-1] += np.abs(np.diff(grey, axis=1))
    box = [min(side, max(1, round(part * side / whole))) for part, side, whole in zip(window, grey.shape, size)]
    sums = np.pad(steps, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    tall, wide = box
    structure = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    near = [max(part, round(_APART * side)) for part, side in zip(box, grey.shape)]
    least = _LEAST * structure.max()
    found: list[tuple[int, int]] = []
    while len(found) < count and structure.max() >= least:
        row, column = (int(place) for place in np.unravel_index(int(structure.argmax()), structure.shape))
        # From the corner of a box in the copy to that of a window in the picture, which both reach to the last pixel.
        down, across = (max(1, side - 1) for side in structure.shape)
        found.append((round(row * (size[0] - window[0]) / down), round(column * (size[1] - window[1]) / across)))
        rows = slice(max(0, row - near[0] + 1), row + near[0])
        structure[rows, max(0, column - near[1] + 1) : column + near[1]] = -np.inf
    return found
