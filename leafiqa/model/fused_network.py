"""A student for scoring on a CPU: the same function as the one that was trained, with fewer and cheaper operations.

Batch normalisation that keeps its statistics is a fixed scale and shift: it goes into the weights of the convolution
before it. The activation that follows is computed by the convolution's own kernel while its output is still in the
processor's cache, where torch's oneDNN offers that. Tensors are channels-last, the layout that its kernels work in.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leafiqa.images.memory import keep_blocks
from leafiqa.model.packed_weights import PackedWeights
from leafiqa.model.resizing import is_plain
from leafiqa.model.student import Student

# What oneDNN calls the activations that it can apply to a convolution's output, and with which numbers.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
    nn.Identity: ("none", []),
}
# A network whose scores lie further than this from the student's is not used.
_TOLERANCE = 5e-5
_EXAMPLE = 64
_COLOURS = 3


def convolutions_before(backbone: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Return the pairs of a convolution and the batch normalisation that is applied to its very output.

    Args:
        backbone: a timm backbone.
        example: an input `(B, 3, h, w)`.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        made[id(output)] = (module, output)  # type: ignore[assignment]

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))  # type: ignore[arg-type]

    hooks = []
    for module in backbone.modules():
        if type(module).forward is nn.Conv2d.forward or type(module).__name__ == "Conv2dSame":
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            backbone(example)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


class FusedConvolution(nn.Module):
    """A convolution with the batch normalisation and the activation that follow it.

    Args:
        convolution: the convolution.
        norm: the batch normalisation after it; timm's holds its activation.
        onednn: compute the activation in oneDNN's kernel, which has no gradient; float32 on a CPU only.
    """

    weight: Tensor
    bias: Tensor
    longer: Tensor | None

    def __init__(self, convolution: nn.Conv2d, norm: _BatchNorm, onednn: bool) -> None:
        super().__init__()
        with torch.no_grad():
            scale = torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator, arg-type]
            scale = scale if norm.weight is None else scale * norm.weight
            shift = -norm.running_mean * scale  # type: ignore[operator]
            shift = shift if norm.bias is None else shift + norm.bias
            shift = shift if convolution.bias is None else shift + convolution.bias * scale
            weight = (convolution.weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", shift)
        self.geometry = (convolution.stride, convolution.dilation, convolution.groups)
        self.padding: Any = convolution.padding
        # TensorFlow's padding, which depends on the image's size: of even sides a step of two pads one line more at the
        # end than at the beginning. A kernel that begins with a line of zeros does that with equal padding, which the
        # convolution does itself: to pad first would copy the features. Of a picture's three channels to copy is less.
        self.same = type(convolution).__name__ == "Conv2dSame"
        lengthens = self.same and convolution.dilation == (1, 1) and convolution.in_channels > _COLOURS
        longer = _after_zeros(weight) if lengthens else None
        self.register_buffer("longer", longer, persistent=False)
        self.activation = nn.Sequential(
            *(one for name in ("drop", "act") if isinstance(one := getattr(norm, name, None), nn.Module))
        )
        kinds = [type(one) for one in self.activation if type(one) is not nn.Identity] or [nn.Identity]
        fits = len(kinds) == 1 and kinds[0] in _ACTIVATIONS and not isinstance(self.padding, str)
        self.kernel = _ACTIVATIONS[kinds[0]] if onednn and fits else None
        self.packed = PackedWeights()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, C', h', w')` of `(B, C, h, w)`."""
        stride, dilation, groups = self.geometry
        weight, padding = self.weight, self.padding
        if self.same:
            features, weight, padding = self._padded(features)
        if self.kernel is not None:
            name, numbers = self.kernel
            features = features.contiguous(memory_format=torch.channels_last)

            def convolve(weight: Tensor) -> Tensor:
                made: Tensor = torch.ops.mkldnn._convolution_pointwise(
                    features, weight, self.bias, padding, stride, dilation, groups, name, numbers, ""
                )
                return made

            return self.packed.convolve(features, weight, (padding, stride, dilation, groups), convolve)
        made = nn.functional.conv2d(features, weight, self.bias, stride, padding, dilation, groups)
        return self.activation(made)

    def _padded(self, features: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return features, weight and equal padding that together are TensorFlow's padding."""
        from timm.layers.padding import get_same_padding, pad_same

        stride, dilation, _ = self.geometry
        kernel = self.weight.shape[-2:]
        if not torch.jit.is_tracing():  # which is to write down how the size decides
            lines = [get_same_padding(*of) for of in zip(features.shape[-2:], kernel, stride, dilation)]
            half = ((lines[0] + 1) // 2, (lines[1] + 1) // 2)
            if all(count % 2 == 0 for count in lines):
                return features, self.weight, half
            if self.longer is not None and all(count % 2 == 1 for count in lines):
                return features, self.longer, half
        return pad_same(features, kernel, stride, dilation), self.weight, (0, 0)  # type: ignore[arg-type]


def _after_zeros(weight: Tensor) -> Tensor:
    longer = nn.functional.pad(weight, (1, 0, 1, 0))
    return longer.contiguous(memory_format=torch.channels_last)


def fuse(student: Student, onednn: bool = True) -> Student:
    """Return a copy of a student, on the CPU in evaluation mode, with its batch normalisation folded away.

    Args:
        student: the student, float32; it is left as it is.
        onednn: compute activations in oneDNN's kernels. Such a copy has no gradient.
    """
    fused = copy.deepcopy(student).to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]
    fused.aspects = None  # they have no part in the score
    # A number is taken from all values faster than one from each channel.
    for name in ("mean", "std"):
        values = getattr(fused, name)
        if bool((values == values[:, :1]).all()):
            setattr(fused, name, values[:, :1].clone())
    example = torch.zeros(1, 3, _EXAMPLE, _EXAMPLE, dtype=torch.float32, device="cpu")
    names = {id(module): name for name, module in fused.backbone.named_modules()}
    for convolution, norm in convolutions_before(fused.backbone, example):
        _replace(fused.backbone, names[id(convolution)], FusedConvolution(convolution, norm, onednn))
        _replace(fused.backbone, names[id(norm)], nn.Identity())
    return fused


def _replace(parent: nn.Module, name: str, module: nn.Module) -> None:
    path, _, last = name.rpartition(".")
    setattr(parent.get_submodule(path), last, module)


class ScoringNetwork:
    """Gives the student to score with: a fused copy where that is possible, else the student itself.

    The copy is made when it is first needed, and anew after the student's weights have changed (through `.data`, of
    which torch keeps no count, only where they lie elsewhere then). Copies and pickles of this object start without
    one.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[tuple[int, ...], Student | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget()

    def of(self, student: Student, images: Tensor) -> Student:
        """Return the student for these `(B, 3, h, w)` images: itself where gradients are wanted, else a fused copy."""
        if (
            images.device.type != "cpu"
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or not is_plain(images)
        ):
            return student
        try:
            key = tuple(number for tensor in _tensors(student) for number in (tensor.data_ptr(), tensor._version))
        except RuntimeError:  # tensors made under inference mode keep no count of changes
            return student
        with self._lock:
            if self._made is None or self._made[0] != key:
                self._made = (key, fused_copy(student))
            return self._made[1] or student


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return a module's parameters and buffers, five times as fast as torch does: it is asked for each picture."""
    found: list[Tensor | None] = []
    left: list[nn.Module | None] = [module]
    while left:
        one = left.pop()
        if one is not None:
            found += one._parameters.values()
            found += one._buffers.values()
            left += one._modules.values()
    return [tensor for tensor in found if tensor is not None]


@torch.no_grad()
def fused_copy(student: Student) -> Student | None:
    """Return a fused copy that was seen to compute the same, with the student's aspects; None where there can be none.

    A copy is for a float32 student on the CPU, in evaluation mode; it has no gradients.
    """
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in student.parameters()):
        return None
    generator = torch.Generator("cpu").manual_seed(0)
    example = torch.rand(1, 3, _EXAMPLE, _EXAMPLE, generator=generator, dtype=torch.float32, device="cpu")
    expected = student(example).sigmoid()
    for onednn in (True, False) if torch.backends.mkldnn.is_available() else (False,):
        try:
            fused = _fused(student, onednn)
            if bool((fused(example).sigmoid() - expected).abs().max() < _TOLERANCE):
                return fused
        except (RuntimeError, NotImplementedError, AttributeError, KeyError):
            continue  # an operator that this build of torch lacks, or a backbone that runs parts of itself oddly
    return None


def _fused(student: Student, onednn: bool) -> Student:
    # Before the network is made: what a picture needs then lies in memory that is kept, and takes half of the time.
    keep_blocks()
    fused = fuse(student, onednn)
    fused.aspects = student.aspects  # what is said beside a score is read from the same features
    return fused
