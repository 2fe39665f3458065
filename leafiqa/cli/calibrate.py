"""`leafiqa calibrate`: put a metric on a human scale with a few labelled images."""

from __future__ import annotations

import contextlib
import math
import warnings
from pathlib import Path

import click

from leafiqa.cli.options import (
    device_option,
    evidence_options,
    json_option,
    metric_options,
    overwrite_option,
    seed_option,
    table_options,
)
from leafiqa.cli.output import note, remarks, result, result_json
from leafiqa.cli.progress import Bar, progress


@click.command("calibrate", short_help="Put a metric on a human scale with a few ratings.")
@table_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The student to write, FOLDER/arch.tag: FOLDER/arch.tag.safetensors and its .json.",
)
@overwrite_option
@metric_options
@click.option(
    "--scale",
    "--range",
    "scale",
    type=float,
    nargs=2,
    help="Ends of the human scale, such as 1 5.  [default: the labels' span and a tenth]",
)
@click.option(
    "--rung",
    "rungs",
    type=click.Choice(["scale", "head"]),
    multiple=True,
    help="Allow only this rung: refit the scale alone, or the head.  [default: choose]",
)
@click.option(
    "--full/--no-full",
    default=None,
    help="Also try to fine-tune the whole student: minutes on a GPU, longer without.  [default: with --evidence]",
)
@evidence_options
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Fine-tune so many times, in different order, and average the weights.",
)
@click.option(
    "--difference",
    is_flag=True,
    help="Store only what differs from the bundled student: small, but of no use without that very student.",
)
@json_option
@device_option
@seed_option
def command(
    table: Path,
    images: Path | None,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    output: Path,
    overwrite: bool,
    name: str,
    weights: str | None,
    scale: tuple[float, float] | None,
    rungs: tuple[str, ...],
    full: bool | None,
    evidence: tuple[Path, ...],
    evidence_images: Path | None,
    runs: int,
    difference: bool,
    as_json: bool,
    device: str,
    seed: int,
) -> None:
    """Calibrate a metric on as few as ten labelled images.

    Chooses by cross-validation between refitting the scale alone, refitting the head and, with --full, fine-tuning the
    whole student, and says what accuracy to expect on other images like these. With --evidence, head and fine-tuning
    also learn from images that a teacher judged and nobody rated.
    """
    import leafiqa
    from leafiqa.calibration.calibrator import RUNGS, student_place
    from leafiqa.model.checkpoint import check_free
    from leafiqa.model.differences import as_base
    from leafiqa.model.places import resolve

    folder, student = student_place(output)
    check_free(folder, student, overwrite)
    if difference:  # before the work begins
        card = resolve(name, weights)[1]
        as_base(card, card.architecture)
    warnings.simplefilter("ignore")
    with contextlib.ExitStack() as shown:
        looking = shown.enter_context(progress("looking"))
        bars: list[Bar] = []

        def tuning(done: int, total: int) -> None:
            if not bars:  # one bar at a time
                shown.close()
                bars.append(shown.enter_context(progress("fine-tuning")))
            bars[0](done, total)

        found = leafiqa.calibrate(
            name,
            table,
            weights=weights,
            scale=scale,
            images=images,
            image_column=image_column,
            mos_column=mos_column,
            split=split,
            rungs=rungs or RUNGS,
            full=full,
            evidence=evidence,
            evidence_images=evidence_images,
            runs=runs,
            device=device,
            seed=seed,
            progress=looking,
            tuning=tuning,
        )
    remarks(found.problems)
    file = found.save(output, difference=difference, overwrite=overwrite)
    if as_json:
        result_json({**found.to_dict(), "path": str(file)})
    else:
        result(f"{file}\n{found}\nuse        leafiqa score --weights {file} PATH...")
    low = found.expected.srcc_interval[0]
    if math.isfinite(low) and low <= 0:
        note(
            "leafiqa: on these labels the calibrated student does not order images better than chance would; "
            "label more images, of low, middling and high quality"
        )
