"""Batch-norm folding while training: the same function and gradients, about a fifth faster on a CPU.

The student's batch normalisation keeps its statistics, so it is a fixed scale and shift for each channel. Applied to
the convolution's weights, which are small, instead of to its output, which is large, it costs next to nothing, and
gradients still reach the convolution's weight and the normalisation's scale and shift as before.
"""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leafiqa.model.fused_network import convolutions_before


def fold_batch_norm(backbone: nn.Module, example: Tensor) -> int:
    """Make a backbone in evaluation-mode batch normalisation compute the same with fewer operations.

    Parameters and state dict stay as they are; only the `forward` of the modules concerned is replaced, for good.
    Fold after copying: a deep copy of a folded backbone would share its weights.

    Args:
        backbone: a timm backbone.
        example: an input `(B, 3, h, w)`.

    Returns:
        The number of normalisations folded.
    """
    pairs = convolutions_before(backbone, example)
    for convolution, norm in pairs:
        convolution.forward = types.MethodType(_folded_forward(norm), convolution)  # type: ignore[method-assign]
        norm.forward = types.MethodType(_activation_only, norm)  # type: ignore[method-assign]
    return len(pairs)


def _folded_forward(norm: _BatchNorm) -> Callable[[nn.Conv2d, Tensor], Tensor]:
    def forward(self: nn.Conv2d, images: Tensor) -> Tensor:
        scale = torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator, arg-type]
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -norm.running_mean * scale if self.bias is None else (self.bias - norm.running_mean) * scale  # type: ignore[operator]
        shift = shift if norm.bias is None else shift + norm.bias
        padding: str | int | tuple[int, ...] = self.padding
        if type(self).__name__ == "Conv2dSame":
            images = pad_same(images, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
            padding = 0
        weight = self.weight * scale[:, None, None, None]
        return nn.functional.conv2d(images, weight, shift, self.stride, padding, self.dilation, self.groups)

    return forward


def _activation_only(self: nn.Module, features: Tensor) -> Tensor:
    # timm's BatchNormAct2d holds its activation; a plain one has none.
    for name in ("drop", "act"):
        following = getattr(self, name, None)
        features = features if following is None else following(features)
    return features
