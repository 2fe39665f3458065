"""Make the graphs without weights in `leafiqa/onnx/graphs/`, one for each architecture among the bundled students.

python -m benchmarks.onnx_graphs
"""

from __future__ import annotations

import json

from leafiqa.model.checkpoint import load_student
from leafiqa.model.registry import aliases, bundled, names
from leafiqa.onnx.exporting import network_model, reduction, without_weights
from leafiqa.onnx.stored_graphs import FOLDER, architecture_key


def main() -> None:
    """Write the graphs."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*"):
        old.unlink()
    for name in names():
        if name in aliases():
            continue
        file, card = bundled(name)
        place = FOLDER / f"{architecture_key(card)}.onnx"
        if place.exists():
            continue
        student = load_student(file, card)
        graph, told = without_weights(network_model(student, reduction(student)), student)
        place.write_bytes(graph)
        place.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(name, place.name, len(graph))


if __name__ == "__main__":
    main()
