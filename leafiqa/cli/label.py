"""`leafiqa label`: ask a multimodal LLM how good images look, and write evidence."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import click

from leafiqa.cli.options import FILE, FOLDER, device_option, recursive_option, seed_option
from leafiqa.cli.output import note
from leafiqa.cli.progress import progress


@click.command("label", short_help="Ask a multimodal LLM, and write evidence.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--teacher",
    required=True,
    help="The model: with --server its name there, else a transformers model by its hub name or folder.",
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    help="Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; several share the work.",
)
@click.option("-o", "--output", type=FILE, required=True, help="Evidence file, JSON lines; goes on with what it holds.")
@recursive_option
@click.option(
    "--images",
    type=FOLDER,
    help="Folder that names are relative to.  [default: PATH if it is one folder, else the one that holds all]",
)
@click.option("--points/--no-points", default=True, show_default=True, help="Judge each image by itself.")
@click.option(
    "--pairs", type=click.IntRange(0), default=0, show_default=True, help="Compare this many pairs, in both orders."
)
@click.option("--metric", help="Choose pairs that this student finds alike; without it by the judgments so far.")
@click.option("--weights", help="The same student in some place: a file, a folder or hf-hub:owner/repo[@revision].")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Judge each image this many times; sampled where numbers are asked for.",
)
@click.option(
    "--mode",
    type=click.Choice(["auto", "levels", "number"]),
    default="auto",
    show_default=True,
    help="levels reads log-probabilities, number asks for a number; auto finds out.",
)
@click.option(
    "--sheet",
    type=click.IntRange(2, 8),
    help="Judge SHEET x SHEET images in one view and call instead of each by itself; with --server.",
)
@click.option("--defects", is_flag=True, help="Also ask what is wrong with each image; with --server.")
@click.option(
    "--concurrency", type=click.IntRange(1, 512), default=16, show_default=True, help="Questions under way at once."
)
@click.option(
    "--max-side",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    help="Send images at most this large, in pixels; 0 sends them as they are.",
)
@click.option("--prompts", type=FILE, help="TOML with prompts of your own.")
@click.option(
    "--key-variable",
    metavar="NAME",
    help="Environment variable with the server's API key, such as OPENAI_API_KEY; without it no key is sent.",
)
@click.option("--price", type=float, nargs=2, help="Price of a million tokens in and out, for the estimate.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=120.0, show_default=True, help="Seconds to wait for an answer."
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="How often to ask before giving a question up.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=4, show_default=True, help="Without --server: images in a batch."
)
@click.option("--revision", help="Without --server: branch, tag or commit of the model on the hub.")
@click.option("--dtype", default="auto", show_default=True, help="Without --server: auto, float32, bfloat16, float16.")
@click.option("--extra", help="With --server: JSON with fields to add to each request, such as chat_template_kwargs.")
@device_option
@seed_option
@click.option("--dry-run", is_flag=True, help="Only say what would be asked.")
def command(
    paths: tuple[str, ...],
    teacher: str,
    servers: tuple[str, ...],
    output: Path,
    images: Path | None,
    key_variable: str | None,
    extra: str | None,
    **options: Any,
) -> None:
    """Ask a multimodal LLM about images: files, folders, globs in PATH.

    Images are sent to the servers given and nowhere else; without a server they do not leave this machine. Killed at
    any moment, the same command goes on. Exit status 1 if some question stayed without an answer.
    """
    import leafiqa

    key = None
    if key_variable is not None and not (key := os.environ.get(key_variable)):
        raise click.UsageError(f"--key-variable: the environment variable {key_variable} is not set")
    warnings.simplefilter("ignore")
    with progress("asking", "calls") as bar:
        found = leafiqa.label(
            paths,
            output,
            teacher=teacher,
            server=servers,
            folder=images,
            key=key,
            extra=_json_object(extra),
            log=bar.say,
            progress=bar,
            **options,
        )
    for which, why in found.failed:
        note(f"leafiqa: {', '.join(which)}: {why}")
    for line in found.remarks:
        note(line)
    if not options["dry_run"]:
        click.echo(found.output)
    if found.failed:
        raise click.exceptions.Exit(1)


def _json_object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--extra is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise click.UsageError(f"--extra must be a JSON object, got {text}")
    return found
