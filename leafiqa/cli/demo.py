"""`leafiqa demo`: see scores fall as pictures get worse, with no file at hand."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--metric", "name", default="leaf", show_default=True, help="A name that `leafiqa models` lists.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "--save", type=click.Path(file_okay=False, path_type=Path), help="Folder to keep the pictures in, as PNG."
)
def demo(name: str, device: str, save: Path | None) -> None:
    """Draw a few scenes, degrade them step by step, and show the scores fall."""
    import numpy as np
    from PIL import Image
    from rich.console import Console
    from rich.table import Table

    import leafiqa
    from leafiqa.cli.scenes import SCENES
    from leafiqa.distill.degradations import DEGRADATIONS, LEVELS, ladder

    metric = leafiqa.create_metric(name, device=device)
    low, high = metric.score_range
    table = Table(
        title=f"{metric.metric_name}, weights {metric.card.short_hash}",
        caption=f"each scene as drawn, then degraded in five steps; scores from {low:g} to {high:g}, higher is better",
        padding=(0, 0, 0, 1),
    )
    for heading in ("scene", "degradation", "drawn", *(f"step {level}" for level in range(1, LEVELS + 1))):
        table.add_column(heading, justify="left" if heading in ("scene", "degradation") else "right", no_wrap=True)
    for number, (scene, draw) in enumerate(SCENES.items()):
        pixels = draw(np.random.default_rng(number))
        for degradation in DEGRADATIONS:
            steps = ladder(pixels, degradation, seed=number)
            table.add_row(scene, degradation, *(f"{score:.3f}" for score in metric(steps).tolist()))
            if save:
                save.mkdir(parents=True, exist_ok=True)
                for level, step in enumerate(steps):
                    Image.fromarray(step).save(save / f"{scene}_{degradation}_{level}.png")
        table.add_section()
    Console().print(table)
