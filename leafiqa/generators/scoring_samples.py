"""Scores of all pictures by all metrics, none computed twice: known ones come from files of scores and the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leafiqa.errors import InputError
from leafiqa.evaluation.scorers import as_scorer, own_metric
from leafiqa.files import sha256_if_readable
from leafiqa.generators.samples import Samples
from leafiqa.generators.score_cache import ScoreCache, key_of
from leafiqa.images.loading import load_ahead
from leafiqa.metric import Metric
from leafiqa.scoring.pipeline import score_files
from leafiqa.scoring.rows import HASH_DIGITS

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]
# What columns of a table of pictures are called, beside the metrics'.
RESERVED = ("image", "generator", "unit", "prompt", "seed")
# So many new scores are put into the cache together: a kill loses no more than these.
_KEEP = 64


@dataclass
class ScoredSamples:
    """Pictures with their scores.

    Attributes:
        samples: the pictures.
        scores: `(n,)` by metric, in the order of `samples.samples`; NaN where there is none.
        weights: by metric, the sha256 of its weights, or the first digits that a file of scores tells.
        errors: why a picture has no score, by metric and path.
        remarks: what a reader must know, pairing not included.
        reused: how many scores were known before.
    """

    samples: Samples
    scores: dict[str, Array]
    weights: dict[str, str] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    reused: int = 0

    def failed(self) -> dict[str, str]:
        """Return why pictures have no score from some metric, by path."""
        return {path: why for errors in self.errors.values() for path, why in errors.items()}


def score_samples(
    samples: Samples,
    metrics: Sequence[Any] | None,
    *,
    columns: Sequence[str] = (),
    cache: ScoreCache | None = None,
    device: Any = None,
    batch_size: int = 64,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> ScoredSamples:
    """Score pictures.

    Args:
        samples: the pictures.
        metrics: names, metrics, calibrations, other toolkits' metrics, callables from a path to a number; None takes
            what files of scores hold where they hold all pictures, else `leaf`, unless there are columns.
        columns: columns of the lists of pictures, which count as further metrics.
        cache: where scores of leafiqa's own metrics are looked up and kept.
        device: where metrics given by name compute.
        batch_size: pictures scored together.
        workers: threads; see `leafiqa.scoring.pipeline.score_files`.
        progress: called with how many scores are done, and how many there are.

    Raises:
        InputError: two metrics of one name, or a file of scores lacks a metric for some generator.
    """
    found = ScoredSamples(samples, {})
    paths = list(dict.fromkeys(sample.image for sample in samples.samples))
    if metrics is None and samples.scores and all(path in samples.scores for path in paths):
        _from_files(found, paths)
        metrics = []
    elif metrics is None:
        metrics = [] if columns else ["leaf"]
    given = [own_metric(metric, device) or metric for metric in metrics]
    scorers = [as_scorer(metric) for metric in given]
    ours = [metric for metric in given if isinstance(metric, Metric)]
    total, done = len(paths) * len(given), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    known = _score_ours(found, ours, paths, cache, batch_size, workers, advance) if ours else []
    for metric, scorer in zip(given, scorers):
        if scorer.name in found.scores:
            raise InputError(f"the metric {scorer.name} is given twice")
        _check_free(scorer.name)
        if isinstance(metric, Metric):
            values, reasons = known.pop(0)
        else:
            values = dict(zip(paths, scorer.score([Path(path) for path in paths], advance)))
            reasons = scorer.reasons
        _enter(found, scorer.name, scorer.weights, values, reasons)
        if scorer.remark:
            found.remarks.append(scorer.remark)
    for column in columns:
        if column in found.scores:
            raise InputError(f"column {column} has the name of a metric; rename it")
        _check_free(column)
        cells = [dict(sample.columns).get(column) for sample in samples.samples]
        found.scores[column] = np.array([math.nan if cell is None else cell for cell in cells], dtype=np.float64)
        found.weights[column] = ""
        found.errors[column] = {
            sample.image: f"column {column} holds no number"
            for sample, cell in zip(samples.samples, cells)
            if cell is None
        }
    return found


def _check_free(name: str) -> None:
    """Refuse a metric's name that a table of scores uses for something else.

    Raises:
        InputError: it is such a name.
    """
    if name.lower() in RESERVED:
        raise InputError(f"a metric or column cannot be called {name}: tables use that name; rename it")


def _enter(found: ScoredSamples, name: str, weights: str, values: dict[str, float], reasons: dict[str, str]) -> None:
    scores = [values.get(sample.image, math.nan) for sample in found.samples.samples]
    found.scores[name] = np.array(scores, dtype=np.float64)
    found.weights[name] = weights
    found.errors[name] = {
        path: reasons.get(path, "no score") for path, value in values.items() if not math.isfinite(value)
    }
    # A score without end would make every mean one, too.
    found.scores[name][~np.isfinite(found.scores[name])] = math.nan


def _digests(paths: Sequence[str]) -> dict[str, str]:
    """Return the first digits of each file's sha256, empty where it cannot be read."""
    return dict(zip(paths, load_ahead(lambda path: (sha256_if_readable(path) or "")[:HASH_DIGITS], paths)))


def _from_files(found: ScoredSamples, paths: Sequence[str]) -> None:
    """Take the scores that files of scores hold; of pictures that are there and have changed since, none."""
    digests = _digests(paths)
    rows = {path: {(row.metric, row.weights): row for row in found.samples.scores[path]} for path in paths}
    names = list(dict.fromkeys(key for of in rows.values() for key in of))
    if len({name for name, _ in names}) < len(names):
        twice = next(name for name, _ in names if sum(name == other for other, _ in names) > 1)
        raise InputError(
            f"the files of scores were made with different weights called {twice}: "
            f"{', '.join(weights for name, weights in names if name == twice)}; scores of different models do not mix"
        )
    of_generator: dict[str, set[tuple[str, str]]] = {}
    for sample in found.samples.samples:
        of_generator.setdefault(sample.generator, set()).update(rows[sample.image])
    shared = [key for key in names if all(key in keys for keys in of_generator.values())]
    if not shared:
        told = "; ".join(f"{whose}: {', '.join(sorted(n for n, _ in keys))}" for whose, keys in of_generator.items())
        raise InputError(f"no metric is in the scores of every generator ({told}); score them with one metric")
    for name, weights in names:
        if (name, weights) not in shared:
            found.remarks.append(f"{name}: not in the scores of every generator: left out")
            continue
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for path in paths:
            row = rows[path].get((name, weights))
            if row is None:
                values[path], reasons[path] = math.nan, "not in the file of scores"
            elif digests[path] and row.sha256 and digests[path] != row.sha256:
                values[path], reasons[path] = math.nan, "the picture changed since it was scored: score it again"
            else:
                values[path] = math.nan if row.score is None else row.score
                reasons[path] = row.error or "the file of scores holds no number"
                found.reused += row.score is not None
        _enter(found, name, weights, values, reasons)


def _score_ours(
    found: ScoredSamples,
    metrics: Sequence[Metric],
    paths: Sequence[str],
    cache: ScoreCache | None,
    batch_size: int,
    workers: int | None,
    advance: Callable[[], None],
) -> list[tuple[dict[str, float], dict[str, str]]]:
    """Return for each metric its scores, and why there are none, by path; each picture is decoded once."""
    keys = [key_of(metric) for metric in metrics]
    values: list[dict[str, float]] = [{} for _ in metrics]
    reasons: list[dict[str, str]] = [{} for _ in metrics]
    hashes = {metric.card.short_hash for metric in metrics}
    others = {(row.metric, row.weights) for rows in found.samples.scores.values() for row in rows}
    if unused := sorted(f"{name} ({digest})" for name, digest in others if digest not in hashes):
        found.remarks.append(f"scores of {', '.join(unused)} in the files given are of other weights: not used")
    if cache is not None or found.samples.scores:
        digests = _digests(paths)
        for number, (metric, key) in enumerate(zip(metrics, keys)):
            there = cache.find(sorted(set(digests.values()) - {""}), key) if cache is not None else {}
            for path in paths:
                told = {
                    row.score
                    for row in found.samples.scores.get(path, ())
                    if row.score is not None
                    and row.weights == metric.card.short_hash
                    and row.sha256 in (digests[path], "" if digests[path] else row.sha256)
                }
                score = there.get(digests[path], next(iter(told), None))
                if score is not None:
                    values[number][path] = score
        found.reused += sum(map(len, values))
    left = [path for path in paths if any(path not in of for of in values)]
    for _ in range((len(paths) - len(left)) * len(metrics)):
        advance()
    fresh: list[tuple[str, str, float]] = []
    try:
        for place, row in enumerate(score_files(metrics, left, batch_size, workers)):
            number = place % len(metrics)
            values[number][row.image] = math.nan if row.score is None else row.score
            if row.score is None:
                reasons[number][row.image] = row.error
            elif cache is not None and row.sha256:
                fresh.append((row.sha256, keys[number], row.score))
                if len(fresh) >= _KEEP:
                    cache.add(fresh)
                    fresh = []
            advance()
    finally:
        if cache is not None and fresh:
            cache.add(fresh)
    return list(zip(values, reasons))
