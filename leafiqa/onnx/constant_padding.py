"""Padding that convolutions do themselves, in a graph for pictures whose sides are known multiples.

TensorFlow's padding depends on a picture's size, so torch exports it as operators of its own that compute the numbers
of lines and copy the features: a fifth of the network's time. Where every side is a whole number of steps the numbers
are known.
"""

from __future__ import annotations

from typing import Any


def put_padding_into_convolutions(graph: Any, weights: set[str]) -> None:
    """Give TensorFlow's padding to the convolutions after it.

    Args:
        graph: of ONNX; the sides that its convolutions see must be whole numbers of their steps. Changed in place.
        weights: of the convolutions that pad so; what others have before them is left as it is.
    """
    padded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        if node.op_type != "Conv" or node.input[0] not in padded or node.input[1] not in weights:
            continue
        numbers = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        lines = [
            max((size - 1) * gap + 1 - step, 0)
            for size, step, gap in zip(numbers["kernel_shape"], numbers["strides"], numbers["dilations"])
        ]
        before = [count // 2 for count in lines]
        pads = next(attribute for attribute in node.attribute if attribute.name == "pads")
        pads.ints[:] = [*before, *(count - first for count, first in zip(lines, before))]
        node.input[0] = padded[node.input[0]]
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
