"""Score files in order: on a CPU several at a time, for an accelerator while threads decode ahead."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError, LeafiqaError
from leafiqa.files import sha256_if_readable
from leafiqa.images.decoding import Decoded
from leafiqa.images.loading import load_ahead
from leafiqa.scoring.columns import check_columns, extra_columns, takes_details, values_of
from leafiqa.scoring.contents import Content
from leafiqa.scoring.rows import HASH_DIGITS, Row, digits_of

if TYPE_CHECKING:
    from leafiqa.metric import Metric
    from leafiqa.onnx.onnx_metric import OnnxMetric

    # Both score what they have prepared of decoded images; neither is imported here, as torch takes seconds.
    AnyMetric = Metric | OnnxMetric


@dataclass(frozen=True)
class _Prepared:
    """A file after decoding: what each student will look at, or why there is nothing to look at.

    Attributes:
        path: the file.
        decoded: its pixels, by the size rule that they were decoded by; dropped once `images` are made of them.
        images: what each student looks at, and what it takes a close look at, where that was asked for.
        error: why there is nothing.
        note: remarks from decoding.
        sha256: of the file.
    """

    path: str
    decoded: dict[Any, Decoded] = field(default_factory=dict)
    images: tuple[Any, ...] = ()
    error: str = ""
    note: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class _Outcome:
    """A score, and what was asked for beside it."""

    score: float
    beside: dict[str, float | None] = field(default_factory=dict)


def score_files(
    metrics: AnyMetric | Sequence[AnyMetric],
    paths: Iterable[str | os.PathLike[str] | Content],
    batch_size: int = 64,
    workers: int | None = None,
    columns: Iterable[str] = ("score",),
) -> Iterator[Row]:
    """Score files and yield a row for each, in order, as soon as its batch is done.

    Args:
        metrics: a metric that is not `as_loss`, or several: an image is decoded once, and has a row for each of them.
        paths: the files, or images that are no files; may be without end.
        batch_size: files scored together on an accelerator, and where there are fewer than threads; those that differ
            in resized size are split up further.
        workers: threads. On a CPU each scores a file at a time, from its bytes to its score; None means one a core,
            and at most sixteen. For an accelerator they decode; None means the same. Twice as many images are held in
            full size, at most, and for an accelerator 64 MiB of pixels more.
        columns: what rows hold beside the score: "se", its standard error; "defects", the severity of each; "details",
            what is seen in windows of large pictures at full size.

    Yields:
        One row a path and metric; a file that cannot be scored, for whatever reason, has its error in it.

    Raises:
        InputError: a metric returns losses, or there is none; or it runs in ONNX Runtime, and more than a score was
            asked for; or details, and it decodes files at reduced scale.
        WeightsError: more than a score was asked for of a student that tells nothing else.
    """
    metrics = list(metrics) if isinstance(metrics, Sequence) else [metrics]
    if not metrics or any(metric.as_loss for metric in metrics):
        raise InputError("files are scored by at least one metric that was created without as_loss")
    whole_number(batch_size, "batch_size", 1)
    if workers is not None:
        whole_number(workers, "workers", 1)

    extra = extra_columns(metrics, check_columns(columns))
    with_details = takes_details(extra)

    def look(path: str | os.PathLike[str] | Content) -> _Prepared:
        return _open(metrics, path if isinstance(path, Content) else os.fspath(path))

    at_once = [metric.at_once(paths) for metric in metrics]
    if all(at_once):  # each file from its bytes to its score in one thread
        scored = load_ahead(
            lambda path: list(_finish(metrics, _prepare(metrics, [look(path)], with_details), extra)),
            paths,
            workers=workers or min(filter(None, at_once)),
            begin=next((metric.begin_thread for metric in metrics if metric.begin_thread is not None), None),
        )
        for rows in scored:
            yield from rows
        return
    # Pixels are large: they are made ready, which makes them small, before there are many, though not one by one.
    together = max(metric.together for metric in metrics)
    opened: list[_Prepared] = []
    window: list[_Prepared] = []
    held = 0
    for one in load_ahead(look, paths, workers=workers or max(metric.decoders for metric in metrics)):
        opened.append(one)
        held += sum(decoded.pixels.nbytes for decoded in one.decoded.values())
        full = len(window) + len(opened) == batch_size
        if full or held >= together:
            window += _prepare(metrics, opened, with_details)
            opened, held = [], 0
        if full:
            yield from _finish(metrics, window, extra)
            window = []
    yield from _finish(metrics, window + _prepare(metrics, opened, with_details), extra)


def _open(metrics: Sequence[AnyMetric], source: str | Content) -> _Prepared:
    path = source.name if isinstance(source, Content) else source
    digest = ""
    try:
        image: str | bytes = path
        if isinstance(source, Content):
            image = source.read()
            digest = digits_of(image)
        decoded: dict[Any, Decoded] = {}
        for metric in metrics:  # decoded once for all that look at whole images
            if _rule(metric) not in decoded:
                decoded[_rule(metric)] = metric.decode(image)
        notes = next(iter(decoded.values())).notes
    except Exception as error:  # one file, whatever it does, must not stop the others
        return _Prepared(path, error=_why(error), sha256=digest)
    if not isinstance(source, Content):
        digest = (sha256_if_readable(path) or "")[:HASH_DIGITS]
    return _Prepared(path, decoded, note="; ".join(notes), sha256=digest)


def _rule(metric: AnyMetric) -> Any:
    return metric.preprocess if metric.draft else None


def _prepare(metrics: Sequence[AnyMetric], opened: list[_Prepared], with_details: bool) -> list[_Prepared]:
    """Resize images for each student, and cut windows out of them; those that look alike share what they look at."""
    good = [place for place, one in enumerate(opened) if not one.error]
    if not good:
        return opened
    made = list(opened)
    try:
        seen: dict[Any, list[tuple[Any, Any]]] = {}
        for metric in metrics:
            key = (metric.preprocess, metric.draft, metric.device)
            if key not in seen:
                decoded = [opened[place].decoded[_rule(metric)] for place in good]
                ready = list(metric.prepare_several(decoded))
                seen[key] = list(
                    zip(ready, _close_ups(metric, decoded, ready) if with_details else [None] * len(ready))
                )
        looked = [seen[metric.preprocess, metric.draft, metric.device] for metric in metrics]
        for number, place in enumerate(good):
            images = tuple(of[number] for of in looked)
            made[place] = replace(opened[place], decoded={}, images=images)
    except Exception as error:  # not enough memory, perhaps: then each by itself
        if len(good) > 1:
            return [_prepare(metrics, [one], with_details)[0] for one in opened]
        made[good[0]] = replace(opened[good[0]], decoded={}, error=_why(error), note="")
    return made


def _close_ups(metric: Any, decoded: list[Decoded], ready: list[Any]) -> list[Any]:
    return [metric.close_up(whole, look) for whole, (look, _) in zip(decoded, ready)]


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError) or "allocate" in str(error) or "out of memory" in str(error):
        return "not enough memory"
    text = (str(error) or type(error).__name__).strip()
    return text if isinstance(error, LeafiqaError) else f"{type(error).__name__}: {text.splitlines()[0]}"


def _finish(metrics: Sequence[AnyMetric], window: list[_Prepared], extra: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a window, those of one image after those of the one before."""
    columns = [_outcomes(metric, window, number, extra) for number, metric in enumerate(metrics)]
    for place, item in enumerate(window):
        for metric, column in zip(metrics, columns):
            row = Row(item.path, None, item.error, item.note, metric.metric_name, metric.card.short_hash, item.sha256)
            outcome = column[place]
            if isinstance(outcome, Exception):
                row = replace(row, error=_why(outcome))
            elif outcome is not None and outcome.score != outcome.score:
                row = replace(row, error="the model gave no number")
            elif outcome is not None:
                row = replace(row, score=outcome.score, beside=outcome.beside)
            yield row


def _outcomes(
    metric: AnyMetric, window: list[_Prepared], number: int, extra: Sequence[str]
) -> list[_Outcome | Exception | None]:
    """Return one metric's outcome for each file of a window, None where there is nothing to look at."""
    prepared = [item.images[number] for item in window if item.images]
    try:
        # One transfer for the whole window.
        found: Iterator[_Outcome | Exception] = iter(_look_at(metric, prepared, extra))
    except Exception:
        # Too large together, perhaps: each by itself, and the error to the one that it belongs to.
        found = iter([_alone(metric, image, extra) for image in prepared])
    return [next(found) if item.images else None for item in window]


def _look_at(metric: AnyMetric, prepared: list[tuple[Any, Any]], extra: Sequence[str]) -> list[_Outcome]:
    """Return scores, and with them what else was asked for, from one and the same pass; windows take another one."""
    if not prepared:
        return []
    if not extra:
        return [_Outcome(score) for score in metric.score_prepared([image for image, _ in prepared]).tolist()]
    told = metric.explain_prepared([image for image, _ in prepared])  # type: ignore[union-attr]
    outcomes = []
    for one, (_, close_up) in zip(told, prepared):
        if one is not None and close_up is not None:
            one = replace(one, details=metric.look_closely(close_up))  # type: ignore[union-attr]
        outcomes.append(_Outcome(math.nan) if one is None else _Outcome(one.score, values_of(one, extra)))
    return outcomes


def _alone(metric: AnyMetric, image: tuple[Any, Any], extra: Sequence[str]) -> _Outcome | Exception:
    try:
        return _look_at(metric, [image], extra)[0]
    except Exception as error:
        return error
