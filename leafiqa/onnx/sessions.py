"""Sessions of ONNX Runtime, set up as leafiqa needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leafiqa.onnx.packages import need

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_session(
    graph: bytes, *, threads: int | None = None, arena: bool = True, weights: dict[str, NDArray[Any]] | None = None
) -> Any:
    """Return a session on the CPU.

    Args:
        graph: the model.
        threads: that operators compute on; None means one a core.
        arena: keep freed memory, which is good for tensors of one size again and again.
        weights: fill a graph that has none.

    Raises:
        InputError: onnxruntime is not installed.
    """
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    if threads is not None:
        options.intra_op_num_threads = threads
    values = []
    if weights:
        values = [runtime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
    made = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # The session may read weights where they lie: they are to live as long as it does.
    made.leafiqa_weights = (weights, values)
    return made
