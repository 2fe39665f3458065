"""`leafiqa export`: a student as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.options import FILE, overwrite_option
from leafiqa.cli.output import note


@click.command("export", short_help="Write a student as one ONNX file.")
@click.argument("name", required=False)
@click.option("--weights", help="A student in some place: a file, a folder or hf-hub:owner/repo[@revision].")
@click.option("-o", "--output", type=FILE, required=True, help="The .onnx file to write.")
@click.option("--float", "float_pixels", is_flag=True, help="Take float32 pixels in [0, 1] instead of uint8.")
@overwrite_option
def command(name: str | None, weights: str | None, output: Path, float_pixels: bool, overwrite: bool) -> None:
    """Write the student NAME (default: leaf) as one self-contained ONNX file.

    Pixels of any size go in, uint8 (N, H, W, 3), and scores come out: resizing is inside. Needs leafiqa[onnx].
    """
    import leafiqa

    if name and weights:
        raise click.UsageError("give NAME or --weights, not both")
    written = leafiqa.export(output, name or "leaf", weights=weights, float_pixels=float_pixels, overwrite=overwrite)
    note(f"wrote {written}, {written.stat().st_size / 1e6:.1f} MB")
