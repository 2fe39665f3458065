"""The page of a rating session: agreement, consistency, distributions, and the pictures that people disagree about."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata

from leafiqa.evaluation.measures import spearman
from leafiqa.files import StrPath
from leafiqa.generators.rendering import number
from leafiqa.rating.panel import Panel, PictureMos
from leafiqa.reports.charts import axis_over, distribution
from leafiqa.reports.pages import island, render
from leafiqa.reports.pictures import Item, Pictures

_SHOWN = 12
_WIDTH, _HEIGHT = 560, 46
_FEW = 8


def render_rating(
    panel: Panel,
    page: StrPath,
    *,
    title: str,
    scores: Mapping[str, float],
    metric: str,
    most: int,
    thumbnails: str,
    overwrite: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Return the page of a rating session.

    Args:
        panel: what `summarise` returned.
        page: where the page will lie: links and thumbnails are relative to it.
        title: its title.
        scores: a metric's scores by path, to show where it and the raters disagree; may be empty.
        metric: that metric's name.
        most: at most so many thumbnails.
        thumbnails: "embed" or "beside".
        overwrite: whether a folder of thumbnails of an earlier page may be replaced.
        progress: called with how many thumbnails are done, and how many there are.
    """
    pictures = Pictures(page)
    by_rater = _by_rater(panel)
    disputed = sorted((of for of in panel.pictures if of.n > 1 and of.std > 0), key=lambda of: -of.std)[:_SHOWN]
    apart = _apart(panel, scores)[:_SHOWN]
    galleries = [
        ("On which raters disagree most", [_item(pictures, of, f"ratings ±{of.std:.1f}, n={of.n}") for of in disputed]),
        (
            f"On which {metric} and the raters disagree most",
            [_item(pictures, of, f"{metric} {scores[of.image]:.2f}; {told}") for of, told in apart],
        ),
        ("Worst", [_item(pictures, of, f"±{of.mos_se:.2f}") for of in sorted(panel.pictures, key=_mos)[:_SHOWN]]),
        ("Best", [_item(pictures, of, f"±{of.mos_se:.2f}") for of in sorted(panel.pictures, key=_mos)[::-1][:_SHOWN]]),
    ]
    made = pictures.make(most, thumbnails, overwrite, (), progress)
    axis = axis_over([1.0, 5.0], 6, _WIDTH - 6)
    shapes = [distribution(name, np.array(of), axis, _HEIGHT) for name, of in by_rater.items() if of]
    shapes.append(distribution("MOS", np.array([of.mos for of in panel.pictures]), axis, _HEIGHT))
    return render(
        "rating.html",
        beside=thumbnails == "beside",
        title=title,
        headline=_headline(panel),
        raters=[_rater_row(of) for of in panel.raters],
        chart={"rows": shapes, "ticks": axis.ticks(), "width": _WIDTH, "height": _HEIGHT},
        galleries=[(name, items) for name, items in galleries if items],
        thumbnails=made,
        problems=panel.problems,
        step=number(panel.model.step, 2),
        result_json=island(panel.to_dict()),
    )


def _mos(of: PictureMos) -> float:
    return of.mos


def _item(pictures: Pictures, of: PictureMos, caption: str) -> Item:
    return pictures.item(of.image, of.mos, caption)


def _by_rater(panel: Panel) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {of.name: [] for of in panel.raters}
    for answer in panel.answers.ratings():
        found[answer.rater].append(answer.score)
    return found


def _headline(panel: Panel) -> str:
    told = f"{len(panel.pictures)} pictures, {len(panel.raters)} rater{'s' if len(panel.raters) > 1 else ''}"
    agreed = _pairwise(panel)
    if math.isfinite(agreed):
        told += f"; two raters agree at SRCC {agreed:.2f} on average"
    doubted = [of.name for of in panel.raters if of.remarks]
    return f"{told}. Look at the answers of {', '.join(doubted)}." if doubted else f"{told}."


def _pairwise(panel: Panel) -> float:
    """Return the mean SRCC of two raters on pictures that both have rated."""
    first: dict[str, dict[str, float]] = {}
    for answer in panel.answers.ratings():
        first.setdefault(answer.rater, {})[answer.image] = answer.score
    found = []
    for one, other in combinations(first.values(), 2):
        shared = [image for image in one if image in other]
        if len(shared) >= _FEW:
            found.append(spearman(np.array([one[i] for i in shared]), np.array([other[i] for i in shared])))
    known = [value for value in found if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _apart(panel: Panel, scores: Mapping[str, float]) -> list[tuple[PictureMos, str]]:
    """Return pictures by how far a metric's rank is from that of the raters."""
    known = [of for of in panel.pictures if math.isfinite(scores.get(of.image, math.nan))]
    if len(known) < 3:
        return []
    people, machine = rankdata([of.mos for of in known]), rankdata([scores[of.image] for of in known])
    away = (machine - people) / len(known)
    order = np.argsort(-np.abs(away))
    return [(known[i], f"ranks it {100 * abs(away[i]):.0f} % {'higher' if away[i] > 0 else 'lower'}") for i in order]


def _rater_row(of: Any) -> dict[str, Any]:
    return {
        "name": of.name,
        "ratings": of.ratings,
        "comparisons": of.comparisons,
        "skipped": of.skipped,
        "bias": number(of.bias, 2, sign=True),
        "inconsistency": number(of.inconsistency, 2),
        "repeats": of.repeats,
        "repeat_difference": number(of.repeat_difference, 2),
        "agreement": number(of.agreement, 2),
        "seconds": number(of.seconds, 1),
        "remarks": of.remarks,
    }
