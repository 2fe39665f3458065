"""`leafiqa label`: ask a multimodal LLM how good images look, and write evidence."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leafiqa.cli.progress import progress

if TYPE_CHECKING:
    from leafiqa.teachers.label import Journal, Report, Task
    from leafiqa.teachers.protocol import Teacher

# Further from one half than this, the place decides more than it should.
_BIAS = 0.15


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--teacher",
    "model",
    required=True,
    help="The model: with --server its name there, else a transformers model by its hub name or folder.",
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    help="Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; several share the work.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Evidence file, JSON lines; goes on with what it holds.",
)
@click.option("-r", "--recursive", is_flag=True, help="Look into folders inside folders too.")
@click.option(
    "--images",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that names are written relative to.  [default: the folder that holds all]",
)
@click.option("--points/--no-points", default=True, show_default=True, help="Judge each image by itself.")
@click.option(
    "--pairs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Compare this many pairs, each in both orders.",
)
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
@click.option(
    "--concurrency", type=click.IntRange(1, 512), default=16, show_default=True, help="Questions under way at once."
)
@click.option(
    "--max-side",
    type=click.IntRange(64),
    default=1024,
    show_default=True,
    help="Send images at most this large, in pixels.",
)
@click.option("--prompts", type=click.Path(dir_okay=False, path_type=Path), help="TOML with prompts of your own.")
@click.option(
    "--key-variable", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the API key."
)
@click.option("--price", type=float, nargs=2, help="Price of a million tokens in and out, for the estimate.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=120.0, show_default=True, help="Seconds to wait for an answer."
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="How often to ask before giving a question up.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=4, show_default=True, help="Without --server: images in a batch."
)
@click.option("--revision", help="Without --server: branch, tag or commit of the model on the hub.")
@click.option("--device", default="auto", show_default=True, help="Without --server: auto, cpu, cuda, ...")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seeds the choice of pairs.")
@click.option("--dry-run", is_flag=True, help="Only say what would be asked.")
def label(
    paths: tuple[str, ...],
    servers: tuple[str, ...],
    model: str,
    output: Path,
    recursive: bool,
    images: Path | None,
    points: bool,
    pairs: int,
    repeat: int,
    sheet: int | None,
    mode: str,
    concurrency: int,
    max_side: int,
    prompts: Path | None,
    key_variable: str,
    price: tuple[float, float] | None,
    timeout: float,
    attempts: int,
    batch: int,
    revision: str | None,
    device: str,
    seed: int,
    dry_run: bool,
) -> None:
    """Ask a multimodal LLM about images: files, folders, globs in PATHS.

    Images are sent to the servers given and nowhere else; without a server they do not leave this machine. Killed at
    any moment, the same command goes on. Exit status 1 if some question stayed without an answer.
    """
    from leafiqa.folder.find import find_images
    from leafiqa.teachers.http import Servers
    from leafiqa.teachers.label import Journal, Report, ask, pair_rounds, point_tasks, sheet_tasks
    from leafiqa.teachers.openai import ServerTeacher
    from leafiqa.teachers.prompts import read_prompts
    from leafiqa.teachers.protocol import TeacherUnusable

    warnings.simplefilter("ignore")
    found = [os.path.abspath(path) for path in find_images(paths, recursive)]
    if not found:
        raise click.UsageError(
            f"no images found in {', '.join(paths)}{'' if recursive else ' (add -r to look deeper)'}"
        )
    folder = Path(os.path.abspath(images)) if images else _common_folder(found)
    names = [os.path.relpath(path, folder) for path in found]
    if outside := [name for name in names if name.startswith("..")]:
        raise click.UsageError(f"{outside[0]} is not in --images {folder}")
    if sheet and not servers:
        raise click.UsageError("--sheet needs --server: contact sheets are answered in words")
    journal = Journal(output, Path(model).resolve().name if not servers and Path(model).is_dir() else model)
    todo: list[Task] = []
    if points and sheet:
        todo = sheet_tasks(names, journal, sheet, repeat, seed)
    elif points:
        todo = point_tasks(names, journal, repeat)
    calls = len(todo) + 2 * max(0, pairs - sum(task.kind == "pair" for task in journal.done) // 2)
    click.echo(
        f"{len(names)} images, names relative to {folder}; {len(journal.done)} questions answered before", err=True
    )
    click.echo(
        f"{calls} calls to make: {len(todo)} {'contact sheets' if sheet else 'judgments'}, "
        f"{calls - len(todo)} comparisons",
        err=True,
    )
    if dry_run or not calls:
        return
    asked = read_prompts(prompts)
    teacher: Teacher
    try:
        if servers:
            key = os.environ.get(key_variable) or None
            server = Servers(servers, key=key, timeout=timeout, attempts=attempts, concurrency=concurrency)
            # Some read images, some wait to ask again, while as many as may be are being answered.
            threads = 2 * concurrency + 4
            warmth = 0.7 if repeat > 1 else 0.0
            teacher = ServerTeacher(server, model, prompts=asked, mode=mode, max_side=max_side, temperature=warmth)
        else:
            from leafiqa.teachers.local import LocalTeacher

            teacher = LocalTeacher(
                model, revision=revision, device_map=device, batch=batch, max_side=max_side, prompts=asked
            )
            threads = 2 * batch
    except TeacherUnusable as error:
        raise click.ClickException(str(error)) from error
    total = Report()
    try:
        with progress(calls, "asking", "calls") as bar:

            def advance(task: Task) -> None:
                bar()

            def run(tasks: list[Task]) -> None:
                if not total.answered and tasks:
                    # The first answer is kept like any other, and tells what the rest will cost.
                    total.add(ask(teacher, tasks[:1], folder, journal, advance=advance))
                    click.echo(_cost("estimated", total, calls, price), err=True)
                    tasks = tasks[1:]
                total.add(ask(teacher, tasks, folder, journal, threads=threads, advance=advance))

            run(todo)
            silent = {task.images[0] for task, _ in total.failed if task.kind == "point"}
            answering = [name for name in names if name not in silent]
            if pairs and len(answering) > 1:
                for tasks in pair_rounds(answering, journal, pairs, seed=seed):
                    run(tasks)
    except TeacherUnusable as error:
        raise click.ClickException(str(error)) from error
    finally:
        retries = f", {server.retries} retries" if servers else ""
        click.echo(f"{total.answered} answers, {len(total.failed)} questions without{retries}", err=True)
    click.echo(_cost("used", total, total.answered, price), err=True)
    for task, why in total.failed:
        click.echo(f"leafiqa: {', '.join(task.images)}: {why}", err=True)
    if journal.done:
        _tell(journal)
    click.echo(output)
    if total.failed:
        raise click.exceptions.Exit(1)


def _common_folder(files: list[str]) -> Path:
    return Path(os.path.commonpath([os.path.dirname(path) for path in files]))


def _cost(word: str, report: Report, calls: int, price: tuple[float, float] | None) -> str:
    """Return a line on the tokens of so many calls, at the mean of those answered, and their price."""
    if not any(report.tokens):
        return f"{word}: {calls} calls; the server does not count tokens"
    tokens = [round(count / max(1, report.answered) * calls) for count in report.tokens]
    cost = f", {sum(t * p for t, p in zip(tokens, price)) / 1e6:.2f} at the price given" if price else ""
    return f"{word}: {calls} calls, {tokens[0]:,} tokens in, {tokens[1]:,} out{cost}"


def _tell(journal: Journal) -> None:
    """Say what the evidence is like: histogram, position bias, agreement, reliability."""
    from leafiqa.evidence.records import LEVELS
    from leafiqa.evidence.reliability import targets
    from leafiqa.evidence.summary import summarise

    evidence = journal.evidence()
    summary = summarise(evidence)
    scores = [target.score for target in targets(evidence).values()]
    if scores:
        counts = [0] * len(LEVELS)
        for score in scores:
            counts[min(int(score * len(LEVELS)), len(LEVELS) - 1)] += 1
        click.echo("levels       " + ", ".join(f"{name} {n}" for name, n in zip(LEVELS, counts)), err=True)
        click.echo(f"reliability  {summary.point_reliability:.2f} of judgments on average", err=True)
    if summary.pairs and summary.first_preferred is not None:
        click.echo(
            f"pairs        {summary.pairs}, reliability {summary.pair_reliability:.2f}; the one shown first preferred "
            f"{summary.first_preferred:.2f} of the time"
            + ("" if summary.order_consistency is None else f", order consistency {summary.order_consistency:.2f}"),
            err=True,
        )
        if abs(summary.first_preferred - 0.5) > _BIAS:
            click.echo(
                "leafiqa: this teacher prefers a place, not an image: comparisons in both orders cancel that out, at "
                "the cost of their reliability; ask for judgments instead, or another model",
                err=True,
            )
