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
    made: dict[str, tuple[bytes, str]] = {}
    for name in names():
        if name in aliases():
            continue
        file, card = bundled(name)
        key = architecture_key(card)
        if key in made:
            continue
        student = load_student(file, card)
        graph, told = without_weights(network_model(student, reduction(student)), student)
        made[key] = graph, json.dumps(told, indent=1) + "\n"
        print(name, key, len(graph))
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*"):
        old.unlink()
    for key, (graph, told_text) in made.items():
        (FOLDER / f"{key}.onnx").write_bytes(graph)
        (FOLDER / f"{key}.json").write_text(told_text, encoding="utf-8")


if __name__ == "__main__":
    main()
