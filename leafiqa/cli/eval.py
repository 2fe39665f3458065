"""`leafiqa eval`: how well metrics agree with human scores."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leafiqa.cli.progress import progress
from leafiqa.cli.table import table_options

if TYPE_CHECKING:
    from leafiqa.evaluate.compare import Comparison
    from leafiqa.metric import Metric

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("eval")
@table_options
@click.option(
    "--metric", "names", multiple=True, help="A name, file, folder or hf-hub:...; may be given several times."
)
@click.option("--by-group", is_flag=True, help="Also by the column group.")
@click.option("--by", "part_column", help="Also by this column of the table, such as the generator.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON instead of a table.")
@click.option("--csv", "measures", type=_FILE, help="Write each metric's measures and intervals as CSV.")
@click.option("--scores", type=_FILE, help="Write each image's MOS and scores as CSV.")
@click.option("--plot", type=_FILE, help="Write a scatter plot, PNG; needs matplotlib.")
@click.option("--draws", type=click.IntRange(100), default=2000, show_default=True, help="Bootstrap samples.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seeds the bootstrap.")
def evaluate(
    table: Path,
    names: tuple[str, ...],
    images: Path | None,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    by_group: bool,
    part_column: str | None,
    device: str,
    as_json: bool,
    measures: Path | None,
    scores: Path | None,
    plot: Path | None,
    draws: int,
    seed: int,
) -> None:
    """Compare metrics with human scores: SRCC, PLCC, KRCC, RMSE, with intervals and paired significance."""
    import leafiqa
    from leafiqa.evaluate.compare import compare, write_measures, write_scores
    from leafiqa.evaluate.datasets import read_labels

    if by_group and part_column is not None:
        raise click.UsageError("give --by-group or --by, not both")
    warnings.simplefilter("ignore")
    labelled = read_labels(
        table,
        images=images,
        image_column=image_column,
        mos_column=mos_column,
        split=split,
        part_column=part_column,
    )
    metrics: dict[str, Metric] = {}
    for name in names or ("leaf",):
        metric = leafiqa.create_metric(weights=name, device=device)
        label = metric.metric_name
        if label in metrics:
            # Two students of one name: tell them apart by their weights.
            label = f"{label} ({metric.card.short_hash})"
        if any(metric.card.sha256 == other.card.sha256 for other in metrics.values()):
            raise click.UsageError(f"--metric {name}: {metric.metric_name} with these weights is given twice")
        metrics[label] = metric
    reasons: dict[str, str] = {}
    with progress(len(labelled.rows) * len(metrics), "scoring") as advance:
        result = compare(
            labelled,
            {label: _scorer(metric, advance, reasons) for label, metric in metrics.items()},
            draws=draws,
            seed=seed,
            by=(lambda row: row.group) if by_group else (lambda row: row.part) if part_column is not None else None,
        )
    for problem in (*(f"{image}: {why}" for image, why in reasons.items()), *result.problems):
        click.echo(f"leafiqa: {problem}", err=True)
    if scores is not None:
        write_scores(result, scores)
    if measures is not None:
        write_measures(result, measures)
    if plot is not None:
        from leafiqa.evaluate.plot import scatter

        scatter(result, plot)
    hashes = {label: metric.card.sha256 for label, metric in metrics.items()}
    if as_json:
        click.echo(json.dumps({"table": table.name, "split": split, "weights": hashes, **result.to_dict()}, indent=2))
    else:
        click.echo(_report(result), nl=False)
    if any("no score" in problem for problem in result.problems):
        raise click.exceptions.Exit(1)


def _scorer(
    metric: Metric, advance: Callable[[], None], reasons: dict[str, str]
) -> Callable[[list[Path]], list[float]]:
    """Return what scores files; why one has no score is put into `reasons`."""

    def score(paths: list[Path]) -> list[float]:
        from leafiqa.folder.pipeline import score_files

        found = []
        for row in score_files(metric, map(str, paths)):
            found.append(float("nan") if row.score is None else row.score)
            if row.score is None:
                reasons[row.image] = row.error
            advance()
        return found

    return score


def _report(result: Comparison) -> str:
    lines = [f"{len(result.images)} images, 95 % bootstrap intervals over {result.over}"]
    width = max(6, *(len(name) for name in result.agreement))
    head = f"{'SRCC':24}{'PLCC':24}{'PLCC mapped*':>12}{'KRCC':>8}{'RMSE':>9}{'RMSE mapped*':>14}"
    lines.append(f"{'metric':{width}}  {head}")

    def line(name: str, measured: Any) -> str:
        def with_interval(value: float, ends: tuple[float, float]) -> str:
            return f"{f'{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]':24}"

        return (
            f"{name:{width}}  {with_interval(measured.srcc, measured.srcc_interval)}"
            f"{with_interval(measured.plcc, measured.plcc_interval)}{measured.plcc_mapped:12.3f}{measured.krcc:8.3f}"
            f"{measured.rmse:9.3f}{measured.rmse_mapped:14.3f}"
        )

    lines += [line(name, measured) for name, measured in result.agreement.items()]
    for part, by_metric in result.parts.items():
        lines.append(f"\n{part}, n={next(iter(by_metric.values())).n}")
        lines += [line(name, measured) for name, measured in by_metric.items()]
    if result.differences:
        lines.append("\npaired difference in SRCC")
    for pair in result.differences:
        lines.append(
            f"{pair['first']} - {pair['second']}: {pair['difference']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}], "
            f"p={pair['p']:.3f}"
        )
    lines.append("\n* after a four-parameter logistic fitted on these same images: flatters, compare with papers only")
    return "\n".join(lines) + "\n"
