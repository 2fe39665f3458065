"""Verbs for rating by eye: rate pictures on a page of this machine, and turn the answers into a table of MOS."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.api.arguments import Paths, as_files
from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.scoring.backends import as_metric

if TYPE_CHECKING:
    import torch

    from leafiqa.metric import Metric
    from leafiqa.rating.panel import Panel


def rate(
    images: Paths,
    output: str | os.PathLike[str],
    *,
    budget: int | None = None,
    ask: str = "rating",
    metric: str | Metric = "leaf",
    weights: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    started: Callable[[str], None] = print,
) -> Panel | None:
    """Rate pictures by eye, on a page that is served from this machine, until the session is finished from the page.

    Which pictures: half of the budget as `select` chooses, the rest as answers come in, those whose rating teaches the
    calibration most. Several people may rate at once, each under a name of their own. A session that ended, or was
    killed, goes on when called again with the same output.

    Args:
        images: a file, folder or pattern, or several.
        output: the file of answers, CSV, one a line; each is on disk before the next picture shows.
        budget: how many pictures are to be rated; None means all of up to 50.
        ask: "rating" (1 bad to 5 excellent), "comparison" (which of two looks better) or "both".
        metric: the metric that is to be calibrated.
        weights: a student in some place, instead of `metric`; see `create_metric`.
        recursive: look into the folders of a folder, too.
        host: the address to listen at; another than the loopback lets other machines of the network in.
        port: 0 takes a free one.
        device: where the metric computes.
        seed: of all that is drawn.
        started: called with the page's address.

    Returns:
        `Panel`: `.to_csv("mos.csv")` for `calibrate`; None if nothing was answered that counts.

    Raises:
        InputError: no images, wrong arguments, an address that cannot be used, or starlette and uvicorn are missing.
        OutputError: the output is no file of ratings.

    Example:
        >>> panel = leafiqa.rate("photos/", "ratings.csv", budget=50)
        >>> panel.to_csv("mos.csv")
        >>> mine = leafiqa.calibrate("leaf", "mos.csv", scale=(1, 5))
    """
    try:
        import starlette
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError("rate needs starlette and uvicorn: pip install 'leafiqa[rate]'") from error
    del starlette
    from leafiqa.files import check_output, locked
    from leafiqa.images.find import need_images
    from leafiqa.rating.answers import AnswerFile, is_answers
    from leafiqa.rating.knowledge import stands_for
    from leafiqa.rating.looking import rows_of
    from leafiqa.rating.panel import summarise
    from leafiqa.rating.questions import ASKS
    from leafiqa.rating.running import serve
    from leafiqa.rating.session import Session

    if ask not in ASKS:
        raise InputError(f"ask must be one of {', '.join(ASKS)}, got {ask!r}")
    whole_number(seed, "seed", 0)
    whole_number(port, "port", 0)
    found = need_images(images, recursive)
    named = [Path(os.path.abspath(path)) for path in found]
    missing = [str(path) for path in named if not path.is_file()]
    if len(missing) == len(named):
        raise InputError(f"{missing[0]}: no such file or folder")
    files = [path for path in named if path.is_file()]
    paths = inside(files, images)
    check_output(output, inputs=paths, overwrite=True, is_ours=is_answers)
    many = min(50, len(paths)) if budget is None else whole_number(budget, "budget", 1)
    with locked(output):
        answers = AnswerFile(output)
        try:
            session = Session(paths, answers, as_metric(metric, weights, device), budget=many, ask=ask, seed=seed)  # type: ignore[arg-type]
            serve(session, host=host, port=port, started=started)
        finally:
            answers.close()
    given = session.answers()
    if not given.ratings() and not given.comparisons():
        return None
    panel = summarise(given)
    place = {str(path): number for number, path in enumerate(paths)}
    seen = session.looking.seen()
    there = set(seen.index.tolist())
    shown = [of.image for of in panel.pictures if place.get(of.image) in there]
    if session.looking.complete and shown:
        weights_of = stands_for(seen.logits, rows_of(seen, [place[image] for image in shown]))
        panel.stands_for = dict(zip(shown, weights_of.tolist()))
    panel.problems += [f"{path}: no such file" for path in missing]
    place_of = set(paths)
    panel.problems += [f"{path}: a link out of the folder: left out" for path in files if path not in place_of]
    if session.looking.failed is not None:
        panel.problems.append(f"the student could not look at all pictures ({session.looking.failed})")
    if not panel.stands_for:
        panel.problems.append(
            "the student had not looked at all pictures at the end: mos.csv has no column stands_for, and what "
            "calibrate expects holds for the rated pictures, which are mostly extremes"
        )
    panel.problems += [f"{paths[number]}: {why}" for number, why in sorted(session.unreadable.items())]
    panel.problems += [f"{paths[number]}: {why}" for number, why in sorted(session.looking.errors().items())]
    return panel


def inside(paths: list[Path], given: Paths) -> list[Path]:
    """Return pictures but those that a link leads out of the given folders: a page must not show other files.

    Raises:
        InputError: none is left.
    """
    several: list[Any] = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    roots = [os.path.realpath(_fixed_folder(os.fspath(one))) for one in several if not os.path.isfile(one)]
    kept = []
    for path in paths:
        real = os.path.realpath(path)
        named = any(os.path.abspath(os.fspath(one)) == str(path) for one in several)
        if named or not roots or not path.is_symlink() or any(real.startswith(root + os.sep) for root in roots):
            kept.append(path)
    if not kept:
        raise InputError("no picture is left: all are links that lead out of the folder")
    return kept


def _fixed_folder(given: str) -> str:
    """Return the folder that a pattern begins with, up to its first wildcard; a folder is its own."""
    if os.path.isdir(given):
        return given
    parts = given.split(os.sep)
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.sep.join(parts[:fixed]) or (os.sep if given.startswith(os.sep) else os.curdir)


def summarise_ratings(ratings: Paths) -> Panel:
    """Turn ratings into a table of MOS, with a rater model beside the plain mean.

    Args:
        ratings: a file that `rate` wrote, or several; also SUREAL's JSON, pwcmp's CSV, and long and wide tables, see
            `leafiqa.rating.layouts_of_ratings.read_ratings`.

    Returns:
        `Panel`: prints what is to be said of each rater; `.pictures`, `.raters`, `.to_csv("mos.csv")`, `.to_dict()`,
        `.to_pandas()`.

    Raises:
        InputError: a file cannot be read, or no answer counts.
    """
    from leafiqa.rating.answers import Answers
    from leafiqa.rating.layouts_of_ratings import read_ratings
    from leafiqa.rating.panel import summarise

    files = as_files(ratings)
    if not files:
        raise InputError("ratings must be a file or several, got none")
    parts = [read_ratings(file) for file in files]
    return summarise(Answers([a for of in parts for a in of.answers], [p for of in parts for p in of.problems]))


def export_ratings(ratings: Paths, output: str | os.PathLike[str], layout: str, *, overwrite: bool = False) -> None:
    """Write ratings in another tool's layout.

    Args:
        ratings: see `summarise_ratings`.
        output: the file.
        layout: "sureal", "pwcmp", "long" or "wide".
        overwrite: whether a file of that layout may be replaced.

    Raises:
        InputError: a file cannot be read, an unknown layout, or no answers of its kind.
        OutputError: the file exists already, or there is no such folder.
    """
    from leafiqa.rating.answers import Answers
    from leafiqa.rating.layouts_of_ratings import read_ratings, write_ratings

    parts = [read_ratings(file) for file in as_files(ratings)]
    write_ratings(Answers([a for of in parts for a in of.answers]), output, layout, overwrite=overwrite)
