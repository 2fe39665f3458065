"""Loss curves of a run as a picture."""

from __future__ import annotations

import csv
from pathlib import Path


def plot_curves(log: Path, picture: Path) -> bool:
    """Draw each loss of a `losses.csv` against the step, as a PNG.

    Returns:
        False if there is nothing to draw yet, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2:
        return False
    names = [name for name in rows[0] if name != "step"]
    figure = Figure(figsize=(3.2 * len(names), 2.8), dpi=130, layout="constrained")
    steps = [int(row["step"]) for row in rows]
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        # A loss that not every step has, such as of few scores beside many comparisons, has none yet at first.
        values = [float(row[name] or "nan") for row in rows]
        panel.plot(steps, values, color="#2f6f4f", linewidth=1.2)
        panel.set_title(f"{name} loss", fontsize=9)
        panel.set_xlabel("step", fontsize=8)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25, linewidth=0.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.savefig(picture)
    return True
