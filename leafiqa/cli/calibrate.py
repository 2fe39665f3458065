"""`leafiqa calibrate`: put a metric on a human scale with a few labelled images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

import click

from leafiqa.cli.progress import progress, steps
from leafiqa.cli.table import table_options


@click.command()
@table_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The student to write, FOLDER/arch.tag: FOLDER/arch.tag.safetensors and its .json.",
)
@click.option(
    "--metric", "name", default="leaf", show_default=True, help="A name, file, folder or hf-hub:... to start from."
)
@click.option(
    "--range",
    "score_range",
    type=float,
    nargs=2,
    help="Ends of the scale, such as 1 5.  [default: the labels' span and a tenth]",
)
@click.option(
    "--rung",
    "rungs",
    type=click.Choice(["scale", "head"]),
    multiple=True,
    help="Allow only this rung.  [default: choose]",
)
@click.option("--full", is_flag=True, help="Also try to fine-tune the whole student: minutes on a GPU, longer without.")
@click.option(
    "--evidence",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A teacher's evidence: --full then also learns from the images that it judged and nobody rated.",
)
@click.option(
    "--judged",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the evidence's names are relative to.  [default: --images, else the table's folder]",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Fine-tune so many times, in different order, and average the weights.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seeds the cross-validation.")
def calibrate(
    table: Path,
    output: Path,
    name: str,
    images: Path | None,
    image_column: str | None,
    mos_column: str | None,
    split: str | None,
    score_range: tuple[float, float] | None,
    rungs: tuple[str, ...],
    full: bool,
    evidence: tuple[Path, ...],
    judged: Path | None,
    runs: int,
    device: str,
    seed: int,
) -> None:
    """Calibrate a metric on as few as ten labelled images.

    Chooses by cross-validation between refitting the scale alone, refitting the head and, with --full, fine-tuning the
    whole student, and says what accuracy to expect on other images like these.
    """
    import leafiqa
    from leafiqa.calibrate.calibrate import RUNGS, save_calibrated
    from leafiqa.calibrate.calibrate import calibrate as run
    from leafiqa.evaluate.datasets import read_labels
    from leafiqa.evidence.files import cite
    from leafiqa.evidence.scores import read_scores

    if output.suffix in {".safetensors", ".json"}:
        output = output.with_suffix("")
    if output.exists() and output.is_dir():
        raise click.UsageError(f"-o {output} is a folder; name the student in it, such as {output / 'leaf_lite0.mine'}")
    warnings.simplefilter("ignore")
    labelled = read_labels(table, images=images, image_column=image_column, mos_column=mos_column, split=split)
    said: dict[Path, float] | None = None
    if evidence:
        said, left_out = read_scores(evidence, judged or images or (table if table.is_dir() else table.parent))
        labelled.problems += left_out
        # Images of other splits are not to be learned from, labelled or not.
        others = {path.resolve() for path in labelled.elsewhere}
        said = {path: score for path, score in said.items() if path not in others}
    metric = leafiqa.create_metric(weights=name, device=device)
    with contextlib.ExitStack() as shown:
        bar: Callable[[int, int], None] | None = None

        def tuning(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:  # one bar at a time
                shown.close()
                bar = shown.enter_context(steps("fine-tuning"))
            bar(done, total)

        places = {row.path.resolve() for row in labelled.rows}
        looks = len(labelled.rows) + len(set(said or {}) - places)
        advance = shown.enter_context(progress(looks, "looking"))
        result = run(
            metric,
            labelled,
            score_range=score_range,
            rungs=rungs or RUNGS,
            full=full,
            evidence=said,
            runs=runs,
            seed=seed,
            advance=advance,
            tuning=tuning,
        )
    for problem in result.problems:
        click.echo(f"leafiqa: {problem}", err=True)
    cited = cite(evidence) if result.judged else ""
    card = save_calibrated(result, metric.card, output.name, output.parent, data=table.name, evidence=cited)
    measured = result.expected
    low, high = result.score_range
    ridge = f" (ridge {result.choice.ridge:g})" if result.choice.ridge is not None else ""
    click.echo(f"{output}.safetensors, weights {card.short_hash}")
    click.echo(f"rung       {result.choice.rung}{ridge}, {result.labels} labels, scale {low:g} to {high:g}")
    click.echo(
        f"expect     SRCC {measured.srcc:.3f} [{measured.srcc_interval[0]:.3f}, {measured.srcc_interval[1]:.3f}], "
        f"PLCC {measured.plcc:.3f} [{measured.plcc_interval[0]:.3f}, {measured.plcc_interval[1]:.3f}], "
        f"RMSE {measured.rmse:.3g} on other images like these (cross-validation)"
    )
    if not measured.srcc_interval[0] > 0:
        click.echo(
            "leafiqa: on these labels the calibrated student does not order images better than chance would; "
            "label more images, of low, middling and high quality",
            err=True,
        )
    click.echo(f"use        leafiqa score --metric {output}.safetensors PATH...")
