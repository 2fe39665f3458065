"""Which metric a caller means, and what computes it: torch, or ONNX Runtime without torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from leafiqa.errors import InputError

if TYPE_CHECKING:
    from leafiqa.metric import Metric
    from leafiqa.onnx.onnx_metric import OnnxMetric

BACKENDS = ("torch", "onnx")


def load(
    name: str,
    weights: str | os.PathLike[str] | None,
    device: Any,
    backend: str | None = None,
    draft: bool = False,
    threads: int | None = None,
    without_torch: bool = False,
) -> Metric | OnnxMetric:
    """Load the metric that a name or a place means.

    Args:
        name: a bundled name.
        weights: a place, instead of a name.
        device: where to compute.
        backend: "torch", "onnx", or None for torch or, with `without_torch`, the faster one that is installed: on a
            CPU that is ONNX Runtime.
        draft: decode JPEG files at reduced scale.
        threads: that ONNX Runtime without torch computes on; see `OnnxMetric`. torch has a setting of its own.
        without_torch: let None mean a metric that needs no torch where it can; it returns arrays.

    Raises:
        InputError: another backend, or one that cannot be had.
        UnknownModelError, WeightsError: see `leafiqa.create_metric`.
    """
    from leafiqa.onnx.packages import has_runtime

    _check(backend)
    if backend == "onnx" and device is not None and str(device) not in ("auto", "cpu"):
        raise InputError(f"backend 'onnx' computes on the CPU, got device={device!r}")
    if backend is None and without_torch and has_runtime() and _on_host(device):
        from leafiqa.model.places import resolve
        from leafiqa.onnx.stored_graphs import stored_graph

        backend = "onnx" if stored_graph(resolve(name, weights)[1]) is not None else None
    if backend == "onnx":
        from leafiqa.onnx.onnx_metric import load_onnx_metric

        return load_onnx_metric(name, weights=weights, draft=draft, threads=threads)
    from leafiqa.metric import load_metric

    return load_metric(name, weights=weights, device=device, draft=draft)


def _check(backend: Any) -> None:
    if backend not in (*BACKENDS, None):
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, or None for the faster one, got {backend!r}")


def _on_host(device: Any) -> bool:
    from leafiqa.model.device import cuda_may_be_there

    return str(device) == "cpu" or (device in (None, "auto") and not cuda_may_be_there())


def as_metric(
    metric: Any,
    weights: str | os.PathLike[str] | None,
    device: Any = None,
    backend: str | None = None,
    draft: bool = False,
    without_torch: bool = False,
) -> Any:
    """Return the metric that a verb's arguments mean: a name, a metric, a calibration, or a place.

    Args:
        metric: the name, metric or calibration.
        weights: the place.
        device: where a metric given by name or place computes.
        backend: what computes it; see `load`.
        draft: whether it decodes JPEG files at reduced scale.
        without_torch: see `load`.
    """
    if weights is not None:
        if metric not in ("", "leaf"):
            raise InputError(f"give metric or weights, not both: got metric={metric!r} and weights={weights!r}")
        return load("leaf", weights, device, backend, draft, without_torch=without_torch)
    if isinstance(metric, str):
        return load(metric, None, device, backend, draft, without_torch=without_torch)
    metric = metric if hasattr(metric, "score_prepared") else getattr(metric, "metric", metric)
    if not hasattr(metric, "score_prepared"):
        raise InputError(f"metric must be a name, a metric or a calibration, got {metric!r}; a place goes into weights")
    _check(backend)
    if not without_torch and not hasattr(metric, "student"):
        raise InputError(f"this needs a metric of torch's, got {metric!r}; create it with backend='torch'")
    if draft and not metric.draft:
        raise InputError("draft is for metrics given by name or place; give create_metric(..., draft=True) here")
    return metric


def as_metrics(
    metric: Any,
    weights: str | os.PathLike[str] | None,
    device: Any,
    backend: str | None = None,
    draft: bool = False,
    without_torch: bool = False,
) -> list[Any]:
    """Return the metrics that one metric, or a list of them, means."""
    given = list(metric) if isinstance(metric, (list, tuple)) else [metric]
    if weights is not None and len(given) > 1:
        raise InputError("give several metrics or weights, not both")
    return [as_metric(one, weights, device, backend, draft, without_torch) for one in given]
