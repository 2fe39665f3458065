"""Resizing on a CPU where no gradient is wanted: each line of the result is a weighted sum of a few lines.

Sums of rows with weights are what embedding bags of recommender systems are made of; torch's kernel for these takes an
eighth of the time of its antialiased resizing. Rows of pixels are summed to a lower image, which is transposed, so that
what were columns are rows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

# Rows are summed in parts of so many numbers, at most, and a multiple of the smaller one but for narrow images: the
# kernel is compiled for each length that it meets, and kept until the process ends.
_LONGEST, _STEP = 2048, 64
# Numbers that are summed at a time (4 MiB): they stay in the processor's cache, and the C library keeps their memory.
_AT_A_TIME = 1024 * 1024
# Weights of longer sides are made anew, and a folder has few other sizes.
_KEPT, _LONGEST_KEPT = 32, 8192
# Of a longer side the weights would take more memory than the image.
LONGEST_SIDE = 1 << 18


def _make_sums(size_in: int, size_out: int) -> tuple[Tensor, Tensor]:
    scale = size_in / size_out
    support = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale
    first = np.maximum(np.ceil(centres - support - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(centres + support - 0.5), size_in - 1).astype(np.int64)
    lines = first[:, None] + np.arange(int((last - first).max()) + 1)
    weights = np.clip(1 - np.abs(lines + 0.5 - centres[:, None]) / support, 0, None) * (lines <= last[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    # A line beyond the end has no weight: any other may stand in its place.
    lines = np.minimum(lines, last[:, None])
    return torch.from_numpy(lines), torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=_KEPT)
def _kept_sums(size_in: int, size_out: int) -> tuple[Tensor, Tensor]:
    # Tensors made under inference mode could not be used outside of it everywhere.
    with torch.inference_mode(False):
        return _make_sums(size_in, size_out)


def _parts(width: int) -> list[tuple[int, int]]:
    """Return where the parts of a row begin and end; the last one may overlap with the one before it."""
    if width < _STEP:
        return [(0, width)]
    whole = width // _STEP * _STEP
    parts = [(start, min(start + _LONGEST, whole)) for start in range(0, whole, _LONGEST)]
    return parts if whole == width else [*parts, (width - _STEP, width)]


def _shortened(rows: Tensor, size: int) -> list[tuple[int, int, Tensor]]:
    """Resize along the first dimension.

    Args:
        rows: `(n, k)`, of any dtype and layout.
        size: rows that it shall have.

    Returns:
        Parts `(start, stop, values)` of the result, `(size, stop - start)` float32 each, in `rows`' range.
    """
    count, width = rows.shape
    if count == size:
        return [(0, width, rows.float())]
    lines, weights = (_kept_sums if count <= _LONGEST_KEPT else _make_sums)(count, size)
    found = []
    for start, stop in _parts(width):
        # As many sums at a time as their lines fit.
        several = max(1, _AT_A_TIME // (stop - start) * size // count - lines.shape[1])
        made = []
        for begin in range(0, size, several):
            end = min(begin + several, size)
            low, high = int(lines[begin, 0]), int(lines[end - 1, -1]) + 1
            piece = rows[low:high, start:stop].float().contiguous()
            made.append(
                nn.functional.embedding_bag(
                    lines[begin:end] - low, piece, per_sample_weights=weights[begin:end], mode="sum"
                )
            )
        found.append((start, stop, made[0] if len(made) == 1 else torch.cat(made)))
    return found


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
    parts = _shortened(across, second)
    if len(parts) == 1:
        return parts[0][2].view(second * group, first)
    made = torch.empty(second, group * first, dtype=torch.float32, device="cpu")
    for start, stop, values in parts:
        made[:, start:stop].copy_(values)
    return made.view(second * group, first)


def resize_by_sums(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images on the CPU, without gradients; values stay in their range.

    Args:
        images: `(B, 3, H, W)`, of any dtype and layout, sides of at most `LONGEST_SIDE`.
        height: output height in pixels, at least 1.
        width: output width in pixels, at least 1.

    Returns:
        `(B, 3, height, width)` float32 of its own memory; channels-last where `images` are, but for narrow strips.
    """
    count, _, high, wide = images.shape
    last = images.permute(0, 2, 3, 1)
    # The order that leaves less in between, where it is much less, as of a strip of one pixel's height.
    height_first = height * wide <= 4 * high * width
    if height_first and last.is_contiguous():
        made = torch.empty(count, height, width * 3, dtype=torch.float32, device="cpu")
        for image, place in zip(last, made):
            place.copy_(_resize_plane(image.reshape(high, wide * 3), height, width, 3).t())
        return made.view(count, height, width, 3).permute(0, 3, 1, 2)
    out = torch.empty(count, 3, height, width, dtype=torch.float32, device="cpu")
    for plane, place in zip(images.flatten(0, 1), out.flatten(0, 1)):
        if height_first:
            place.copy_(_resize_plane(plane, height, width).t())
        else:
            place.copy_(_resize_plane(plane.t(), width, height))
    return out
