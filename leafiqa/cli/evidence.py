"""`leafiqa evidence`: what is in a teacher's evidence."""

from __future__ import annotations

from pathlib import Path

import click

from leafiqa.cli.options import FILE, FOLDER, json_option, overwrite_option
from leafiqa.cli.output import note, remarks, result, result_json


@click.command("evidence", short_help="Summarise a teacher's evidence.")
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option(
    "--images",
    type=FOLDER,
    help="Folder that names are relative to: also tell how much of it is judged, and what was moved or replaced.",
)
@click.option(
    "--conversations",
    type=FILE,
    metavar="FILE",
    help="Also write an instruction-tuning set, JSON as the trainers of LLaVA and Qwen-VL read it.",
)
@click.option("--prompts", type=FILE, help="With --conversations: TOML with prompts of your own.")
@overwrite_option
@json_option
def command(
    files: tuple[Path, ...],
    images: Path | None,
    conversations: Path | None,
    prompts: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Summarise evidence: counts, coverage, agreement, position bias, reliability.

    FILE is JSON lines of point-wise judgments, pairs and rankings; docs/evidence.md describes them.
    """
    if conversations is None and (prompts is not None or overwrite):
        raise click.UsageError("--prompts and --overwrite are for what --conversations FILE writes: name it, too")
    import leafiqa

    summary = leafiqa.summarise_evidence(files, images)
    remarks(summary.remarks)
    if conversations is not None:
        written = leafiqa.export_conversations(files, conversations, prompts=prompts, overwrite=overwrite)
        note(f"# {written} conversations in {conversations}")
    if as_json:
        result_json(summary.to_dict())
    else:
        result(str(summary))
