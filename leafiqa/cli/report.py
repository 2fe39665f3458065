"""`leafiqa report`: a page to show, of a folder or of several generators."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from leafiqa.cli.options import (
    FILE,
    device_option,
    metrics_of,
    need_no_metric_among,
    overwrite_option,
    page_options,
    recursive_option,
    several_metrics_options,
)
from leafiqa.cli.output import note, remarks
from leafiqa.cli.progress import progress


@click.command("report", short_help="Write a page to show: distribution, worst, best.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", type=FILE, required=True, help="The page: one HTML file.")
@several_metrics_options
@recursive_option
@click.option("--title", help="The page's title.")
@page_options
@device_option
@overwrite_option
def command(
    paths: tuple[str, ...],
    output: Path,
    names: tuple[str, ...],
    places: tuple[str, ...],
    recursive: bool,
    title: str | None,
    thumbnails: str,
    max_images: int,
    device: str,
    overwrite: bool,
) -> None:
    """Write one HTML page that opens by double click and makes no request.

    PATH is a file, folder or pattern of pictures; a file that `leafiqa score` wrote; or NAME=PLACE, at least two, or a
    table of generators, which are compared as `leafiqa compare` does (whose --html has more options).
    """
    need_no_metric_among(paths)
    import leafiqa
    from leafiqa.generators.places import as_mapping, is_score_file, read_scores
    from leafiqa.reports.pictures import check_page

    check_page(output, thumbnails, overwrite=overwrite)
    warnings.simplefilter("ignore")
    metrics = metrics_of(names, places, device) if names or places else None
    given = as_mapping(paths)
    source: Any
    with progress("scoring") as bar:
        alone = Path(given[0]) if isinstance(given, list) and len(given) == 1 else None
        table = alone if alone is not None and alone.suffix.lower() in (".csv", ".jsonl", ".json") else None
        if table is not None and is_score_file(table):
            scored = read_scores(table)
            source, failed, lines = scored, len(scored.failed), scored.remarks
        elif table is not None or isinstance(given, dict):
            compared = leafiqa.compare(given, metrics, device=device, progress=bar)
            source, failed, lines = compared, len(compared.failed), compared.remarks
        else:
            scored = leafiqa.score(given, metrics or "leaf", recursive=recursive, device=device, progress=bar)
            source, failed, lines = scored, len({row.image for row in scored.failed}), scored.remarks
    with progress("thumbnails") as bar:
        leafiqa.report(
            source,
            output,
            title=title,
            thumbnails=thumbnails,
            max_images=max_images,
            overwrite=overwrite,
            progress=bar,
        )
    remarks(lines)
    note(f"page written to {output}")
    if failed:
        note(f"leafiqa: {failed} images have no score; the page names them")
        raise click.exceptions.Exit(1)
