"""Evaluate metrics against human scores: tables and metrics in any form in, a comparison out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from leafiqa.errors import InputError
from leafiqa.evaluation.comparison import Comparison, compare
from leafiqa.evaluation.scorers import Scorer, as_scorer, column_scorer
from leafiqa.files import printable, sha256_if_readable
from leafiqa.labels.mos_table import MosTable


def evaluate_table(
    table: MosTable,
    metrics: Sequence[Any],
    *,
    columns: Sequence[str] = (),
    by: str | None = None,
    draws: int = 2000,
    seed: int = 0,
    device: Any = None,
    advance: Callable[[], None] = lambda: None,
) -> Comparison:
    """Compare metrics with human scores.

    Args:
        table: images with human scores.
        metrics: see `leafiqa.evaluation.scorers.as_scorer`.
        columns: columns of the table with scores of other metrics, read with `score_columns`.
        by: "group" or "part": also break the agreement down by it.
        draws: bootstrap samples.
        seed: seeds them.
        device: where metrics given by name compute.
        advance: called once for each image and metric that is done.

    Raises:
        InputError: a metric stands twice, or fewer than three images have a score from every metric.
    """
    scorers = [as_scorer(metric, device) for metric in metrics]
    scorers += [
        column_scorer(column, {str(row.path): row.others.get(column) for row in table.rows}) for column in columns
    ]
    named: dict[str, Scorer] = {}
    for scorer in scorers:
        if scorer.weights and any(scorer.weights == other.weights for other in named.values()):
            raise InputError(f"{scorer.name} with weights {scorer.weights[:12]} is given twice")
        label = scorer.name
        if label in named:  # two of one name: told apart by their weights, or by a number
            label = f"{label} ({scorer.weights[:12] or len(named) + 1})"
        named[label] = scorer
    if not named:
        raise InputError("evaluate needs at least one metric or column of scores")
    result = compare(
        table,
        {label: lambda paths, scorer=scorer: scorer.score(paths, advance) for label, scorer in named.items()},  # type: ignore[misc]
        draws=draws,
        seed=seed,
        by=None if by is None else (lambda row: row.group if by == "group" else row.part),
    )
    result.weights = {label: scorer.weights for label, scorer in named.items() if scorer.weights}
    remarks = [f"{printable(image)}: {printable(why)}" for of in named.values() for image, why in of.reasons.items()]
    remarks += [scorer.remark for scorer in named.values() if scorer.remark]
    remarks += _known_already(table, named)
    result.problems = remarks + result.problems
    return result


def _known_already(table: MosTable, named: dict[str, Scorer]) -> list[str]:
    """Say which metrics were calibrated on some of the very labels that they are judged by."""
    if not any(scorer.labelled for scorer in named.values()):
        return []
    digests = [(sha256_if_readable(row.path) or "")[:12] for row in table.rows]
    remarks = []
    for label, scorer in named.items():
        if count := sum(digest in scorer.labelled for digest in digests):
            remarks.append(
                f"{label} was calibrated on {count} of these {len(digests)} images: its figures here flatter it"
            )
    return remarks
