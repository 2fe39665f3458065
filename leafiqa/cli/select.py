"""`leafiqa select`: which images are worth a human label."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from leafiqa.cli.options import (
    FILE,
    device_option,
    evidence_options,
    metric_options,
    need_no_metric_among,
    overwrite_option,
    recursive_option,
    seed_option,
)
from leafiqa.cli.output import note, remarks
from leafiqa.cli.progress import progress


@click.command("select", short_help="Choose images that are worth a human rating.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-n", "--budget", type=click.IntRange(1), required=True, help="How many images to choose.")
@recursive_option
@metric_options
@evidence_options
@click.option("-o", "--output", type=FILE, help="CSV to write instead of stdout.")
@overwrite_option
@device_option
@seed_option
def command(
    paths: tuple[str, ...],
    budget: int,
    recursive: bool,
    name: str,
    weights: str | None,
    evidence: tuple[Path, ...],
    evidence_images: Path | None,
    output: Path | None,
    overwrite: bool,
    device: str,
    seed: int,
) -> None:
    """Choose images to have rated by people: files, folders, globs in PATH.

    Writes a CSV with columns image, mos (empty, to be filled in), score and stands_for, ready for `leafiqa calibrate
    --mos`. With -o names are relative to the file's folder. With --evidence and a budget of 100 or more, labels are
    spread over where student and teacher disagree.
    """
    need_no_metric_among(paths)
    import leafiqa
    from leafiqa.calibration.selection import is_unrated
    from leafiqa.files import check_output

    if output is not None:
        check_output(output, overwrite=overwrite, is_ours=lambda head: is_unrated(output))
    warnings.simplefilter("ignore")
    with progress("looking") as bar:
        chosen = leafiqa.select(
            paths,
            budget,
            name,
            weights=weights,
            recursive=recursive,
            evidence=evidence,
            evidence_images=evidence_images,
            device=device,
            seed=seed,
            progress=bar,
        )
    remarks(chosen.problems)
    if output is None:
        click.echo(chosen.render(), nl=False)
    else:
        chosen.to_csv(output, overwrite=overwrite)
        note(
            f"{len(chosen)} of {chosen.candidates} images in {output}: fill in the column mos, then "
            f"leafiqa calibrate --mos {output} -o FOLDER/arch.tag"
        )
    if chosen.failed:
        raise click.exceptions.Exit(1)
