"""Sessions of ONNX Runtime, set up as leafiqa needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leafiqa.onnx.packages import need

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_session(graph: bytes, *, threads: int | None = None, weights: dict[str, NDArray[Any]] | None = None) -> Any:
    """Return a session on the CPU.

    Args:
        graph: the model.
        threads: that operators compute on; None means one a core.
        weights: fill a graph that has none.

    Raises:
        InputError: onnxruntime is not installed.
    """
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # Between two runs its threads are not to wait for the next one on the cores that decode and resize.
    options.add_session_config_entry("session.force_spinning_stop", "1")
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
