"""A convolution's weights in the order in which oneDNN's kernels read them, kept instead of made for each picture.

Which order that is depends on the kernel, thus on the size of the features and on how many threads compute. Weights in
torch's order are put into it in each call, which a small network feels. Weights in the order of another size are put
right, too, but slowly; so there are some for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Orders kept of one convolution, each of which takes the memory of its weights: so many, and more of small weights, as
# long as all take no more bytes. Sizes remembered to be met again.
_MOST, _MOST_OF_SMALL, _BYTES = 6, 64, 1 << 20
_MOST_MET = 64
_TOLERANCE = 1e-4

Convolve = Callable[[Tensor], Tensor]


class PackedWeights:
    """The orders of one convolution's weights that were needed more than once.

    The first picture of a size is computed with the weights as they are: there may be no other. With the second one an
    order is made, and kept if it gives the same, as long as there is room. Copies and pickles start with none.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[int, ...], Tensor | None] = {}
        self._met: set[tuple[int, ...]] = set()

    def __deepcopy__(self, memo: Any) -> PackedWeights:
        return PackedWeights()

    def __reduce__(self) -> tuple[type[PackedWeights], tuple[()]]:
        return PackedWeights, ()

    def convolve(
        self,
        features: Tensor,
        weight: Tensor,
        geometry: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int],
        convolve: Convolve,
    ) -> Tensor:
        """Return what `convolve` makes with the weights in the best order there is.

        Args:
            features: `(B, C, h, w)` float32, channels-last, on the CPU.
            weight: the weights, in torch's order; always the same ones, but for one line of zeros more.
            geometry: padding, stride, dilation and groups.
            convolve: given weights, convolves these features with them.
        """
        # Of one pixel's kernels the order does not depend on where the pixels lie.
        pixels = features.shape[2:] if weight.shape[2:].numel() > 1 else (features.shape[2:].numel(),)
        key = (torch.get_num_threads(), features.shape[0], *weight.shape[2:], *geometry[0], *pixels)
        if key in self._of:
            packed = self._of[key]
            return convolve(weight if packed is None else packed)
        made = convolve(weight)
        if len(self._of) >= max(_MOST, min(_MOST_OF_SMALL, _BYTES // weight.nbytes)):
            return made
        if key in self._met:
            self._of[key] = _packed(features, weight, geometry, convolve, made)
            self._met.discard(key)
        elif len(self._met) < _MOST_MET:
            self._met.add(key)
        else:
            self._met.clear()
        return made


def _packed(features: Tensor, weight: Tensor, geometry: Any, convolve: Convolve, expected: Tensor) -> Tensor | None:
    """Return the weights in the order for these features; None where that is not offered, or gives something else."""
    padding, stride, dilation, groups = geometry
    try:
        packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            weight.to_mkldnn(), padding, stride, dilation, groups, list(features.shape)
        )
        made = convolve(packed)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return None
    # `allclose`, with one array in between instead of five, which take longer than both convolutions.
    beyond = made.sub_(expected).abs_().sub_(expected.abs(), alpha=_TOLERANCE)
    return packed if float(beyond.amax()) <= _TOLERANCE else None
