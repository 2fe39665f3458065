"""`leafiqa demo`: see scores fall as pictures get worse, with no file at hand."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.options import device_option, metric_options
from leafiqa.cli.progress import progress

PICTURES = Path(__file__).with_name("pictures")
_SHOWN = ("blur", "noise", "jpeg", "downscale", "underexposed")


@click.command("demo", short_help="See scores fall as pictures get worse.")
@metric_options
@device_option
@click.option(
    "--save", type=click.Path(file_okay=False, path_type=Path), help="Folder to keep the pictures in, as PNG."
)
def command(name: str, weights: str | None, device: str, save: Path | None) -> None:
    """Degrade two photographs step by step, and show their scores fall."""
    import numpy as np
    from PIL import Image
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    import leafiqa
    from leafiqa.training.degradations.arrays import LEVELS
    from leafiqa.training.degradations.ladders import ladder

    metric = leafiqa.create_metric(name, weights=weights, device=device)
    low, high = metric.score_range
    table = Table(
        title=f"{escape(metric.metric_name)}, weights {metric.card.short_hash}",
        caption=f"each photograph as it is, then degraded in five steps; scores from {low:g} to {high:g}, higher is "
        "better",
        padding=(0, 0, 0, 1),
    )
    for heading in ("photograph", "degradation", "as it is", *(f"step {level}" for level in range(1, LEVELS + 1))):
        left = heading in ("photograph", "degradation")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    if save:
        save.mkdir(parents=True, exist_ok=True)
    files = sorted(PICTURES.glob("*.jpg"))
    total = len(files) * len(_SHOWN) * LEVELS
    with progress("scoring") as bar:
        for number, file in enumerate(files):
            pixels = np.asarray(Image.open(file).convert("RGB"))
            first = metric(pixels).item()
            for place, degradation in enumerate(_SHOWN):
                steps = ladder(pixels, degradation, seed=number)
                scores = [first]
                for level, step in enumerate(steps):
                    if level:
                        scores.append(metric(step).item())
                        bar((number * len(_SHOWN) + place) * LEVELS + level, total)
                    if save:
                        Image.fromarray(step).save(save / f"{file.stem}_{degradation}_{level}.png")
                table.add_row(file.stem, degradation, *(f"{score:.3f}" for score in scores))
            table.add_section()
    Console().print(table)
