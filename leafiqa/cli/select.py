"""`leafiqa select`: which images are worth a human label."""

from __future__ import annotations

import csv
import math
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leafiqa.cli.progress import progress

if TYPE_CHECKING:
    import numpy as np

    from leafiqa.calibrate.fit import Array


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("-n", "--budget", type=click.IntRange(1), required=True, help="How many images to choose.")
@click.option("-r", "--recursive", is_flag=True, help="Look into folders inside folders too.")
@click.option("--metric", "name", default="leaf", show_default=True, help="A name, file, folder or hf-hub:...")
@click.option(
    "--evidence",
    "files",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="A teacher's evidence: labels are spread over where the student disagrees with it, from a budget of 100 on.",
)
@click.option(
    "--images",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that names in the evidence are relative to.  [default: the evidence's own folder]",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="CSV to write instead of stdout.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seeds the clustering.")
def select(
    paths: tuple[str, ...],
    budget: int,
    recursive: bool,
    name: str,
    files: tuple[Path, ...],
    images: Path | None,
    output: Path | None,
    device: str,
    seed: int,
) -> None:
    """Choose images to have rated by people: files, folders, globs in PATHS.

    Writes a CSV with columns image, mos (empty, to be filled in) and score, ready for `leafiqa calibrate --mos`. With
    -o names are relative to the file's folder.
    """
    import leafiqa
    from leafiqa.calibrate.features import see
    from leafiqa.calibrate.select import DISAGREEMENT_LEAST
    from leafiqa.calibrate.select import select as choose
    from leafiqa.folder.find import find_images

    if output is not None and output.exists():
        raise click.UsageError(f"-o {output} exists already, perhaps with labels in it; name another file")
    candidates = [Path(path) for path in find_images(paths, recursive)]
    if not candidates:
        raise click.UsageError(
            f"no images found in {', '.join(paths)}{'' if recursive else ' (add -r to look deeper)'}"
        )
    warnings.simplefilter("ignore")
    metric = leafiqa.create_metric(weights=name, device=device)
    with progress(len(candidates), "looking") as advance:
        seen = see(metric, candidates, advance)
    for place, why in seen.errors:
        click.echo(f"leafiqa: {candidates[place]}: {why}: left out", err=True)
    readable = [candidates[i] for i in seen.index]
    disagreement = _disagreement(readable, seen.logits, files, images) if files else None
    if files and budget < DISAGREEMENT_LEAST:
        click.echo(f"leafiqa: evidence is of use from a budget of {DISAGREEMENT_LEAST} on: chosen without it", err=True)
    chosen = choose(seen, budget, disagreement=disagreement, seed=seed)
    low, high = metric.score_range
    rows = [("image", "mos", "score")]
    for i in chosen:
        score = low + (high - low) / (1 + math.exp(-seen.logits[i]))
        rows.append((_written(readable[i], output), "", f"{score:.4f}"))
    if output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    else:
        with output.open("x", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        click.echo(
            f"{len(chosen)} of {len(readable)} images in {output}: fill in the column mos, then "
            f"leafiqa calibrate --mos {output} -o FOLDER/arch.tag",
            err=True,
        )
    if seen.errors:
        raise click.exceptions.Exit(1)


def _written(path: Path, output: Path | None) -> str:
    """Return an image's name as `leafiqa calibrate` will look for it: relative to the table's folder."""
    if output is None:
        return str(path)
    try:
        return os.path.relpath(path, output.parent)
    except ValueError:  # another drive
        return os.path.abspath(path)


def _disagreement(paths: list[Path], logits: np.ndarray, files: tuple[Path, ...], images: Path | None) -> Array:
    """Return how far the teacher's rank is above the student's, NaN for images that no teacher judged."""
    import numpy as np

    from leafiqa.calibrate.select import rank_disagreement
    from leafiqa.evidence.scores import read_scores

    known: dict[Path, float] = {}
    for file in files:
        scores, left_out = read_scores([file], images or file.parent)
        known |= scores
        for problem in left_out:
            click.echo(f"leafiqa: {problem}", err=True)
    teacher = np.array([known.get(path.resolve(), math.nan) for path in paths])
    if not np.isfinite(teacher).any():
        raise click.UsageError("the evidence is of none of these images; --images names the folder that it means")
    return rank_disagreement(teacher, logits)
