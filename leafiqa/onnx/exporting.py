"""A student as one self-contained ONNX file: pixels of any size in, scores out."""

from __future__ import annotations

import io
import json
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leafiqa.errors import InputError, WeightsError
from leafiqa.files import check_output, write_whole
from leafiqa.onnx.constant_padding import put_padding_into_convolutions
from leafiqa.onnx.packages import need
from leafiqa.onnx.preprocessing_graph import IR_VERSION, OPSET, constant, preprocessing

if TYPE_CHECKING:
    from leafiqa.model.card import Card
    from leafiqa.model.student import Student

_EXAMPLE = 96
_OTHER_EXAMPLE = 160
# Fused scores may differ by so much from the student's.
_TOLERANCE = 5e-5


def network_model(student: Student, multiple: int) -> Any:
    """Return a student's network as an ONNX model: `pixels`, float32 `(N, h, w, 3)` in [0, 1], to `score` in [0, 1].

    Initializers are named after the fused student's tensors, see `leafiqa.model.fused_network`.

    Args:
        student: the student.
        multiple: both sides of all pictures are multiples of this. Where the backbone reduces them by a divisor of it,
            no layer has to ask how much to pad.

    Raises:
        InputError: the package onnx is not installed.
        WeightsError: torch cannot export the backbone.
    """
    import torch

    from leafiqa.model.fused_network import FusedConvolution, fuse

    onnx = need("onnx")

    class Network(torch.nn.Module):
        def __init__(self, fused: Student) -> None:
            super().__init__()
            self.student = fused

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.student(pixels.permute(0, 3, 1, 2)).sigmoid()

    fused = fuse(student, onednn=False)
    example = torch.rand(1, 3, _OTHER_EXAMPLE, _EXAMPLE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if bool((fused(example).sigmoid() - student(example).sigmoid()).abs().max() > _TOLERANCE):
            raise WeightsError("this student's backbone uses its convolutions in a way that export does not know")
    network = Network(fused).eval()
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, of constants in the graph and of its newer exporter
            torch.onnx.export(
                network,
                (torch.zeros(1, _EXAMPLE, _EXAMPLE, 3, dtype=torch.float32),),
                buffer,  # type: ignore[arg-type]  # its older exporter writes to a stream, too
                input_names=["pixels"],
                output_names=["score"],
                dynamic_axes={"pixels": {0: "N", 1: "h", 2: "w"}, "score": {0: "N"}},
                opset_version=OPSET,
                # Folding constants would rename the weights, which a graph without weights is filled by.
                do_constant_folding=False,
                keep_initializers_as_inputs=False,
                **_exporter(),
            )
    except Exception as error:  # whatever torch raises at an operator that it cannot write
        raise WeightsError(f"torch cannot export this student to ONNX: {str(error).splitlines()[0]}") from error
    model = onnx.load_from_string(buffer.getvalue())
    for tensor in model.graph.initializer:
        tensor.name = _plain(tensor.name)
    for node in model.graph.node:
        node.input[:] = [_plain(name) for name in node.input]
        node.output[:] = [_plain(name) for name in node.output]
        # Lines of source, with the places of files on this machine.
        node.ClearField("doc_string")
        node.ClearField("name")
    del model.graph.value_info[:]
    if multiple % reduction(student) == 0:
        parts = fused.named_modules()
        pads = {f"{name}.weight" for name, part in parts if isinstance(part, FusedConvolution) and part.same}
        put_padding_into_convolutions(model.graph, pads)
    model.ir_version = IR_VERSION
    return model


def reduction(student: Student) -> int:
    """Return of how many pixels' multiples the sides must be for no layer of the backbone to pad."""
    return math.lcm(*student.backbone.feature_info.reduction())  # type: ignore[union-attr, operator]


def _exporter() -> dict[str, Any]:
    import inspect

    import torch

    # The exporter that needs no further package; torch before 2.5 has no other.
    return {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


def _plain(name: str) -> str:
    return name.removeprefix("student.")


def without_weights(model: Any, student: Student) -> tuple[bytes, dict[str, Any]]:
    """Return a network's model without weights, and what `leafiqa.onnx.stored_graphs` fills it by.

    Args:
        model: made for multiples of `reduction(student)`.
        student: the student.

    Raises:
        WeightsError: two tensors of the student are equal, so that torch wrote one for both.
    """
    import torch

    from leafiqa.model.fused_network import convolutions_before, fuse

    onnx = need("onnx")
    if missing := set(fuse(student).state_dict()) - {tensor.name for tensor in model.graph.initializer}:
        raise WeightsError(f"the graph of this student does not stand for others: it lacks {sorted(missing)}")
    for tensor in model.graph.initializer:
        size = onnx.numpy_helper.to_array(tensor).nbytes
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(size))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    names = {id(module): f"backbone.{name}" for name, module in student.backbone.named_modules()}
    pairs = convolutions_before(student.backbone, torch.zeros(1, 3, _EXAMPLE, _EXAMPLE))
    told = {
        "multiple": reduction(student),
        "initializers": [tensor.name for tensor in model.graph.initializer],
        "folded": {names[id(one)]: [names[id(norm)], norm.eps] for one, norm in pairs},
    }
    return model.SerializeToString(), told


def student_model(student: Student, card: Card, *, float_pixels: bool = False) -> Any:
    """Return a student as one ONNX model, preprocessing inside.

    Args:
        student: the student.
        card: its card; what identifies the student goes into the model's metadata.
        float_pixels: take float32 in [0, 1] instead of uint8.

    Raises:
        InputError: the package onnx is not installed.
        WeightsError: the student cannot be exported.
    """
    from leafiqa.model.preprocess import Preprocess

    onnx = need("onnx")
    helper = onnx.helper
    preprocess = Preprocess.from_dict(card.preprocess)
    network = network_model(student, preprocess.multiple)
    nodes, initializers = preprocessing(preprocess, 1.0 if float_pixels else 255.0)
    low, high = card.score_range
    initializers += [
        constant("range_width", high - low, np.float32),
        constant("range_low", low, np.float32),
    ]
    ends = [
        helper.make_node("Mul", ["unit_score", "range_width"], ["wide_score"]),
        helper.make_node("Add", ["wide_score", "range_low"], ["score"]),
    ]
    inner = _renamed(network.graph, {"score": "unit_score"})
    kind = onnx.TensorProto.FLOAT if float_pixels else onnx.TensorProto.UINT8
    graph = helper.make_graph(
        [*nodes, *inner.node, *ends],
        "leafiqa",
        [helper.make_tensor_value_info("image", kind, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N"])],
        [*initializers, *inner.initializer],
        doc_string=card.description,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="leafiqa",
        producer_version=card.leafiqa_version,
    )
    helper.set_model_props(
        model,
        {
            "name": card.name,
            "sha256": card.sha256,
            "score_range": json.dumps([low, high]),
            "licences": json.dumps(card.licences, ensure_ascii=False),
            "input": "RGB, sRGB, " + ("float32 in [0, 1]" if float_pixels else "uint8") + ", (N, H, W, 3), any size",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _renamed(graph: Any, names: dict[str, str]) -> Any:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return graph


def export_student(
    output: str | os.PathLike[str],
    name: str = "leaf",
    *,
    weights: str | os.PathLike[str] | None = None,
    float_pixels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a student as one ONNX file; `leafiqa.export`, which describes the arguments, is its public face."""
    from leafiqa.model.checkpoint import load_student
    from leafiqa.model.places import resolve

    output = Path(output)
    if output.suffix.lower() != ".onnx":
        raise InputError(f"output must end in .onnx, got {os.fspath(output)!r}")
    need("onnx")
    check_output(output, inputs=[], overwrite=overwrite, is_ours=_is_model)
    file, card = resolve(name, weights)
    model = student_model(load_student(file, card), card, float_pixels=float_pixels)
    write_whole(output, model.SerializeToString())
    return output


def _is_model(head: bytes) -> bool:
    # Field 1 of a ModelProto, its IR version, and the producer that stands after it.
    return head[:1] == b"\x08" and b"leafiqa" in head[:32]
