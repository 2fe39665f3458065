"""`leafiqa compare`: which image generator is better, and how sure that is."""

from __future__ import annotations

import os
import warnings
from functools import partial
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
    need_no_metric_among,
    overwrite_option,
    page_options,
    seed_option,
    several_metrics_options,
)
from leafiqa.cli.output import note, remarks, result, result_json
from leafiqa.cli.progress import progress

# Not 1 (some image has no score) nor 2 (usage), so that CI can tell them apart.
_WORSE = 3
# Pictures without a score that are named on stderr.
_SHOWN = 50


def _begins(head: bytes, found: bytes) -> bool:
    return found.startswith(head)


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
    need_no_metric_among(generators)
    import leafiqa
    from leafiqa.files import check_output
    from leafiqa.generators.generator_comparison import GENERATORS_HEAD, IMAGES_HEAD, PAIRS_HEAD
    from leafiqa.generators.places import as_mapping
    from leafiqa.reports.pictures import check_page

    if as_json + markdown + latex > 1:
        raise click.UsageError("--json, --markdown and --latex exclude each other")
    if by is not None and baseline is None:
        raise click.UsageError("--by belongs to --fail-if-worse")
    given = as_mapping(generators)
    named = [place for of in given.values() for place in of] if isinstance(given, dict) else given
    if isinstance(given, dict) and baseline is not None and baseline not in given:
        raise click.UsageError(f"--fail-if-worse must be one of {', '.join(given)}, got {baseline}")
    # All that can be refused is refused before the work.
    heads = ((csv, GENERATORS_HEAD), (differences, PAIRS_HEAD), (scores, IMAGES_HEAD))
    outputs = [(place, head) for place, head in heads if place is not None]
    if len({place for place, _ in outputs}) < len(outputs):
        raise click.UsageError("--csv, --differences and --scores must be different files")
    inputs = [place for place in named if os.path.isfile(place)]
    for place, head in outputs:
        check_output(place, inputs=inputs, overwrite=overwrite, is_ours=partial(_begins, head))
    if html is not None:
        check_page(html, thumbnails, overwrite=overwrite, inputs=inputs)
    warnings.simplefilter("ignore")
    metrics = metrics_of(names, places, device) if names or places else None
    with progress("scoring") as bar:
        found = leafiqa.compare(
            given,
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
    remarks(found.remarks)
    for path, why in list(found.failed.items())[:_SHOWN]:
        note(f"  error  {path}: {why}")
    if len(found.failed) > _SHOWN:
        note(f"  error  and {len(found.failed) - _SHOWN} more, which --json names")
    if as_json:
        result_json(found.to_dict())
    else:
        result(found.to_markdown() if markdown else found.to_latex() if latex else str(found))
    for output, write in ((csv, found.to_csv), (differences, found.pairs_to_csv), (scores, found.scores_to_csv)):
        if output is not None:
            write(output, overwrite=overwrite)
    if html is not None:
        with progress("thumbnails") as bar:
            leafiqa.report(found, html, thumbnails=thumbnails, max_images=max_images, overwrite=overwrite, progress=bar)
    worse = found.worse_than(baseline, by or 0.0) if baseline is not None else []
    if worse:
        remarks(f"{pair.verdict.words}, by {abs(pair.difference):.3f}" for pair in worse)
        raise click.exceptions.Exit(_WORSE)
    if found.failed:
        raise click.exceptions.Exit(1)
