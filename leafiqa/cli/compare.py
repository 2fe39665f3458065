"""`leafiqa compare`: which image generator is better, and how sure that is."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import click

from leafiqa.cli.options import (
    FILE,
    cache_of,
    cache_options,
    device_option,
    json_option,
    layout_option,
    metrics_of,
    overwrite_option,
    page_options,
    seed_option,
    several_metrics_options,
)
from leafiqa.cli.output import note, remarks, result, result_json
from leafiqa.cli.progress import progress

# Not 1 (some image has no score) nor 2 (usage), so that CI can tell them apart.
_WORSE = 3


@click.command("compare", short_help="Compare image generators, prompt by prompt.")
@click.argument("generators", nargs=-1, required=True, metavar="[NAME=]PLACE...")
@several_metrics_options
@click.option("--column", "columns", multiple=True, help="A column of the table with another metric's scores.")
@layout_option
@click.option("--below", type=float, help="Also tell the share of pictures that score below this.")
@click.option(
    "--margin",
    type=click.FloatRange(0),
    help="The largest difference that does not matter.  [default: a tenth of the scores' standard deviation]",
)
@cache_options
@device_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
@click.option("--latex", is_flag=True, help="Print a table for a paper: LaTeX with booktabs.")
@click.option("--html", type=FILE, help="Write the page that shows everything, pictures too: one file.")
@page_options
@click.option("--csv", type=FILE, help="Write a row for each metric and generator as CSV.")
@click.option("--differences", type=FILE, help="Write a row for each metric and pair of generators as CSV.")
@click.option("--scores", type=FILE, help="Write each image's prompt and scores as CSV.")
@overwrite_option
@click.option("--fail-if-worse", "baseline", metavar="GENERATOR", help="Exit with 3 if another one is worse than this.")
@click.option("--by", type=click.FloatRange(0), help="Only if it is worse by more than this.")
@seed_option
def command(
    generators: tuple[str, ...],
    names: tuple[str, ...],
    places: tuple[str, ...],
    columns: tuple[str, ...],
    layout: str | None,
    below: float | None,
    margin: float | None,
    cache: Path | None,
    no_cache: bool,
    device: str,
    as_json: bool,
    markdown: bool,
    latex: bool,
    html: Path | None,
    thumbnails: str,
    max_images: int,
    csv: Path | None,
    differences: Path | None,
    scores: Path | None,
    overwrite: bool,
    baseline: str | None,
    by: float | None,
    seed: int,
) -> None:
    """Compare two or more image generators.

    Give NAME=FOLDER for each; or one folder that holds a folder for each; or a table with the columns image, generator,
    prompt; or files that `leafiqa score` wrote. The same NAME twice means further seeds. Pictures of one prompt are
    found by their names, and what was paired with what is told on stderr.
    """
    import leafiqa
    from leafiqa.files import check_output
    from leafiqa.generators.places import as_mapping
    from leafiqa.reports.pages import is_page

    if as_json + markdown + latex > 1:
        raise click.UsageError("--json, --markdown and --latex exclude each other")
    if by is not None and baseline is None:
        raise click.UsageError("--by belongs to --fail-if-worse")
    inputs = [place for place in generators if os.path.isfile(place)]
    for output in filter(None, (csv, differences, scores, html)):
        check_output(output, inputs=inputs, overwrite=overwrite or not os.path.exists(output))
    if html is not None:
        check_output(html, inputs=inputs, overwrite=overwrite, is_ours=is_page)
    warnings.simplefilter("ignore")
    metrics = metrics_of(names, places, device) if names or places else None
    with progress("scoring") as bar:
        found = leafiqa.compare(
            as_mapping(generators),
            metrics,
            columns=columns,
            layout=layout,
            below=below,
            margin=margin,
            cache=cache_of(cache, no_cache),
            device=device,
            seed=seed,
            progress=bar,
        )
    worse = found.worse_than(baseline, by or 0.0) if baseline is not None else []
    remarks(found.remarks)
    for path, why in found.failed.items():
        note(f"  error  {path}: {why}")
    for place, write in ((csv, found.to_csv), (differences, found.pairs_to_csv), (scores, found.scores_to_csv)):
        if place is not None:
            write(place, overwrite=overwrite)
    if html is not None:
        with progress("thumbnails") as bar:
            leafiqa.report(found, html, thumbnails=thumbnails, max_images=max_images, overwrite=overwrite, progress=bar)
    if as_json:
        result_json(found.to_dict())
    else:
        result(found.to_markdown() if markdown else found.to_latex() if latex else str(found))
    if worse:
        remarks(f"{pair.verdict.words}, by {abs(pair.difference):.3f}" for pair in worse)
        raise click.exceptions.Exit(_WORSE)
    if found.failed:
        raise click.exceptions.Exit(1)
