"""Have a teacher judge the images of a folder: find out what is left to ask, ask it, say what it cost and is worth."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.evidence.files import Evidence, is_evidence
from leafiqa.evidence.records import LEVELS
from leafiqa.evidence.reliability import targets
from leafiqa.evidence.summary import summarise
from leafiqa.files import StrPath, as_path, check_output, locked, printable
from leafiqa.images.find import Found, need_images
from leafiqa.metric import load_metric
from leafiqa.scoring.pipeline import score_files
from leafiqa.teachers.asking import Report, ask
from leafiqa.teachers.http import Servers, insecure
from leafiqa.teachers.journal import Journal, Task
from leafiqa.teachers.prompts import read_prompts
from leafiqa.teachers.protocol import Teacher
from leafiqa.teachers.questions import as_belief, pair_answers, pair_rounds, point_tasks, sheet_tasks

MODES = ("auto", "levels", "number")
# Further from one half than this, the place decides more than it should.
_BIAS = 0.15


@dataclass
class Labelling:
    """What came of having images judged.

    Attributes:
        output: the evidence file.
        images: how many images there are.
        planned: calls that were to be made.
        answered: questions answered now.
        failed: questions without an answer: the images, and why.
        tokens: tokens in and out, as the server counts them.
        retries: how often a server was asked again.
        remarks: what the evidence is like, one sentence each.
    """

    output: Path
    images: int
    planned: int
    answered: int = 0
    failed: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    retries: int = 0
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what came of it, ready for JSON."""
        return {**asdict(self), "output": str(self.output)}

    def __str__(self) -> str:
        lines = [f"{self.output}: {self.answered} answers, {len(self.failed)} questions without"]
        return "\n".join([*lines, *self.remarks])


def label(
    images: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    teacher: str | Teacher,
    server: str | Sequence[str] | None = None,
    recursive: bool = False,
    folder: StrPath | None = None,
    points: bool = True,
    pairs: int = 0,
    metric: str | None = None,
    weights: StrPath | None = None,
    repeat: int = 1,
    mode: str = "auto",
    sheet: int | None = None,
    defects: bool = False,
    concurrency: int = 16,
    max_side: int = 1024,
    prompts: StrPath | None = None,
    key: str | None = None,
    price: tuple[float, float] | None = None,
    timeout: float = 120.0,
    attempts: int = 8,
    batch_size: int = 4,
    revision: str | None = None,
    dtype: str = "auto",
    extra: dict[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    dry_run: bool = False,
    log: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Labelling:
    """Have a multimodal LLM judge images, and write what it says as evidence. Killed at any moment, it goes on.

    Args:
        images: files, folders and glob patterns.
        output: evidence file, JSON lines; gone on with if it is there.
        teacher: with `server` the model's name there; else a transformers model by hub name or folder; or an object of
            the protocol `leafiqa.teachers.protocol.Teacher`.
        server: address of an OpenAI-compatible server, or several that share the work. Images are sent there and
            nowhere else; without one they do not leave this machine.
        recursive: look into folders inside folders.
        folder: what names are relative to; None means `images` if it is one folder, else the folder that holds all.
        points: judge each image by itself.
        pairs: compare so many pairs, each in both orders.
        metric: choose pairs that this student, by name, finds alike; without it by the judgments so far.
        weights: the same student in some place, see `leafiqa.create_metric`.
        repeat: judge each image so often; sampled where numbers are asked for.
        mode: "levels" reads log-probabilities, "number" asks for a number, "auto" finds out.
        sheet: judge `sheet` x `sheet` images, 2 to 8, in one view and call instead of each by itself; with a server.
        defects: also ask what is wrong with each image, in a call of its own where the judgment is read from
            log-probabilities; judgments by number and on sheets name it anyway. With a server.
        concurrency: questions under way at once.
        max_side: send images at most this large, in pixels; 0 sends them as they are.
        prompts: TOML file with prompts of your own.
        key: the server's API key; none is sent without it.
        price: of a million tokens in and out, for the estimate.
        timeout: seconds to wait for an answer.
        attempts: how often to ask before a question is given up.
        batch_size: without a server: images in a batch.
        revision: without a server: branch, tag or commit of the model on the hub.
        dtype: without a server: "auto", "float32", "bfloat16", "float16".
        extra: with a server: fields added to each request; they go before leafiqa's own.
        device: without a server: where to compute.
        seed: seeds the choice of pairs.
        dry_run: only say what would be asked.
        log: takes lines for the reader.
        progress: called with the calls made, and how many there are.

    Returns:
        What came of it; the evidence is in `output`.

    Raises:
        TeacherUnusable: no question can be answered: a wrong address, model or key.
        EvidenceError: the output holds another teacher's evidence, or was asked for with other prompts.
        OutputError: another process is writing to the output, or there is no such folder.
        InputError: no image was found, or an argument is not of the documented form.
    """
    servers = [server] if isinstance(server, str) else server
    if not isinstance(servers, (list, tuple, type(None))) or not all(isinstance(one, str) for one in servers or ()):
        raise InputError(f"server must be an address or a list of them, got {server!r}")
    servers = list(servers or ())
    if extra is not None and not isinstance(extra, dict):
        raise InputError(f"extra must be a dict of fields, got {extra!r}")
    if price is not None and len(price) != 2:
        raise InputError(f"price must be two numbers, of a million tokens in and out, got {price!r}")
    for name, number, least in (("attempts", attempts, 1), ("batch_size", batch_size, 1), ("max_side", max_side, 0)):
        whole_number(number, name, least)
    if not timeout > 0:
        raise InputError(f"timeout must be a positive number of seconds, got {timeout!r}")
    _check(mode, pairs, repeat, sheet, defects, servers, concurrency, teacher)
    output = as_path(output, "output")
    names, places, root, found = _names(images, recursive, folder)
    for line in found.remarks():
        log(line)
    check_output(output, inputs=places, overwrite=True, is_ours=is_evidence)
    asked = read_prompts(None if prompts is None else as_path(prompts, "prompts"))
    if not isinstance(teacher, str):
        named = teacher.name
    else:
        named = Path(teacher).resolve().name if not servers and Path(teacher).is_dir() else teacher
    for address in insecure(servers):
        log(f"{address} is not encrypted: {'the API key and ' if key else ''}the images can be read on their way")
    # The lock first: what is read from the file must still be so when the asking begins, or answers are paid for twice.
    with locked(output):
        own = not isinstance(teacher, str)
        journal = Journal(output, named, None if own else {prompt.name for prompt in asked.values()})
        todo: list[Task] = []
        if points and sheet:
            todo = sheet_tasks(names, journal, sheet, repeat, seed)
        elif points:
            todo = point_tasks(names, journal, repeat)
        pairs = min(pairs, len(names) * (len(names) - 1) // 2)
        comparisons = max(0, 2 * pairs - pair_answers(names, journal))
        calls = len(todo) + comparisons
        what = "contact sheets" if sheet else "judgments"
        log(f"{len(names)} images, names relative to {root}; {sum(journal.done.values())} answers from before")
        log(f"{calls} calls to make: {len(todo)} {what}, {comparisons} comparisons")
        if repeat > 1 and not sheet and mode != "number":
            log(
                "log-probabilities come out the same when asked for again: repeats tell something with mode number or "
                "on sheets"
            )
        result = Labelling(output, len(names), calls)
        result.failed = [((place,), why) for place, why in found.unreadable]
        if dry_run or not calls:
            result.remarks = _remarks(journal) if journal.done else []
            return result
        if isinstance(teacher, str):
            judge, threads, link = _teacher(
                teacher, servers, asked, key, timeout, attempts, concurrency, mode, max_side, repeat, defects, extra,
                revision, device, dtype, batch_size,
            )  # fmt: skip
        else:
            judge, threads, link = teacher, concurrency, None
        prior = None
        if pairs and (metric is not None or weights is not None):
            prior = _prior(load_metric(metric or "leaf", weights=weights, device=device), dict(zip(names, places)))
        total = Report()
        done = 0

        def advance(task: Task) -> None:
            nonlocal done
            done += 1
            progress(done, calls)

        def run(tasks: list[Task]) -> None:
            if not total.answered and tasks:
                # The first answer is kept like any other, and tells what the rest will cost.
                total.add(ask(judge, tasks[:1], root, journal, advance=advance))
                # A comparison shows two images: its question is about twice as long as a judgment's.
                twice = comparisons if tasks[0].kind == "point" else 0
                log(_cost("estimated", total, calls, price, twice))
                tasks = tasks[1:]
            total.add(ask(judge, tasks, root, journal, threads=threads, advance=advance))

        try:
            run(todo)
            silent = {task.images[0] for task, _ in total.failed if task.kind == "point"}
            answering = [name for name in names if name not in silent]
            if pairs and len(answering) > 1:
                sources = _sources(answering)
                for tasks in pair_rounds(answering, journal, pairs, prior=prior, sources=sources, seed=seed):
                    run(tasks)
        finally:
            result.retries = link.retries if link is not None else 0
            retried = f", {result.retries} retries" if link is not None else ""
            log(f"{total.answered} answers, {len(total.failed)} questions without{retried}")
        log(_cost("used", total, total.answered + len(total.failed), price))
        result.answered, result.tokens = total.answered, total.tokens
        result.failed += [(task.images, why) for task, why in total.failed]
        result.remarks = _remarks(journal) if journal.done else []
        return result


def _check(
    mode: str,
    pairs: int,
    repeat: int,
    sheet: int | None,
    defects: bool,
    servers: Sequence[str],
    concurrency: int,
    teacher: object,
) -> None:
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    for name, value, least in (("pairs", pairs, 0), ("repeat", repeat, 1), ("concurrency", concurrency, 1)):
        whole_number(value, name, least)
    if sheet is not None and not 2 <= whole_number(sheet, "sheet", 2) <= 8:
        raise InputError(f"sheet must be from 2 to 8 images along a side, got {sheet}")
    if not isinstance(teacher, str) and not hasattr(teacher, "judge"):
        raise InputError(f"teacher must be a model's name, or an object that judges, got {teacher!r}")
    if sheet and not servers and isinstance(teacher, str):
        raise InputError("contact sheets are answered in words: sheet needs a server (--server)")
    if defects and not servers and isinstance(teacher, str):
        raise InputError("defects are named in words: defects needs a server (--server)")


def _names(
    images: StrPath | Sequence[StrPath], recursive: bool, folder: StrPath | None
) -> tuple[list[str], list[str], Path, Found]:
    """Return the images' names, their places, the folder that the names are relative to, and what was found."""
    found = need_images(images, recursive)
    given = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    places = [os.path.abspath(path) for path in found]
    if folder is not None:
        root = Path(os.path.abspath(folder))
    elif len(given) == 1 and os.path.isdir(given[0]):
        root = Path(os.path.abspath(given[0]))
    else:
        root = Path(os.path.commonpath([os.path.dirname(path) for path in places]))
    names = [os.path.relpath(path, root) for path in places]
    if outside := [name for name in names if name.startswith("..")]:
        raise InputError(f"{printable(outside[0])} is not in the folder that names are relative to, {root}")
    return names, places, root, found


def _teacher(
    model: str,
    servers: Sequence[str],
    prompts: Any,
    key: str | None,
    timeout: float,
    attempts: int,
    concurrency: int,
    mode: str,
    max_side: int,
    repeat: int,
    defects: bool,
    extra: dict[str, Any] | None,
    revision: str | None,
    device: str,
    dtype: str,
    batch_size: int,
) -> tuple[Teacher, int, Servers | None]:
    """Return the teacher, how many questions are worked on at once, and the link to its servers."""
    if servers:
        from leafiqa.teachers.openai import ServerTeacher

        link = Servers(servers, key=key, timeout=timeout, attempts=attempts, concurrency=concurrency)
        judge = ServerTeacher(
            link,
            model,
            prompts=prompts,
            mode=mode,
            max_side=max_side or None,
            defects=defects,
            temperature=0.7 if repeat > 1 else 0.0,
            extra=extra,
        )
        # Some read images, some wait to ask again, while as many as may be are being answered.
        return judge, 2 * concurrency + 4, link
    from leafiqa.teachers.local import LocalTeacher

    local = LocalTeacher(
        model,
        revision=revision,
        device_map=device,
        dtype=dtype,
        batch=batch_size,
        max_side=max_side or None,
        prompts=prompts,
    )
    return local, 2 * batch_size, None


def _sources(names: list[str]) -> dict[str, str] | None:
    """Return for each image the folder below the root that it is in, None if they are all in one."""
    found = {name: name.split(os.sep, 1)[0] if os.sep in name else "" for name in names}
    return found if len(set(found.values())) > 1 else None


def _prior(student: Any, places: dict[str, str]) -> dict[str, float]:
    """Return a student's view of the images, in logits; images that it cannot read are left out."""
    low, high = student.score_range
    return {
        name: as_belief((row.score - low) / (high - low))
        for name, row in zip(places, score_files(student, places.values()))
        if row.score is not None
    }


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


def _remarks(journal: Journal) -> list[str]:
    """Say what the evidence is like: histogram, position bias, agreement, reliability."""
    evidence: Evidence = journal.evidence()
    summary = summarise(evidence)
    remarks = []
    scores = [target.score for target in targets(evidence).values()]
    if scores:
        counts = [0] * len(LEVELS)
        for score in scores:
            counts[min(int(score * len(LEVELS)), len(LEVELS) - 1)] += 1
        remarks.append("levels       " + ", ".join(f"{name} {n}" for name, n in zip(LEVELS, counts)))
        remarks.append(f"reliability  {summary.point_reliability:.2f} of judgments on average")
    if summary.repeat_tau is not None:
        remarks.append(f"agreement    tau {summary.repeat_tau:.2f} between repeated judgments")
    if summary.ranking_agreement is not None:
        remarks.append(f"rankings     agree with their sheet's scores in {summary.ranking_agreement:.2f} of pairs")
    if summary.pairs and summary.first_preferred is not None:
        consistent = "" if summary.order_consistency is None else f", order consistency {summary.order_consistency:.2f}"
        remarks.append(
            f"pairs        {summary.pairs}, reliability {summary.pair_reliability:.2f}; the one shown first preferred "
            f"{summary.first_preferred:.2f} of the time{consistent}"
        )
        if abs(summary.first_preferred - 0.5) > _BIAS:
            remarks.append(
                "this teacher prefers a place, not an image: comparisons in both orders cancel that out, at the cost "
                "of their reliability; ask for judgments instead, or another model"
            )
    return remarks
