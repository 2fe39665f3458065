"""Ratings in other tools' layouts, read and written: SUREAL's JSON, pwcmp's CSV, long and wide tables."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from leafiqa.errors import InputError
from leafiqa.files import StrPath, as_path, check_output, printable, write_whole
from leafiqa.rating.answers import COLUMNS, HIGH, LOW, Answer, Answers, read_answers
from leafiqa.scoring.rows import csv_line
from leafiqa.scoring.scores import name_in
from leafiqa.tables import Table, read_table, read_text, safe_cell

LAYOUTS = ("sureal", "pwcmp", "long", "wide")
_RATER = ("rater", "observer", "subject", "user", "participant", "worker")
_SCORE = ("score", "rating", "value", "opinion", "vote")
_IMAGE = ("image", "image_name", "file_name", "filename", "stimulus", "path", "name", "condition")
_PWCMP = ["Observer", "Session", "Scene", "Condition_1", "Condition_2", "Selection"]


def read_ratings(path: StrPath) -> Answers:
    """Read ratings in any known layout, told by the file's content.

    A file that `leafiqa rate` wrote; SUREAL's JSON (its `.py` files are programs and are never run); pwcmp's CSV; a
    long table (columns rater, image, score); a wide one (a column image, and one for each rater).

    Raises:
        InputError: the file cannot be read, its layout is not known, or no rating in it can be used.
    """
    place = as_path(path, "the file of ratings")
    if place.suffix.lower() == ".py":
        raise InputError(f"{place} is a program, which is never run to read ratings; save the data set as JSON")
    if place.suffix.lower() == ".json":
        return _of_sureal(place)
    if read_text(place, "ratings").startswith(",".join(COLUMNS)):
        return read_answers(place)
    table = read_table(place)
    lower = {column.lower(): column for column in table.columns}
    if {name.lower() for name in _PWCMP} - {"session"} <= set(lower):
        return _of_pwcmp(table, lower)
    image, rater, score = (table.column(*known) for known in (_IMAGE, _RATER, _SCORE))
    if image is None:
        raise InputError(
            f"{place} is no table of ratings: it needs a column image (or {', '.join(_IMAGE[1:])}); it has "
            f"{', '.join(table.columns)}"
        )
    if rater is None and {"mos", "mos_se", "mos_std"} & set(lower):
        raise InputError(f"{place} is a table of MOS, not of ratings: give it to leafiqa calibrate --mos")
    if rater is not None and score is not None:
        return _of_long(table, image, rater, score)
    return _of_wide(table, image)


def _rating(number: int, rater: str, image: str, score: float) -> Answer:
    return Answer(number, rater, "rating", image, value=f"{score:g}")


def _finished(place: Path, answers: list[Answer], problems: list[str]) -> Answers:
    if not answers:
        raise InputError(f"{place} holds no rating that can be used: {'; '.join(problems[:3]) or 'it is empty'}")
    return Answers(answers, [f"{place.name}: {problem}" for problem in problems])


def _path_of(folder: Path, name: str) -> str:
    return os.path.normpath(os.path.join(folder, name))


def _of_long(table: Table, image: str, rater: str, score: str) -> Answers:
    answers: list[Answer] = []
    problems = []
    for line, row in zip(table.lines, table.rows):
        value, name, who = table.number(row[score]), row[image].strip(), row[rater].strip()
        if not name or not who:
            problems.append(f"line {line}: no image or no rater: left out")
        elif value is None or not LOW <= value <= HIGH:
            problems.append(f"line {line}: {row[score]!r} is no rating from {LOW:g} to {HIGH:g}: left out")
        else:
            answers.append(_rating(len(answers) + 1, who, _path_of(table.path.parent, name), value))
    return _finished(table.path, answers, problems)


def _of_wide(table: Table, image: str) -> Answers:
    answers: list[Answer] = []
    problems = []
    raters = [column for column in table.columns if column != image]
    if not raters:
        raise InputError(f"{table.path} has a column {image} and no other: a wide table has a column for each rater")
    for line, row in zip(table.lines, table.rows):
        for rater in raters:
            cell = row[rater].strip()
            value = table.number(cell)
            if not cell:
                continue  # not every rater saw every picture
            if value is None or not LOW <= value <= HIGH:
                problems.append(f"line {line}, {rater}: {cell!r} is no rating from {LOW:g} to {HIGH:g}: left out")
            else:
                answers.append(_rating(len(answers) + 1, rater, _path_of(table.path.parent, row[image].strip()), value))
    return _finished(table.path, answers, problems)


def _of_pwcmp(table: Table, lower: dict[str, str]) -> Answers:
    answers: list[Answer] = []
    problems = []
    for line, row in zip(table.lines, table.rows):
        scene = row[lower["scene"]].strip()
        pair = [row[lower[f"condition_{n}"]].strip() for n in (1, 2)]
        choice = row[lower["selection"]].strip()
        won = {"1": "first", "2": "second", "0": "tie"}.get(choice) or (
            "first" if choice == pair[0] else "second" if choice == pair[1] else None
        )
        if not all(pair) or won is None:
            problems.append(f"line {line}: selection {choice!r} is neither 1, 2 nor one of the two: left out")
            continue
        names = [_path_of(table.path.parent, os.path.join(scene, name) if scene else name) for name in pair]
        who = row[lower["observer"]].strip() or "observer"
        answers.append(Answer(len(answers) + 1, who, "comparison", names[0], names[1], won))
    return _finished(table.path, answers, problems)


def _of_sureal(place: Path) -> Answers:
    try:
        content: Any = json.loads(read_text(place, "ratings"))
        pictures = content["dis_videos"]
        if not isinstance(pictures, list):
            raise TypeError(f"got {type(pictures).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{place} is no data set of SUREAL's, which has a list dis_videos: {error}") from error
    answers: list[Answer] = []
    problems = []
    for number, of in enumerate(pictures):
        name, opinions = (of.get("path"), of.get("os")) if isinstance(of, dict) else (None, None)
        if isinstance(opinions, list):
            opinions = {f"rater {i + 1}": value for i, value in enumerate(opinions)}
        if not isinstance(name, str) or not isinstance(opinions, dict):
            problems.append(f"entry {number + 1}: no path or no os: left out")
            continue
        for rater, value in opinions.items():
            for score in value if isinstance(value, list) else [value]:
                if isinstance(score, bool) or not isinstance(score, (int, float)) or not LOW <= score <= HIGH:
                    problems.append(f"{printable(name)}, {printable(rater)}: {score!r:.40} is no rating: left out")
                else:
                    answers.append(_rating(len(answers) + 1, rater, _path_of(place.parent, name), float(score)))
    return _finished(place, answers, problems)


def write_ratings(answers: Answers, path: StrPath, layout: str, *, overwrite: bool = False) -> None:
    """Write the answers that count in another tool's layout; names are relative to the file's folder.

    Args:
        answers: as `read_ratings` returns them.
        path: the file.
        layout: "sureal", "long" or "wide" for ratings (of repeats the first one), "pwcmp" for comparisons.
        overwrite: whether an existing file of that layout may be replaced.

    Raises:
        InputError: an unknown layout, or no answers of its kind.
        OutputError: the file exists already, or there is no such folder.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    folder = os.path.dirname(os.path.abspath(path))
    chosen = answers.comparisons() if layout == "pwcmp" else answers.ratings()
    if not chosen:
        raise InputError(f"there are no {'comparisons' if layout == 'pwcmp' else 'ratings'} to write as {layout}")
    made = _WRITERS[layout](chosen, folder)
    head = made.split("\n", 1)[0][:40].encode("utf-8", "surrogateescape")
    check_output(path, overwrite=overwrite, is_ours=lambda found: found.startswith(head[: len(found)]))
    write_whole(path, made)


def _by_image(answers: list[Answer]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for answer in answers:
        found[answer.image].setdefault(answer.rater, answer.value)
    return dict(found)


def _sureal(answers: list[Answer], folder: str) -> str:
    pictures = []
    for number, (image, opinions) in enumerate(_by_image(answers).items()):
        scores = {rater: float(value) for rater, value in opinions.items()}
        pictures.append({"content_id": number, "asset_id": number, "os": scores, "path": name_in(image, folder)})
    contents = [{"content_id": of["content_id"], "content_name": of["path"], "path": of["path"]} for of in pictures]
    data = {"dataset_name": "ratings", "ref_videos": contents, "dis_videos": pictures, "ref_score": HIGH}
    return json.dumps(data, indent=1) + "\n"


def _long(answers: list[Answer], folder: str) -> str:
    lines = [csv_line(["rater", "image", "score"])]
    for answer in answers:
        lines.append(csv_line([safe_cell(answer.rater), safe_cell(name_in(answer.image, folder)), answer.value]))
    return "".join(lines)


def _wide(answers: list[Answer], folder: str) -> str:
    raters = list(dict.fromkeys(answer.rater for answer in answers))
    lines = [csv_line(["image", *map(safe_cell, raters)])]
    for image, opinions in _by_image(answers).items():
        lines.append(csv_line([safe_cell(name_in(image, folder)), *(opinions.get(rater, "") for rater in raters)]))
    return "".join(lines)


def _pwcmp(answers: list[Answer], folder: str) -> str:
    lines = [csv_line(_PWCMP)]
    number = {"first": "1", "second": "2", "tie": "0"}
    for answer in answers:
        names = [safe_cell(name_in(name, folder)) for name in (answer.image, answer.other)]
        lines.append(csv_line([safe_cell(answer.rater), "1", "", *names, number[answer.value]]))
    return "".join(lines)


_WRITERS = {"sureal": _sureal, "long": _long, "wide": _wide, "pwcmp": _pwcmp}
