"""Find the pictures of several generators: named folders, a folder of folders, tables, files of scores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.files import StrPath, printable
from leafiqa.generators.layouts import STYLES, UNGROUPED, Entry, read_layout
from leafiqa.generators.sample_tables import read_samples
from leafiqa.generators.samples import Sample, Samples, listed
from leafiqa.images.find import find_images
from leafiqa.scoring.resuming import read_rows
from leafiqa.scoring.rows import Row
from leafiqa.scoring.scores import Scores, is_scores
from leafiqa.tables import read_table

Generators = StrPath | Mapping[str, "StrPath | Sequence[StrPath]"] | Iterable[StrPath]
_TABLES = (".csv", ".tsv", ".txt", ".jsonl")


@dataclass
class _Gathered:
    entries: list[Entry] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    scores: dict[str, list[Row]] = field(default_factory=dict)


def as_mapping(arguments: Sequence[str]) -> dict[str, list[str]] | list[str]:
    """Return what `NAME=PLACE` arguments mean: places by name, or a list where no name is given.

    A file whose own name holds `=` is a place.

    Raises:
        InputError: some have a name and some have none.
    """
    named: dict[str, list[str]] = {}
    bare = []
    for argument in arguments:
        name, sign, place = argument.partition("=")
        # A name holds no separator: `photos/a=*.jpg` is a pattern.
        if sign and name and place and os.sep not in name and not os.path.lexists(argument):
            named.setdefault(name, []).append(place)
        else:
            bare.append(argument)
    if named and bare:
        raise InputError(f"give each place a name (NAME=PLACE) or none: {printable(bare[0])} has none")
    return named or bare


def as_places(generators: Generators) -> list[tuple[str | None, str]]:
    """Return name and place of what a Python caller passed: a mapping, a path, or several paths."""
    if isinstance(generators, (str, os.PathLike)):
        return [(None, os.fspath(generators))]
    pairs: list[tuple[str | None, str]] = []
    if isinstance(generators, Mapping):
        for name, places in generators.items():
            several = [places] if isinstance(places, (str, os.PathLike)) else places
            given = list(several) if isinstance(several, Iterable) and not isinstance(several, bytes) else []
            good = given and all(isinstance(place, (str, os.PathLike)) for place in given)
            if not isinstance(name, str) or not name or not good:
                raise InputError(f"generators must map names to a place or several, got {name!r}: {places!r}")
            pairs += [(name, os.fspath(place)) for place in given]
        return pairs
    if not isinstance(generators, Iterable):
        raise InputError(f"generators must be a mapping of names to places, a path or several, got {generators!r}")
    given = list(generators)
    if wrong := [place for place in given if not isinstance(place, (str, os.PathLike))]:
        raise InputError(f"generators must be paths, got {wrong[0]!r}; to name them pass a mapping of name to path")
    return [(None, os.fspath(place)) for place in given]


def gather_samples(
    places: Sequence[tuple[str | None, str]],
    *,
    layout: str | None = None,
    columns: Sequence[str] = (),
    single: bool = False,
) -> Samples:
    """Find the pictures that places mean, and the prompt of each.

    Args:
        places: name and place. A place is a folder, a list of pictures (see `read_samples`), or a file that
            `leafiqa score` wrote. The same name twice means further seeds of one generator. One folder without a name
            holds a folder for each generator.
        layout: one of `leafiqa.generators.layouts.LAYOUTS`; None recognises it.
        columns: columns of lists with scores that others computed.
        single: whether one generator is enough; one folder without a name is then that generator's.

    Raises:
        InputError: fewer than two generators, no pictures, or a layout that is ambiguous.
    """
    gathered = _Gathered()
    seen: dict[str, int] = {}
    if name_twice := _repeated(places):
        raise InputError(
            f"two places would both be called {printable(name_twice)}; name them: NAME=PLACE NAME=PLACE (the same NAME "
            "twice means further seeds of one generator)"
        )
    for name, place in places:
        path = Path(place)
        of_generators = name is None and len(places) == 1 and not single
        named = name if name is not None else _name_of(path)
        if path.is_dir():
            number = seen.get(named, 0)
            seen[named] = number + 1
            _folder(gathered, path, None if of_generators else named, number)
        elif not path.exists():
            raise InputError(f"{printable(place)}: no such file or folder")
        elif path.suffix.lower() not in (*_TABLES, ".json"):
            raise InputError(
                f"{printable(place)} is neither a folder, nor a table of pictures ({', '.join(_TABLES)}), nor scores "
                "(.csv, .jsonl, .json)"
            )
        else:
            scored = is_score_file(path)
            number = seen.get(named, 0)
            seen[named] = number + 1
            if scored and columns:
                raise InputError(f"{place} is a file of scores: columns {', '.join(columns)} are for lists of pictures")
            if scored:
                _score_file(gathered, path, None if of_generators else named, number)
            elif path.suffix.lower() == ".json":
                raise InputError(
                    f"{printable(place)} holds no scores that leafiqa score wrote; lists are .csv or .jsonl"
                )
            else:
                found = read_samples(path, generator=name, place=number if name else 0, columns=columns)
                gathered.samples += found.samples
                gathered.remarks += found.remarks
    if columns and gathered.entries:
        raise InputError(
            f"columns {', '.join(columns)} are for lists of pictures, not for folders: list them in a table"
        )
    return _as_samples(gathered, layout, single)


def _as_samples(gathered: _Gathered, layout: str | None, single: bool) -> Samples:
    words, remarks, samples = "lists of pictures", list(gathered.remarks), list(gathered.samples)
    if gathered.entries:
        reading = read_layout(gathered.entries, layout)
        words = f"{reading.words} (layout {reading.layout})"
        remarks += reading.remarks
        samples += [
            Sample(one.entry.path, one.entry.generator, one.unit, one.prompt, one.seed) for one in reading.placed
        ]
    elif layout not in (None, UNGROUPED):
        raise InputError("layout is for folders; a table says itself which prompt a picture is of")
    found = Samples(samples, words, remarks, gathered.scores)
    generators = found.generators
    if len(generators) < (1 if single else 2):
        have = f"only {generators[0]}" if generators else "none"
        raise InputError(
            f"two generators are needed, got {have}; give NAME=FOLDER for each, one folder that holds a folder for "
            "each, or a table with a column generator"
        )
    _count_once(found)
    return found


def _count_once(found: Samples) -> None:
    """Leave out pictures that are listed again.

    Raises:
        InputError: a picture stands twice with different scores.
    """
    first: dict[tuple[str, str, str], Sample] = {}
    twice = []
    for sample in found.samples:
        known = first.setdefault((sample.generator, sample.unit, os.path.abspath(sample.image)), sample)
        if known is not sample:
            twice.append(sample.image)
            if known.columns != sample.columns:
                raise InputError(
                    f"{printable(sample.image)} is listed twice with different scores: {dict(known.columns)} and "
                    f"{dict(sample.columns)}; take one out"
                )
    if twice:
        found.remarks.append(f"{len(twice)} listed twice, counted once: {listed(twice)}")
        found.samples = list(first.values())


def _repeated(places: Sequence[tuple[str | None, str]]) -> str | None:
    """Return a name that two places without names of their own would both get; None if there is none."""
    seen: set[str] = set()
    for name, place in places:
        path = Path(place)
        # A table has a column with the generators' names.
        if name is not None or not (path.is_dir() or (path.is_file() and is_score_file(path))):
            continue
        own = _name_of(path)
        if own in seen:
            return own
        seen.add(own)
    return None


def is_score_file(path: Path) -> bool:
    """Tell whether a file holds scores that `leafiqa score` wrote, also if a spreadsheet saved it again."""
    try:
        with path.open("rb") as file:
            if is_scores(file.read(4096)):
                return True
    except OSError as error:
        raise InputError(f"cannot read {printable(str(path))}: {error.strerror or error}") from error
    if path.suffix.lower() in (".jsonl", ".json"):
        return False
    columns = set(read_table(path).columns)
    return {"image", "score", "metric", "weights"} <= columns and "prompt" not in columns


def _name_of(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _folder(gathered: _Gathered, path: Path, generator: str | None, number: int) -> None:
    """Take a generator's folder, or, without a name, one whose folders are generators."""
    found = find_images(path, recursive=True)
    gathered.remarks += found.remarks()
    if not found.files:
        raise InputError(f"no images found in {printable(str(path))}{_why(found.remarks())}")
    names = {file: Path(os.path.relpath(file, path)).as_posix() for file in found}
    _take(gathered, names, str(path), generator, number)


def _why(remarks: Sequence[str]) -> str:
    return f" ({'; '.join(remarks)})" if remarks else ""


def _score_file(gathered: _Gathered, path: Path, generator: str | None, number: int) -> None:
    """Take a file of scores: its pictures, and their scores so that they are not computed again."""
    rows, remark = scores_in(path)
    if remark:
        gathered.remarks.append(remark)
    for row in rows:
        gathered.scores.setdefault(os.path.join(path.parent, row.image), []).append(row)
    files = list(dict.fromkeys(os.path.join(path.parent, row.image) for row in rows))
    parents = {os.path.dirname(os.path.abspath(file)) for file in files}
    common = os.path.commonpath(parents)
    names = {file: _name_within(os.path.abspath(file), common, generator) for file in files}
    _take(gathered, names, str(path), generator, number)


def scores_in(path: Path) -> tuple[list[Row], str]:
    """Return the rows of a file of scores, and what is to be said of it.

    Raises:
        InputError: it cannot be read, or holds no rows.
    """
    ending = path.suffix.lower()
    if ending in (".txt", ".md"):
        raise InputError(f"{path} is for reading; save scores as .csv, .jsonl or .json to compare them")
    with path.open("rb") as file:
        head = file.read(4096)
    remark = ""
    if ending == ".json":
        try:
            rows = [Row.from_dict(row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is no file of scores: {error}") from error
    elif is_scores(head):
        rows = read_rows(path, "jsonl" if ending == ".jsonl" else "csv")
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            remark = f"{printable(str(path))}: its last row has no end and is left out: the file may be damaged"
    else:
        table = read_table(path)
        rows = [
            Row(row["image"], table.number(row["score"]), row.get("error", ""), "", row["metric"], row["weights"])
            for row in table
        ]
    if not rows:
        raise InputError(f"{path} holds no scores")
    return rows, remark


def read_scores(path: Path) -> Scores:
    """Return the scores of a file that `leafiqa score` wrote; names are as seen from here.

    Raises:
        InputError: it is none, or holds no rows.
    """
    if not path.is_file() or not is_score_file(path):
        raise InputError(f"{printable(str(path))} is no file of scores that leafiqa score wrote")
    rows, remark = scores_in(path)
    named = [replace(row, image=os.path.join(path.parent, row.image)) for row in rows]
    return Scores(named, [remark] if remark else [])


def _name_within(file: str, common: str, generator: str | None) -> str:
    """Return a picture's name within its generator's folder, or, where that is not in its path, what files share."""
    parts = Path(file).parts
    if generator is not None and generator in parts[:-1]:
        return "/".join(parts[len(parts) - 1 - parts[::-1].index(generator) + 1 :])
    return Path(os.path.relpath(file, common)).as_posix()


def _take(gathered: _Gathered, names: Mapping[str, str], place: str, generator: str | None, number: int) -> None:
    if generator is not None:
        gathered.entries += [Entry(file, generator, name, number) for file, name in names.items()]
        return
    inside = {name.split("/")[0] for name in names.values() if "/" in name}
    if {name.lower() for name in inside} <= STYLES and inside:
        raise InputError(
            f"{printable(place)} can be read in two ways: its folders {listed(sorted(inside))} are styles of one "
            "generator (HPSv2), or generators. Give each generator's folder by name: NAME=FOLDER NAME=FOLDER"
        )
    if len(inside) < 2:
        raise InputError(
            f"{printable(place)} must hold a folder for each generator, at least two; it holds pictures in "
            f"{listed(sorted(inside)) or 'no folder'}. Otherwise give NAME=FOLDER for each"
        )
    numbered = all(name.isdigit() for name in inside)
    if numbered or inside == {"samples"}:
        raise InputError(
            f"{printable(place)} can be read in two ways: its folders {listed(sorted(inside))} are prompts of one "
            "generator, or generators. Give each generator's folder by name: NAME=FOLDER NAME=FOLDER"
        )
    loose = [name for name in names.values() if "/" not in name]
    if loose:
        gathered.remarks.append(
            f"{len(loose)} pictures of no generator in {printable(place)} left out: {listed(loose)}"
        )
    for file, name in names.items():
        whose, _, rest = name.partition("/")
        if rest:
            gathered.entries.append(Entry(file, whose, rest))
