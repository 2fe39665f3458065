"""Options that several commands have, each with one meaning everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def give(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return give


_PLACE = "a file, a folder or hf-hub:owner/repo[@revision]"

metric_options = _all(
    click.option("--metric", "name", default="leaf", show_default=True, help="A name that `leafiqa models` lists."),
    click.option("--weights", help=f"A student in some place, instead of a name: {_PLACE}."),
)

several_metrics_options = _all(
    click.option(
        "--metric", "names", multiple=True, help="A name that `leafiqa models` lists; several times for several."
    ),
    click.option("--weights", "places", multiple=True, help=f"A student in some place: {_PLACE}; several times too."),
)

device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... auto is CUDA where there is one."
)

recursive_option = click.option("-r", "--recursive", is_flag=True, help="Look into folders inside folders, too.")

seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seeds whatever is drawn at random."
)

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what the command wrote there before.")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

table_options = _all(
    click.option(
        "--mos",
        "table",
        type=click.Path(path_type=Path),
        required=True,
        help="CSV with columns image and mos (higher is better), perhaps mos_se or mos_std, and group; or the folder "
        "of a known data set.",
    ),
    click.option(
        "--images", type=FOLDER, help="Folder that the table's names are relative to.  [default: the table's]"
    ),
    click.option("--image-column", help="The column with the image's name, if it is not called image."),
    click.option("--mos-column", help="The column with the human score, if it is not called mos."),
    click.option("--split", help="Only this split: of the table's column split, or official."),
)

layout_option = click.option(
    "--layout",
    type=click.Choice(["names", "numbered", "folders", "geneval"]),
    help="How prompts are told from file names.  [default: recognised]",
)

page_options = _all(
    click.option(
        "--thumbnails",
        type=click.Choice(["embed", "beside"]),
        default="embed",
        show_default=True,
        help="Small copies of pictures in the page, or in a folder beside it.",
    ),
    click.option(
        "--max-images", type=click.IntRange(0), default=1500, show_default=True, help="At most so many small copies."
    ),
)

cache_options = _all(
    click.option("--cache", type=FILE, help="Keep scores by content here.  [default: in the user's cache folder]"),
    click.option("--no-cache", is_flag=True, help="Neither look up nor keep scores."),
)

evidence_options = _all(
    click.option("--evidence", type=FILE, multiple=True, help="A teacher's evidence; several times for several files."),
    click.option("--evidence-images", type=FOLDER, help="Folder that the evidence's names are relative to."),
)


def cache_of(cache: Path | None, no_cache: bool) -> Path | bool:
    """Return the argument `cache` of the verbs that `cache_options` mean."""
    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other")
    return False if no_cache else cache or True


def need_no_metric_among(paths: tuple[str, ...]) -> None:
    """Refuse a path that is the name of a bundled student and no file: `--metric` takes one name each.

    Raises:
        click.UsageError: names the student, and how several are given.
    """
    from leafiqa.model.registry import names

    known = set(names())
    for path in paths:
        if path in known and not Path(path).exists():
            raise click.UsageError(
                f"{path} is the name of a metric, and no file is called so: write --metric {path}, one for each metric"
            )


def metrics_of(
    names: tuple[str, ...],
    places: tuple[str, ...],
    device: str,
    backend: str | None = None,
    draft: bool = False,
    without_torch: bool = False,
) -> list[Any]:
    """Return the metrics that `several_metrics_options` name; `leaf` if they name none."""
    from leafiqa.scoring.backends import load

    chosen: list[tuple[str, str | None]] = [(name, None) for name in names or (() if places else ("leaf",))]
    chosen += [("leaf", place) for place in places]
    return [load(name, place, device, backend, draft, without_torch=without_torch) for name, place in chosen]
