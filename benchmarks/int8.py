"""What int8 would cost and bring: static quantisation of `leaf` in ONNX Runtime.

    python -m pip install 'leafiqa[onnx]'
    python -m benchmarks.int8 --json benchmarks/results/int8.json

Activations are quantised by the ranges seen on pictures of the `train` parts, weights by output channel; everything but
convolutions stays in float32. SRCC with MOS on `val`, and how long the network takes on one thread as a share of
float32's, in one run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import leafiqa
from benchmarks.common import DATA, need_data, report
from leafiqa.evaluation.measures import agreement
from leafiqa.images.decoding import decode
from leafiqa.model.checkpoint import load_student
from leafiqa.model.registry import bundled
from leafiqa.onnx.exporting import network_model
from leafiqa.onnx.onnx_metric import OnnxMetric
from leafiqa.tables import read_table

SETS = ("agiqa3k", "biq2021")
FOR_RANGES = 48  # pictures of each set
TIMED, ROUNDS = 30, 5


def looks(metric: OnnxMetric, name: str, split: str, most: int | None = None) -> tuple[list[Any], list[float]]:
    """Return what the student looks at in pictures of a set, and their MOS."""
    rows = [row for row in read_table(DATA / name / "mos.csv").rows if row["split"] == split]
    rows = rows[:: max(1, len(rows) // most)][:most] if most else rows
    return [metric.prepare_decoded(decode(DATA / name / row["image"])) for row in rows], [
        float(row["mos"]) for row in rows
    ]


def quantised(model: Any, folder: Path, pictures: list[Any], kernels: set[int]) -> bytes:
    """Return the network with the convolutions of some kernel sizes in int8."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            return next(({"pixels": one} for one in self._left), None)

    onnx.save(model, folder / "float.onnx")
    quant_pre_process(folder / "float.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
    ready = onnx.load(folder / "ready.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in ready.graph.initializer}
    chosen = []
    for number, node in enumerate(ready.graph.node):
        node.name = node.name or f"node_{number}"
        if node.op_type == "Conv" and shapes[node.input[1]][2] in kernels:
            chosen.append(node.name)
    onnx.save(ready, folder / "ready.onnx")
    quantize_static(
        folder / "ready.onnx",
        folder / "int8.onnx",
        Reader(),
        nodes_to_quantize=chosen,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return (folder / "int8.onnx").read_bytes()


def measure(graphs: dict[str, bytes], pictures: dict[str, tuple[list[Any], list[float]]]) -> dict[str, Any]:
    """Return accuracy and time of each network."""
    from leafiqa.onnx.sessions import open_session

    sessions = {name: open_session(graph, threads=1) for name, graph in graphs.items()}
    found: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for name, session in sessions.items():
        scores[name] = {
            of: np.array([session.run(None, {"pixels": one})[0][0] for one in seen])
            for of, (seen, _) in pictures.items()
        }
        measured = {of: agreement(scores[name][of], np.array(mos)) for of, (_, mos) in pictures.items()}
        srcc = {of: round(one.srcc, 4) for of, one in measured.items()}
        intervals = {of: [round(end, 3) for end in one.srcc_interval] for of, one in measured.items()}
        gaps = np.concatenate([np.abs(scores[name][of] - scores["float32"][of]) for of in pictures])
        found[name] = {"srcc": srcc, "srcc_interval": intervals, "mean_difference": round(float(gaps.mean()), 4)}
    timed = next(iter(pictures.values()))[0][:TIMED]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            began = time.perf_counter()
            for one in timed:
                session.run(None, {"pixels": one})
            times[name].append(time.perf_counter() - began)
    for name, of in times.items():
        found[name]["time"] = round(float(np.median(np.array(of) / np.array(times["float32"]))), 3)
    return found


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    metric = leafiqa.create_metric("leaf", backend="onnx")
    file, card = bundled("leaf")
    model = network_model(load_student(file, card), metric.preprocess.multiple)
    seen = [one for name in SETS for one in looks(metric, name, "train", FOR_RANGES)[0]]
    graphs = {"float32": model.SerializeToString()}
    with tempfile.TemporaryDirectory() as place:
        graphs["all convolutions"] = quantised(model, Path(place), seen, {1, 3, 5})
        graphs["1x1 convolutions"] = quantised(model, Path(place), seen, {1})
    pictures = {name: looks(metric, name, "val") for name in SETS}
    found = {"sha256": card.sha256, "n": {name: len(of[1]) for name, of in pictures.items()}}
    found["networks"] = measure(graphs, pictures)
    report(found, arguments.json)


if __name__ == "__main__":
    main()
