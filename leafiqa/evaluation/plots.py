"""Scatter plots of scores against human opinion."""

from __future__ import annotations

import os
from typing import Any

from leafiqa.errors import InputError, OutputError
from leafiqa.evaluation.comparison import Comparison
from leafiqa.evaluation.measures import with_interval
from leafiqa.files import StrPath, check_output, printable


def need_matplotlib() -> Any:
    """Return matplotlib's `Figure`: a figure of its own, not pyplot, so no global state and no display.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install matplotlib") from error
    return Figure


def scatter(comparison: Comparison, path: StrPath, *, overwrite: bool = False) -> None:
    """Write one panel a metric, its score against MOS, as a PNG.

    Raises:
        InputError: matplotlib is not installed, or the ending is not `.png`.
        OutputError: the file exists already, or there is no such folder.
    """
    check_plot(path, overwrite)
    Figure = need_matplotlib()
    count = len(comparison.scores)
    figure = Figure(figsize=(4.2 * count, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    size = max(3.0, min(18.0, 4000 / len(comparison.images)))
    for panel, (name, scores) in zip(axes, comparison.scores.items()):
        measured = comparison.agreement[name]
        panel.scatter(scores, comparison.mos, s=size, alpha=0.6, linewidths=0, color="#2f6f4f")
        srcc = with_interval(measured.srcc, measured.srcc_interval)
        panel.set_title(
            f"{printable(name)}\nSRCC {srcc}, PLCC {measured.plcc:.3f}, n={measured.n}",
            fontsize=9,
        )
        panel.set_xlabel("score")
        panel.grid(alpha=0.25, linewidth=0.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    axes[0].set_ylabel("MOS")
    figure.savefig(path, metadata={"Software": "leafiqa"})


def check_plot(path: StrPath, overwrite: bool = False) -> None:
    """Refuse a place for a plot before work begins: an earlier plot is a picture, and is replaced only if asked for.

    Raises:
        InputError: matplotlib is not installed, or the ending is not `.png`.
        OutputError: the file exists already, or there is no such folder.
    """
    need_matplotlib()
    if os.path.splitext(os.fspath(path))[1].lower() != ".png":
        raise InputError(f"a plot is written as PNG: name a file that ends in .png, got {os.fspath(path)}")
    if not os.path.isfile(path):
        check_output(path)
        return
    with open(path, "rb") as file:
        ours = b"leafiqa" in file.read(4096)
    if not overwrite or not ours:
        raise OutputError(
            f"{os.fspath(path)} exists already: name another file"
            + (", or allow replacing it with overwrite=True (--overwrite on the command line)" if ours else "")
        )
