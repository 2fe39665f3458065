"""Students as ONNX graphs: export, and scoring in ONNX Runtime without torch."""
