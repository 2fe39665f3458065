"""`leafiqa eval`: how well metrics agree with human scores."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import click

from leafiqa.cli.options import (
    FILE,
    device_option,
    json_option,
    metrics_of,
    overwrite_option,
    seed_option,
    several_metrics_options,
    table_options,
)
from leafiqa.cli.output import remarks, result, result_json
from leafiqa.cli.progress import progress


@click.command("eval", short_help="Compare metrics with human scores.")
@table_options
@several_metrics_options
@click.option("--column", "columns", multiple=True, help="A column of the table with another metric's scores.")
@click.option("--by", help="Also by this column of the table, such as generator or group.")
@device_option
@json_option
@click.option("-o", "--output", type=FILE, help="Write each metric's measures and intervals as CSV.")
@click.option("--scores", type=FILE, help="Write each image's MOS and scores as CSV.")
@click.option("--plot", type=FILE, help="Write a scatter plot, PNG; needs matplotlib.")
@overwrite_option
@click.option("--draws", type=click.IntRange(100), default=2000, show_default=True, help="Bootstrap samples.")
@seed_option
def command(
    table: Path,
    images: Path | None,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    names: tuple[str, ...],
    places: tuple[str, ...],
    columns: tuple[str, ...],
    by: str | None,
    device: str,
    as_json: bool,
    output: Path | None,
    scores: Path | None,
    plot: Path | None,
    overwrite: bool,
    draws: int,
    seed: int,
) -> None:
    """Compare metrics with human scores: SRCC, PLCC, KRCC, RMSE, with intervals and paired significance."""
    import leafiqa
    from leafiqa.evaluation.plots import check_plot, scatter
    from leafiqa.files import check_output

    warnings.simplefilter("ignore")
    inputs = [table] if table.is_file() else []
    for place in filter(None, (output, scores)):
        # Only a place that cannot be written, before the work; what may be replaced is decided when it is written.
        check_output(place, inputs=inputs, overwrite=overwrite or not os.path.exists(place))
    if plot is not None:
        check_plot(plot, overwrite)
    metrics: list[Any] = metrics_of(names, places, device) if names or places or not columns else []
    with progress("scoring") as bar:
        found = leafiqa.evaluate(
            table,
            metrics,
            columns=columns,
            images=images,
            image_column=image_column,
            mos_column=mos_column,
            split=split,
            by=by,
            draws=draws,
            seed=seed,
            progress=bar,
        )
    remarks(found.problems)
    if scores is not None:
        found.scores_to_csv(scores, inputs=inputs, overwrite=overwrite)
    if output is not None:
        found.to_csv(output, overwrite=overwrite)
    if plot is not None:
        scatter(found, plot, overwrite=overwrite)
    if as_json:
        result_json({"table": table.name, "split": split, **found.to_dict()})
    else:
        result(str(found))
    if any("no score" in problem for problem in found.problems):
        raise click.exceptions.Exit(1)
