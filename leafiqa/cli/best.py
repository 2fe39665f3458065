"""`leafiqa best`: the best of several pictures of each prompt."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import click

from leafiqa.cli.options import (
    FILE,
    FOLDER,
    cache_of,
    cache_options,
    device_option,
    json_option,
    layout_option,
    metric_options,
    need_no_metric_among,
    overwrite_option,
)
from leafiqa.cli.output import note, remarks, result, result_json
from leafiqa.cli.progress import progress


@click.command("best", short_help="Take the best of several pictures of each prompt.")
@click.argument("images", nargs=-1, required=True, metavar="[NAME=]PLACE...")
@click.option(
    "--per", type=click.Choice(["prompt", "folder", "all"]), default="prompt", show_default=True, help="Best of what."
)
@click.option("-n", "count", type=click.IntRange(1), default=1, show_default=True, help="How many of each.")
@metric_options
@layout_option
@cache_options
@device_option
@click.option("--copy-to", type=FOLDER, help="Copy the chosen pictures into a new folder, with a list best.csv.")
@click.option("--list", "listed", is_flag=True, help="Print only the chosen pictures' paths, a line each.")
@json_option
@click.option("-o", "--output", type=FILE, help="CSV to write instead of stdout.")
@overwrite_option
def command(
    images: tuple[str, ...],
    per: str,
    count: int,
    name: str,
    weights: str | None,
    layout: str | None,
    cache: Path | None,
    no_cache: bool,
    device: str,
    copy_to: Path | None,
    listed: bool,
    as_json: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Choose the best pictures of each prompt, of a generator's folder, list or file of scores.

    What is shown of them is best of N and must be called so: the output says of how many each was chosen.
    """
    need_no_metric_among(images)
    import leafiqa
    from leafiqa.files import check_output
    from leafiqa.generators.best_pictures import check_new
    from leafiqa.generators.places import as_mapping

    if listed and as_json:
        raise click.UsageError("--list and --json exclude each other")
    if output is not None:
        check_output(output, overwrite=overwrite or not os.path.exists(output))
    if copy_to is not None:
        check_new(copy_to)
    warnings.simplefilter("ignore")
    told = click.get_current_context().get_parameter_source("name")
    given = name if told is not None and told.name != "DEFAULT" else None
    with progress("scoring") as bar:
        found = leafiqa.best(
            as_mapping(images),
            given,
            per=per,
            n=count,
            weights=weights,
            layout=layout,
            cache=cache_of(cache, no_cache),
            device=device,
            progress=bar,
        )
    remarks(found.remarks)
    for path, why in found.failed.items():
        note(f"  error  {path}: {why}")
    if output is not None:
        found.to_csv(output, overwrite=overwrite)
    if copy_to is not None:
        note(f"{len(found.copy_to(copy_to))} pictures copied to {copy_to}: the best of each {per}, listed in best.csv")
    if as_json:
        result_json(found.to_dict())
    elif listed:
        for path in found.paths:
            result(path)
    elif output is None and copy_to is None:
        result(str(found))
    if found.failed:
        raise click.exceptions.Exit(1)
