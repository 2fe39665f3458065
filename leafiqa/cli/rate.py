"""`leafiqa rate` and `leafiqa mos`: rate pictures by eye, and turn the answers into a table of MOS."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import click

from leafiqa.cli.options import (
    FILE,
    device_option,
    json_option,
    metric_options,
    need_no_metric_among,
    overwrite_option,
    recursive_option,
    seed_option,
)
from leafiqa.cli.output import note, remarks, result, result_json
from leafiqa.cli.progress import progress


@click.command("rate", short_help="Rate pictures by eye, on a page of this machine.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", type=FILE, required=True, help="The file of answers, CSV; gone on with if it is there.")
@click.option("-n", "--budget", type=click.IntRange(1), help="How many pictures to rate.  [default: 50, or all]")
@click.option(
    "--ask",
    type=click.Choice(["rating", "comparison", "both"]),
    default="rating",
    show_default=True,
    help="Five levels, which of two looks better, or both.",
)
@recursive_option
@metric_options
@click.option(
    "--calibrate", "student", type=click.Path(path_type=Path), help="At the end write this student: FOLDER/arch.tag."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address lets other machines in.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port of the page.  [default: a free one]")
@device_option
@overwrite_option
@seed_option
def command(
    paths: tuple[str, ...],
    output: Path,
    budget: int | None,
    ask: str,
    recursive: bool,
    name: str,
    weights: str | None,
    student: Path | None,
    host: str,
    port: int,
    device: str,
    overwrite: bool,
    seed: int,
) -> None:
    """Rate pictures by eye: files, folders, globs in PATH.

    Opens a page on this machine, whose address is printed. Several people may rate at once, each under a name of their
    own. Every answer is on disk before the next picture shows; run the same command again to go on. At the end mos.csv
    is written beside the answers, for `leafiqa calibrate --mos`.
    """
    need_no_metric_among(paths)
    import leafiqa
    from leafiqa.calibration.calibrator import student_place
    from leafiqa.files import check_output
    from leafiqa.rating.panel import is_mos

    table = output.with_name("mos.csv")
    if os.path.abspath(table) == os.path.abspath(output):
        raise click.UsageError("-o mos.csv is the name of the table that is made of the answers; name them otherwise")
    # A session that goes on replaces its own table; a new one asks.
    going_on = output.exists()
    check_output(table, inputs=[output], overwrite=overwrite or going_on, is_ours=is_mos)
    if student is not None:
        folder, tag = student_place(student)
        if not overwrite and (folder / f"{tag}.safetensors").exists():
            raise click.UsageError(f"the student {student} exists already; --overwrite replaces it")
    warnings.simplefilter("ignore")

    def started(address: str) -> None:
        if host not in ("127.0.0.1", "::1", "localhost"):
            note("other machines of this network are let in, if they have the address; it travels unencrypted")
        note("open this address in a browser; end with the button there, or with Ctrl-C:")
        click.echo(address)

    panel = leafiqa.rate(
        paths,
        output,
        budget=budget,
        ask=ask,
        metric=name,
        weights=weights,
        recursive=recursive,
        host=host,
        port=port,
        device=device,
        seed=seed,
        started=started,
    )
    if panel is None:
        note("nothing was answered that counts")
        return
    remarks(panel.problems)
    result(str(panel))
    panel.to_csv(table, overwrite=True)
    note(f"pictures in {table}: {len(panel)}; leafiqa calibrate --mos {table} --scale 1 5 -o FOLDER/arch.tag")
    if student is not None:
        with progress("calibrating") as bar:
            made = leafiqa.calibrate(name, table, weights=weights, scale=(1, 5), device=device, progress=bar)
        remarks(made.problems)
        result(str(made))
        note(f"student written to {made.save(student, overwrite=overwrite)}")


@click.command("mos", short_help="Turn ratings into a table of MOS.")
@click.argument("ratings", nargs=-1, required=True, type=FILE, metavar="RATINGS...")
@click.option("-o", "--output", type=FILE, help="Write image, mos, mos_se, mos_std and n as CSV.")
@click.option("--report", "page", type=FILE, help="Write a page of the session: agreement, consistency, pictures.")
@click.option("--metric", "name", help="With --report: a metric whose disagreement with the raters is shown.")
@click.option("--export", type=FILE, help="Write the ratings in another tool's layout.")
@click.option("--as", "layout", type=click.Choice(["sureal", "pwcmp", "long", "wide"]), help="The layout of --export.")
@json_option
@overwrite_option
def mos(
    ratings: tuple[Path, ...],
    output: Path | None,
    page: Path | None,
    name: str | None,
    export: Path | None,
    layout: str | None,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Turn RATINGS into a table of MOS, and say of each rater how they rated.

    RATINGS are files that `leafiqa rate` wrote, SUREAL's JSON, pwcmp's CSV, long tables (rater, image, score) or wide
    ones (image and a column for each rater).
    """
    import leafiqa
    from leafiqa.files import check_output
    from leafiqa.reports.pages import is_page

    if (export is None) != (layout is None):
        raise click.UsageError("--export and --as belong together")
    if name is not None and page is None:
        raise click.UsageError("--metric belongs to --report")
    for place in filter(None, (output, export)):
        check_output(place, inputs=ratings, overwrite=overwrite or not os.path.exists(place))
    if page is not None:
        check_output(page, inputs=ratings, overwrite=overwrite, is_ours=is_page)
    warnings.simplefilter("ignore")
    panel = leafiqa.summarise_ratings(ratings)
    remarks(panel.problems)
    if output is not None:
        panel.to_csv(output, overwrite=overwrite)
    if export is not None and layout is not None:
        leafiqa.export_ratings(ratings, export, layout, overwrite=overwrite)
    if page is not None:
        with progress("pictures") as bar:
            leafiqa.report(panel, page, metric=name, overwrite=overwrite, progress=bar)
    if as_json:
        result_json(panel.to_dict())
    else:
        result(str(panel))
