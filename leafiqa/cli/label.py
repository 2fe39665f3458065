"""`leafiqa label`: ask a multimodal LLM how good images look, and write evidence."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    help="Folder that names are relative to.  [default: PATHS if it is one folder, else the one that holds all]",
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
    "--metric",
    help="Choose pairs that this student (a name, file or folder) finds alike; without it by the judgments so far.",
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
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    help="Send images at most this large, in pixels; 0 sends them as they are.",
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
@click.option("--dtype", default="auto", show_default=True, help="Without --server: auto, float32, bfloat16, float16.")
@click.option("--extra", help="With --server: JSON with fields to add to each request, such as chat_template_kwargs.")
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
    metric: str | None,
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
    dtype: str,
    extra: str | None,
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
    from leafiqa.teachers.label import Journal, Report, ask, pair_answers, pair_rounds, point_tasks, sheet_tasks
    from leafiqa.teachers.locking import locked
    from leafiqa.teachers.openai import ServerTeacher
    from leafiqa.teachers.prompts import read_prompts
    from leafiqa.teachers.protocol import TeacherUnusable

    warnings.simplefilter("ignore")
    found = [os.path.abspath(path) for path in find_images(paths, recursive)]
    if not found:
        raise click.UsageError(
            f"no images found in {', '.join(paths)}{'' if recursive else ' (add -r to look deeper)'}"
        )
    one_folder = len(paths) == 1 and os.path.isdir(paths[0])
    folder = Path(os.path.abspath(images or paths[0])) if images or one_folder else _common_folder(found)
    names = [os.path.relpath(path, folder) for path in found]
    if outside := [name for name in names if name.startswith("..")]:
        raise click.UsageError(f"{outside[0]} is not in --images {folder}")
    if sheet and not servers:
        raise click.UsageError("--sheet needs --server: contact sheets are answered in words")
    more = _json_object(extra)
    asked = read_prompts(prompts)
    named = Path(model).resolve().name if not servers and Path(model).is_dir() else model
    journal = Journal(output, named, {prompt.name for prompt in asked.values()})
    todo: list[Task] = []
    if points and sheet:
        todo = sheet_tasks(names, journal, sheet, repeat, seed)
    elif points:
        todo = point_tasks(names, journal, repeat)
    pairs = min(pairs, len(names) * (len(names) - 1) // 2)
    comparisons = max(0, 2 * pairs - pair_answers(names, journal))
    calls = len(todo) + comparisons
    click.echo(
        f"{len(names)} images, names relative to {folder}; {sum(journal.done.values())} answers from before", err=True
    )
    click.echo(
        f"{calls} calls to make: {len(todo)} {'contact sheets' if sheet else 'judgments'}, {comparisons} comparisons",
        err=True,
    )
    if repeat > 1 and not sheet and mode != "number":
        click.echo(
            "leafiqa: log-probabilities come out the same when asked for again: --repeat tells something with "
            "--mode number or --sheet",
            err=True,
        )
    if dry_run:
        return
    if not calls:
        if journal.done:
            _tell(journal)
        click.echo(output)
        return
    teacher: Teacher
    try:
        if servers:
            key = os.environ.get(key_variable) or None
            server = Servers(servers, key=key, timeout=timeout, attempts=attempts, concurrency=concurrency)
            # Some read images, some wait to ask again, while as many as may be are being answered.
            threads = 2 * concurrency + 4
            warmth = 0.7 if repeat > 1 else 0.0
            teacher = ServerTeacher(
                server, model, prompts=asked, mode=mode, max_side=max_side or None, temperature=warmth, extra=more
            )
        else:
            from leafiqa.teachers.local import LocalTeacher

            teacher = LocalTeacher(
                model,
                revision=revision,
                device_map=device,
                dtype=dtype,
                batch=batch,
                max_side=max_side or None,
                prompts=asked,
            )
            threads = 2 * batch
    except TeacherUnusable as error:
        raise click.ClickException(str(error)) from error
    prior = None if metric is None or not pairs else _prior(metric, dict(zip(names, found)), device)
    total = Report()
    try:
        with locked(output), progress(calls, "asking", "calls") as bar:

            def advance(task: Task) -> None:
                bar()

            def run(tasks: list[Task]) -> None:
                if not total.answered and tasks:
                    # The first answer is kept like any other, and tells what the rest will cost.
                    total.add(ask(teacher, tasks[:1], folder, journal, advance=advance))
                    # A comparison shows two images: its question is about twice as long as a judgment's.
                    twice = comparisons if tasks[0].kind == "point" else 0
                    click.echo(_cost("estimated", total, calls, price, twice), err=True)
                    tasks = tasks[1:]
                total.add(ask(teacher, tasks, folder, journal, threads=threads, advance=advance))

            run(todo)
            silent = {task.images[0] for task, _ in total.failed if task.kind == "point"}
            answering = [name for name in names if name not in silent]
            if pairs and len(answering) > 1:
                for tasks in pair_rounds(
                    answering, journal, pairs, prior=prior, sources=_sources(answering), seed=seed
                ):
                    run(tasks)
    except TeacherUnusable as error:
        raise click.ClickException(str(error)) from error
    finally:
        retries = f", {server.retries} retries" if servers else ""
        click.echo(f"{total.answered} answers, {len(total.failed)} questions without{retries}", err=True)
    click.echo(_cost("used", total, total.answered + len(total.failed), price), err=True)
    for task, why in total.failed:
        click.echo(f"leafiqa: {', '.join(task.images)}: {why}", err=True)
    if journal.done:
        _tell(journal)
    click.echo(output)
    if total.failed:
        raise click.exceptions.Exit(1)


def _common_folder(files: list[str]) -> Path:
    return Path(os.path.commonpath([os.path.dirname(path) for path in files]))


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


def _sources(names: list[str]) -> dict[str, str] | None:
    """Return for each image the folder below the root that it is in, None if they are all in one."""
    found = {name: name.split(os.sep, 1)[0] if os.sep in name else "" for name in names}
    return found if len(set(found.values())) > 1 else None


def _prior(metric: str, places: dict[str, str], device: str) -> dict[str, float]:
    """Return a student's view of the images, in logits; images that it cannot read are left out."""
    import leafiqa
    from leafiqa.folder.pipeline import score_files
    from leafiqa.teachers.label import as_belief

    student = leafiqa.create_metric(weights=metric, device=device)
    low, high = student.score_range
    prior: dict[str, float] = {}
    with progress(len(places), "predicting") as bar:
        for name, row in zip(places, score_files(student, places.values())):
            if row.score is not None:
                prior[name] = as_belief((row.score - low) / (high - low))
            bar()
    return prior


def _cost(word: str, report: Report, calls: int, price: tuple[float, float] | None, twice: int = 0) -> str:
    """Return a line on the tokens of so many calls, at the mean of those made, and their price.

    Args:
        word: "estimated" or "used".
        report: calls made.
        calls: how many there are in all.
        price: of a million tokens in and out.
        twice: of the calls, those whose questions are twice as long.
    """
    if not any(report.tokens):
        known = "the server does not count tokens" if report.answered else "nothing was answered yet"
        return f"{word}: {calls} calls; {known}"
    made = max(1, report.answered + len(report.failed))
    tokens = [round(report.tokens[0] / made * (calls + twice)), round(report.tokens[1] / made * calls)]
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
    if summary.repeat_tau is not None:
        click.echo(f"agreement    tau {summary.repeat_tau:.2f} between repeated judgments", err=True)
    if summary.ranking_agreement is not None:
        click.echo(
            f"rankings     agree with their sheet's scores in {summary.ranking_agreement:.2f} of pairs", err=True
        )
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
