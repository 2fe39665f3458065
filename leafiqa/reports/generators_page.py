"""The page of a comparison of generators."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from leafiqa.files import StrPath
from leafiqa.generators.comparing import MetricResult, PairResult, PromptDifference
from leafiqa.generators.generator_comparison import GeneratorComparison
from leafiqa.generators.metric_agreement import standing_alone
from leafiqa.generators.rendering import (
    NOT_QUALITY,
    chance,
    curve_points,
    headline,
    interval,
    number,
    percent,
    rank,
)
from leafiqa.generators.samples import Sample
from leafiqa.reports.charts import axis_over, distribution, draw_curves, whiskers
from leafiqa.reports.pages import failures, island, relative, render
from leafiqa.reports.pictures import Item, Pictures

# Prompts that are shown side by side of each pair, in either direction; pairs that have them.
_CHANGES = 8
_PAIRS = 10
# Worst and best pictures of each generator.
_ENDS = 6
# Rows of the grid, and pictures in a cell.
_ROWS = 2000
_CELL = 4
_WIDTH, _HEIGHT = 560, 46
_SIGNS = {"better": "▲", "worse": "▼", "no difference": "=", "cannot tell": "?"}

Row = dict[str, Any]
# Pictures with their scores, by unit and generator.
Cells = dict[tuple[str, str], list[tuple[Sample, float]]]


def render_generators(
    comparison: GeneratorComparison,
    page: StrPath,
    *,
    title: str,
    most: int,
    thumbnails: str,
    overwrite: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Return the page of a comparison.

    Args:
        comparison: what to show.
        page: where the page will lie: links and thumbnails are relative to it.
        title: its title.
        most: at most so many thumbnails.
        thumbnails: "embed" or "beside".
        overwrite: whether a folder of thumbnails of an earlier page may be replaced.
        progress: called with how many thumbnails are done, and how many there are.
    """
    lead = comparison.metrics[0]
    prompts = comparison.prompts()
    pictures = Pictures(page)
    cells: Cells = defaultdict(list)
    for sample, score in zip(comparison.samples.samples, comparison.scored.scores[lead.metric].tolist()):
        cells[(sample.unit, sample.generator)].append((sample, score))
    changes = [_changes(pair, cells, prompts, pictures) for pair in lead.pairs[:_PAIRS] if pair.prompts]
    ends = _ends(comparison, lead, pictures)
    important = list(pictures.items)
    grid = _grid(comparison, lead, cells, prompts, pictures)
    made = pictures.make(most, thumbnails, overwrite, important, progress)
    remarks = [relative(remark, page) for remark in comparison.remarks]
    scored = [of for of in lead.generators if of.images]
    several = [(of.name, curve_points(of)) for of in scored if len(of.best_of) > 1]
    return render(
        "generators.html",
        beside=thumbnails == "beside",
        title=title,
        headline=headline(lead),
        lead=lead,
        counts={
            "generators": len(lead.generators),
            "prompts": len(prompts),
            "images": len(comparison.samples.samples),
        },
        results=[_result(result, comparison.below) for result in comparison.metrics],
        below=None if comparison.below is None else f"{comparison.below:g}",
        agreement=[
            {
                "names": f"{of.first} and {of.second}",
                "srcc": number(of.srcc, 2),
                "tau": number(of.tau, 2),
                "same": of.same,
                "opposed": of.opposed,
            }
            for of in comparison.agreement
        ],
        alone=standing_alone(comparison.agreement),
        chart=_distributions(comparison, lead),
        curves=draw_curves(several) if several else None,
        changes=changes,
        pairs_left=max(0, len(lead.pairs) - _PAIRS),
        ends=ends,
        grid=grid,
        thumbnails=made,
        failed=failures(comparison.failed, page),
        remarks=remarks,
        not_quality=NOT_QUALITY,
        result_json=island({**comparison.to_dict(), "failed": None, "remarks": remarks}),
    )


def _result(result: MetricResult, below: float | None) -> Row:
    rows = []
    for of in result.generators:
        rows.append(
            {
                "rank": rank(result, of.name),
                "name": of.name,
                "mean": number(of.mean),
                "interval": interval(of.interval),
                "median": number(of.median),
                "worst": number(of.worst),
                "below": percent(of.below),
                "prompts": of.prompts,
                "images": of.images,
                "failed": of.failed,
                "noise": number(of.noise),
            }
        )
    pairs = []
    for pair in result.pairs:
        pairs.append(
            {
                "names": f"{pair.first} - {pair.second}",
                "difference": number(pair.difference, sign=True),
                "interval": interval(pair.interval, sign=True),
                "won": percent(pair.won),
                "effect": number(pair.effect, 2),
                "correlation": number(pair.correlation, 2),
                "p": chance(pair.p),
                "corrected": chance(pair.corrected_p),
                "prompts": pair.prompts,
                "words": pair.verdict.words,
            }
        )
    return {
        "metric": result.metric,
        "weights": result.weights,
        "margin": f"{result.margin:.2g}",
        "headline": headline(result),
        "rows": rows,
        "marks": whiskers([(of.name, of.mean, of.interval) for of in result.generators]),
        "has_noise": any(math.isfinite(of.noise) for of in result.generators),
        "alike": [group for group in result.groups if len(group) > 1],
        "matrix": _matrix(result),
        "pairs": pairs,
    }


def _matrix(result: MetricResult) -> Row:
    names = [of.name for of in result.generators if of.name in result.ranks]
    rows = []
    for name in names:
        cells: list[Row | None] = []
        for other in names:
            pair = result.pair(name, other) if name != other else None
            if pair is None:
                cells.append(None)
                continue
            decision: str = pair.verdict.decision
            if pair.better is not None:
                decision = "better" if pair.better == name else "worse"
            cells.append(
                {
                    "sign": _SIGNS[decision],
                    "difference": number(pair.seen_from(name)[0], sign=True),
                    "kind": decision.split()[0],
                    "words": pair.verdict.words,
                }
            )
        rows.append({"name": name, "cells": cells})
    return {"names": names, "rows": rows}


def _distributions(comparison: GeneratorComparison, lead: MetricResult) -> Row:
    scores = comparison.scored.scores[lead.metric]
    owners = np.array([sample.generator for sample in comparison.samples.samples])
    axis = axis_over(scores.tolist(), 6, _WIDTH - 6)
    rows = []
    for of in lead.generators:
        own = scores[(owners == of.name) & np.isfinite(scores)]
        if len(own):
            rows.append(distribution(of.name, own, axis, _HEIGHT))
    return {"rows": rows, "ticks": axis.ticks(), "width": _WIDTH, "height": _HEIGHT}


def _changes(pair: PairResult, cells: Cells, prompts: dict[str, str], pictures: Pictures) -> Row:
    parts = []
    lost = [one for one in pair.prompt_differences[:_CHANGES] if one.difference < 0]
    won = [one for one in pair.prompt_differences[::-1][:_CHANGES] if one.difference > 0]
    for title, chosen in ((f"{pair.first} lost most", lost), (f"{pair.first} won most", won)):
        rows = [_change(one, pair, cells, prompts, pictures) for one in chosen]
        parts.append({"title": title, "rows": rows})
    return {"first": pair.first, "second": pair.second, "parts": parts}


def _change(one: PromptDifference, pair: PairResult, cells: Cells, prompts: dict[str, str], pictures: Pictures) -> Row:
    sides = []
    for name, mean in ((pair.first, one.first), (pair.second, one.second)):
        scored = [(sample, score) for sample, score in cells[(one.unit, name)] if math.isfinite(score)]
        # The picture nearest to the prompt's mean stands for it: neither the best nor the worst of several.
        sample, score = min(scored, key=lambda of: abs(of[1] - mean))
        item = pictures.item(sample.image, score)
        sides.append({"name": name, "item": item, "score": number(mean), "more": len(scored) if len(scored) > 1 else 0})
    return {"prompt": prompts[one.unit], "difference": number(one.difference, sign=True), "sides": sides}


def _ends(comparison: GeneratorComparison, lead: MetricResult, pictures: Pictures) -> list[Row]:
    scores = comparison.scored.scores[lead.metric]
    by_generator: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(comparison.samples.samples):
        if math.isfinite(scores[place]):
            by_generator[sample.generator].append(place)

    def shown(places: list[int]) -> list[Item]:
        samples = comparison.samples.samples
        return [pictures.item(samples[i].image, float(scores[i]), samples[i].prompt) for i in places]

    found = []
    for of in lead.generators:
        order = sorted(by_generator[of.name], key=lambda place: scores[place])
        if order:
            half = min(_ENDS, (len(order) + 1) // 2)
            found.append({"name": of.name, "worst": shown(order[:half]), "best": shown(order[::-1][:half])})
    return found


def _grid(
    comparison: GeneratorComparison, lead: MetricResult, cells: Cells, prompts: dict[str, str], pictures: Pictures
) -> Row:
    names = [of.name for of in lead.generators]
    spreads: dict[str, float] = {}
    means: dict[str, list[float]] = {}
    for unit in prompts:
        of = [[score for _, score in cells.get((unit, name), ()) if math.isfinite(score)] for name in names]
        means[unit] = [float(np.mean(scores)) if scores else math.nan for scores in of]
        known = [mean for mean in means[unit] if math.isfinite(mean)]
        spreads[unit] = max(known) - min(known) if len(known) > 1 else math.nan
    order = list(dict.fromkeys(sample.unit for sample in comparison.samples.samples))
    if len(order) > _ROWS:
        widest = set(sorted(order, key=lambda unit: -spreads[unit] if math.isfinite(spreads[unit]) else 0)[:_ROWS])
        order = [unit for unit in order if unit in widest]
    rows = []
    for unit in order:
        shown: list[Row | None] = []
        for name, mean in zip(names, means[unit]):
            there = cells.get((unit, name), [])
            if not there:
                shown.append(None)
                continue
            good = [(sample, score) for sample, score in there if math.isfinite(score)]
            items = [pictures.item(sample.image, score) for sample, score in good[:_CELL]]
            more = len(good) if len(good) > 1 else 0
            failed = len(there) - len(good)
            shown.append({"pictures": items, "score": number(mean), "more": more, "failed": failed})
        rows.append(
            {
                "prompt": prompts[unit],
                "cells": shown,
                "spread": number(spreads[unit]),
                "spread_key": _key(spreads[unit]),
                "sort_keys": [_key(mean) for mean in means[unit]],
            }
        )
    return {"names": names, "rows": rows, "left": len(prompts) - len(rows)}


def _key(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""
