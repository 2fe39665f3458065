"""Resizing on a CPU where no gradient is wanted: each line of the result is a weighted sum of a few lines.

Sums of rows with weights are what embedding bags of recommender systems are made of; torch's kernel for these takes a
fraction of the time of its antialiased resizing. Rows of pixels are summed to a lower image, which is transposed, so
that what were columns are rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from leafiqa.images.row_weights import height_first, sums_of_lines

# Rows are summed in parts of so many numbers, at most, and a multiple of the smaller one but for narrow images: the
# kernel is compiled for each length that it meets, and kept until the process ends.
_LONGEST, _STEP = 2048, 64
# Numbers that are summed at a time (4 MiB): they stay in the processor's cache, and the C library keeps their memory.
_AT_A_TIME = 1024 * 1024


def _parts(width: int) -> list[tuple[int, int]]:
    """Return where the parts of a row begin and end; the last one may overlap with the one before it."""
    if width < _STEP:
        return [(0, width)]
    whole = width // _STEP * _STEP
    parts = [(start, min(start + _LONGEST, whole)) for start in range(0, whole, _LONGEST)]
    return parts if whole == width else [*parts, (width - _STEP, width)]


def _shortened(rows: Tensor, size: int) -> Iterator[tuple[int, int, Tensor]]:
    """Resize along the first dimension.

    Args:
        rows: `(n, k)`, of any dtype and layout.
        size: rows that it shall have.

    Yields:
        Parts `(start, stop, values)` of the result, `(size, stop - start)` float32 each, in `rows`' range.
    """
    for start, stop in _parts(rows.shape[1]):
        if len(rows) == size:
            yield start, stop, rows[:, start:stop].float()
            continue
        made = []
        for sums in sums_of_lines(len(rows), size, _AT_A_TIME // (stop - start)):
            lines, weights = torch.from_numpy(sums.lines), torch.from_numpy(sums.weights)
            piece = rows[sums.low : sums.high, start:stop].float().contiguous()
            made.append(nn.functional.embedding_bag(lines, piece, per_sample_weights=weights, mode="sum"))
        yield start, stop, made[0] if len(made) == 1 else torch.cat(made)


def _resize_plane(plane: Tensor, first: int, second: int, group: int = 1) -> Tensor:
    """Resize along the first dimension, then along the other one.

    Args:
        plane: `(n, k * group)`, of any dtype and layout; `group` neighbours belong together, as colours of a pixel do.
        first: what `n` shall be.
        second: what `k` shall be.
        group: how many neighbours belong together.

    Returns:
        `(second * group, first)` float32, transposed.
    """
    turned = torch.empty(plane.shape[1], first, dtype=torch.float32, device="cpu")
    for start, stop, values in _shortened(plane, first):
        turned[start:stop].copy_(values.t())
    across = turned.view(plane.shape[1] // group, group * first)
    if len(across) == second:
        return turned
    made = torch.empty(second, group * first, dtype=torch.float32, device="cpu")
    for start, stop, values in _shortened(across, second):
        if stop - start == group * first:
            return values.view(second * group, first)
        made[:, start:stop].copy_(values)
    return made.view(second * group, first)


def resize_by_sums(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images on the CPU, without gradients; values stay in their range.

    Args:
        images: `(B, 3, H, W)`, of any dtype and layout.
        height: output height in pixels, at least 1.
        width: output width in pixels, at least 1.

    Returns:
        `(B, 3, height, width)` float32 of its own memory; channels-last where `images` are, but for narrow strips.
    """
    count, _, high, wide = images.shape
    last = images.permute(0, 2, 3, 1)
    downwards = height_first(high, wide, height, width)
    if downwards and last.is_contiguous():
        made = torch.empty(count, height, width * 3, dtype=torch.float32, device="cpu")
        for image, place in zip(last, made):
            place.copy_(_resize_plane(image.reshape(high, wide * 3), height, width, 3).t())
        return made.view(count, height, width, 3).permute(0, 3, 1, 2)
    out = torch.empty(count, 3, height, width, dtype=torch.float32, device="cpu")
    for image, places in zip(images, out):
        for plane, place in zip(image, places):
            if downwards:
                place.copy_(_resize_plane(plane, height, width).t())
            else:
                place.copy_(_resize_plane(plane.t(), width, height))
    return out
