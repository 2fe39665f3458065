"""Scatter plots of scores against human opinion."""

from __future__ import annotations

from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.evaluate.compare import Comparison


def scatter(comparison: Comparison, path: Path) -> None:
    """Write one panel a metric, its score against MOS, as a PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install 'leafiqa[plot]'") from error

    count = len(comparison.scores)
    # A Figure of its own, not pyplot: no global state, no display.
    figure = Figure(figsize=(4.2 * count, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    size = max(3.0, min(18.0, 4000 / len(comparison.images)))
    for panel, (name, scores) in zip(axes, comparison.scores.items()):
        measured = comparison.agreement[name]
        panel.scatter(scores, comparison.mos, s=size, alpha=0.6, linewidths=0, color="#2f6f4f")
        low, high = measured.srcc_interval
        panel.set_title(
            f"{name}\nSRCC {measured.srcc:.3f} [{low:.3f}, {high:.3f}], PLCC {measured.plcc:.3f}, n={measured.n}",
            fontsize=9,
        )
        panel.set_xlabel("score")
        panel.grid(alpha=0.25, linewidth=0.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    axes[0].set_ylabel("MOS")
    figure.savefig(path)
