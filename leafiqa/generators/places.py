"""Find the pictures of several generators: named folders, a folder of folders, tables, files of scores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.files import StrPath, printable
from leafiqa.generators.layouts import STYLES, UNGROUPED, Entry, read_layout
from leafiqa.generators.sample_tables import read_samples
from leafiqa.generators.samples import Sample, Samples, listed
from leafiqa.images.find import find_images
from leafiqa.scoring.resuming import read_rows
from leafiqa.scoring.rows import Row
from leafiqa.scoring.scores import is_scores

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
        if sign and name and place and not os.path.lexists(argument):
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
            if not isinstance(name, str) or not name or not isinstance(several, Iterable):
                raise InputError(f"generators must map names to places, got {name!r}: {places!r}")
            pairs += [(name, os.fspath(place)) for place in several]
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
        elif path.suffix.lower() not in _TABLES:
            raise InputError(
                f"{printable(place)} is neither a folder nor a table ({', '.join(_TABLES)}) of pictures or scores"
            )
        else:
            with path.open("rb") as file:
                scored = is_scores(file.read(4096))
            number = seen.get(named, 0)
            seen[named] = number + 1
            if scored and columns:
                raise InputError(f"{place} is a file of scores: columns {', '.join(columns)} are for lists of pictures")
            if scored:
                _score_file(gathered, path, None if of_generators else named, number)
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
    twice = _twice(samples)
    if twice:
        found.remarks.append(f"{len(twice)} pictures are listed twice: counted once: {listed(twice)}")
        found.samples = list({(s.generator, s.unit, os.path.abspath(s.image)): s for s in samples}.values())
    return found


def _twice(samples: Sequence[Sample]) -> list[str]:
    seen: set[tuple[str, str, str]] = set()
    twice = []
    for sample in samples:
        key = (sample.generator, sample.unit, os.path.abspath(sample.image))
        if key in seen:
            twice.append(sample.image)
        seen.add(key)
    return twice


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
    rows = read_rows(path, "jsonl" if path.suffix.lower() == ".jsonl" else "csv")
    if not rows:
        raise InputError(f"{path} holds no scores")
    for row in rows:
        gathered.scores.setdefault(os.path.join(path.parent, row.image), []).append(row)
    files = list(dict.fromkeys(os.path.join(path.parent, row.image) for row in rows))
    parents = {os.path.dirname(os.path.abspath(file)) for file in files}
    common = os.path.commonpath(parents)
    names = {file: Path(os.path.relpath(os.path.abspath(file), common)).as_posix() for file in files}
    _take(gathered, names, str(path), generator, number)


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
