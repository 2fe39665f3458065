"""How a student looks at a picture, as ONNX operators: the size rule and antialiased resizing of `Preprocess`.

Resizing is ONNX's own operator, whose antialiased linear filter with samples outside the picture left out is the
triangle filter of `leafiqa.model.resizing`, to about 2e-5 of the range of pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leafiqa.model.preprocess import Preprocess

# The first that has antialiased resizing; readable by every runtime of the last years.
OPSET = 18
IR_VERSION = 9


def _resize_nodes() -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_node("Cast", ["image"], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["image_float", "", "", "size"],
            ["resized"],
            mode="linear",
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
    ]


def constant(name: str, value: Any, kind: Any) -> Any:
    """Return an initializer of numpy's type `kind`."""
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(value, kind), name)


def preprocessing(preprocess: Preprocess, white: float) -> tuple[list[Any], list[Any]]:
    """Return nodes and initializers from `image` `(N, H, W, 3)` to `pixels`, float32 `(N, h, w, 3)` in [0, 1].

    Args:
        preprocess: the size rule.
        white: the value of white in `image`: 255 or 1.
    """
    from onnx import helper

    initializers = [
        constant("area", preprocess.area, np.float64),
        constant("multiple", preprocess.multiple, np.float64),
        constant("least_aspect", 1 / preprocess.max_aspect, np.float64),
        constant("most_aspect", preprocess.max_aspect, np.float64),
        constant("one", 1, np.float64),
        constant("three", [3], np.int64),
        constant("white", white, np.float32),
    ]
    make = helper.make_node
    double, long = 11, 7  # TensorProto.DOUBLE, INT64
    nodes = [
        make("Shape", ["image"], ["count"], start=0, end=1),
        make("Shape", ["image"], ["height"], start=1, end=2),
        make("Shape", ["image"], ["width"], start=2, end=3),
        make("Cast", ["height"], ["height_double"], to=double),
        make("Cast", ["width"], ["width_double"], to=double),
        make("Div", ["width_double", "height_double"], ["whole_aspect"]),
        make("Max", ["whole_aspect", "least_aspect"], ["not_too_tall"]),
        make("Min", ["not_too_tall", "most_aspect"], ["aspect"]),
        make("Div", ["area", "aspect"], ["square_height"]),
        make("Mul", ["area", "aspect"], ["square_width"]),
    ]
    for side in ("height", "width"):
        nodes += [
            make("Sqrt", [f"square_{side}"], [f"exact_{side}"]),
            make("Div", [f"exact_{side}", "multiple"], [f"multiples_{side}"]),
            make("Round", [f"multiples_{side}"], [f"whole_{side}"]),
            make("Max", [f"whole_{side}", "one"], [f"least_{side}"]),
            make("Mul", [f"least_{side}", "multiple"], [f"new_{side}"]),
            make("Cast", [f"new_{side}"], [f"size_{side}"], to=long),
        ]
    nodes += [
        make("Concat", ["count", "size_height", "size_width", "three"], ["size"], axis=0),
        *_resize_nodes(),
        make("Div", ["resized", "white"], ["pixels"]),
    ]
    return nodes, initializers
