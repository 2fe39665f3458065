"""The page of a folder of pictures: how their scores are distributed, the worst and the best, what failed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from leafiqa.files import StrPath
from leafiqa.generators.rendering import NOT_QUALITY, number
from leafiqa.reports.charts import axis_over, distribution
from leafiqa.reports.pages import failures, island, relative, render
from leafiqa.reports.pictures import Pictures
from leafiqa.scoring.scores import Scores, choose

# Worst and best pictures that are shown.
_ENDS = 48
_WIDTH, _HEIGHT = 560, 90


def render_images(
    scores: Scores,
    page: StrPath,
    *,
    title: str,
    most: int,
    thumbnails: str,
    overwrite: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Return the page of scored pictures; the first metric orders them.

    Args:
        scores: what `leafiqa.score` returned.
        page: where the page will lie: links and thumbnails are relative to it.
        title: its title.
        most: at most so many thumbnails.
        thumbnails: "embed" or "beside".
        overwrite: whether a folder of thumbnails of an earlier page may be replaced.
        progress: called with how many thumbnails are done, and how many there are.
    """
    metrics = list(dict.fromkeys((row.metric, row.weights) for row in scores.rows))
    metric, weights = metrics[0]
    own = [row for row in scores.rows if (row.metric, row.weights) == (metric, weights)]
    ordered = choose(own)[::-1]
    half = min(_ENDS, most // 2, (len(ordered) + 1) // 2)
    pictures = Pictures(page)
    worst = [pictures.item(row.image, row.score or 0.0) for row in ordered[:half]]
    best = [pictures.item(row.image, row.score or 0.0) for row in ordered[::-1][: min(half, len(ordered) - half)]]
    made = pictures.make(most, thumbnails, overwrite, (), progress)
    values = {name: _values(scores, name, digest) for name, digest in metrics}
    failed = {row.image: row.error for row in scores.failed}
    chart = None
    if len(ordered):
        axis = axis_over(values[metric].tolist(), 6, _WIDTH - 6)
        shape = distribution(metric, values[metric], axis, _HEIGHT)
        chart = {"rows": [shape], "ticks": axis.ticks(), "width": _WIDTH, "height": _HEIGHT}
    rows = []
    for name, digest in metrics:
        of = values[name]
        lost = sum(row.score is None for row in scores.rows if (row.metric, row.weights) == (name, digest))
        ends = np.percentile(of, [0, 5, 25, 50, 75, 95, 100]).tolist() if len(of) else [math.nan] * 7
        cells = [str(len(of)), number(float(of.mean()) if len(of) else math.nan), *map(number, ends), str(lost)]
        rows.append({"metric": name, "cells": cells})
    told = f"{len(ordered)} pictures, median score {np.median(values[metric]):.2f}" if ordered else "No scores"
    told += f"; {len(failed)} could not be scored" if failed else ""
    return render(
        "images.html",
        beside=thumbnails == "beside",
        title=title,
        headline=f"{told}.",
        metric=metric,
        weights=weights,
        chart=chart,
        rows=rows,
        worst=worst,
        best=best,
        between=max(0, len(ordered) - len(worst) - len(best)),
        thumbnails=made,
        failed=failures(failed, page),
        remarks=[relative(remark, page) for remark in scores.remarks],
        not_quality=NOT_QUALITY,
        result_json=island({"summary": [str(of) for of in scores.summary()]}),
    )


def _values(scores: Scores, metric: str, weights: str) -> np.ndarray:
    rows = [row.score for row in scores.rows if (row.metric, row.weights) == (metric, weights)]
    return np.array([score for score in rows if score is not None], dtype=np.float64)
