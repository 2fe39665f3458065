"""Recognise how a generator's folder is laid out: which pictures were made from one prompt.

A layout is recognised from the names alone. Where two readings would group the pictures differently and nothing in
the names speaks for one of them, that is an error that shows both: a wrong pairing gives wrong intervals in silence.

Layouts in use: one file name in each folder, also within folders of styles (HPSv2); `NNNNN/metadata.jsonl` beside
`NNNNN/samples/` (GenEval); `<prompt>_000123.png` (T2I-CompBench); a folder for each prompt.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.files import printable
from leafiqa.generators.samples import listed, normalised
from leafiqa.tables import read_text

# Folders that hold a generator's pictures and say nothing about prompts.
_WRAPPERS = {"samples", "images", "image", "imgs", "img", "outputs", "output", "pictures"}
# The folders of HPSv2's benchmark: each holds prompts of its own.
STYLES = {"anime", "concept-art", "concept_art", "paintings", "painting", "photo"}
# Not a layout that one asks for: each picture by itself, where prompts do not matter.
UNGROUPED = "files"
_NUMBERED = re.compile(r"(.+?)_(\d{3,})")
_GENEVAL = re.compile(r"(?:.*/)?(\d+)/samples/[^/]+")


@dataclass(frozen=True)
class Entry:
    """A picture before its prompt is known.

    Attributes:
        path: where it is.
        generator: whose it is.
        name: POSIX path within the generator's place.
        place: number of the place among those of its generator: a second one is another set of seeds.
    """

    path: str
    generator: str
    name: str
    place: int = 0


@dataclass(frozen=True)
class Placed:
    """A picture with its prompt: `unit` groups, `prompt` is shown, `seed` tells pictures of one prompt apart."""

    entry: Entry
    unit: str
    prompt: str
    seed: str


@dataclass
class Reading:
    """The pictures as one layout reads them."""

    layout: str
    words: str
    placed: list[Placed]
    remarks: list[str] = field(default_factory=list)

    def partition(self) -> set[frozenset[str]]:
        """Return which pictures go together, whatever their prompts are called."""
        groups: dict[str, list[str]] = defaultdict(list)
        for placed in self.placed:
            groups[placed.unit].append(placed.entry.path)
        return {frozenset(paths) for paths in groups.values()}

    def example(self) -> str:
        """Describe the reading by a prompt."""
        counts = Counter((placed.entry.generator, placed.unit) for placed in self.placed)
        generator, unit = next(iter(counts))
        files = [p.entry.name for p in self.placed if p.unit == unit and p.entry.generator == generator]
        units = {placed.unit for placed in self.placed}
        return f"{self.words}: {len(units)} prompts, such as {printable(unit)!r} with {listed(files)}"


def read_layout(entries: Sequence[Entry], layout: str | None) -> Reading:
    """Group pictures by prompt.

    Args:
        entries: pictures of all generators.
        layout: one of `LAYOUTS`; None recognises it.

    Raises:
        InputError: an unknown layout, one that does not fit, or two that fit and differ.
    """
    if layout == UNGROUPED:
        placed = [Placed(entry, entry.path, entry.name, "") for entry in entries]
        return Reading(UNGROUPED, "single files", placed)
    if layout is not None:
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise InputError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        reading = LAYOUTS[layout](entries)
        if reading is None:
            raise InputError(
                f"layout {layout!r} does not fit: {_misfit(layout)}, but there is "
                f"{listed(entry.name for entry in entries)}"
            )
        return reading
    if (reading := _geneval(entries)) is not None:
        return reading
    names = _names(entries)
    readings = [reading for reading in (names, _numbered(entries), _folders(entries)) if reading is not None]
    distinct: list[Reading] = []
    for reading in readings:
        if all(reading.partition() != other.partition() for other in distinct):
            distinct.append(reading)
    if len(distinct) == 1:
        return distinct[0]
    telling = [reading for reading in distinct if _speaks_for(reading)]
    if len(telling) == 1:
        return telling[0]
    lines = [f"  {reading.layout}: {reading.example()}" for reading in distinct]
    raise InputError(
        "the pictures can be read in more than one way; say which is meant with layout=... (--layout on the command "
        "line), or list them in a table with the columns image, generator, prompt:\n" + "\n".join(lines)
    )


def _speaks_for(reading: Reading) -> bool:
    """Tell whether the names themselves say that this reading is the one."""
    if reading.layout == "numbered":
        # `a red cup_000123.png` is a sentence; `img_000123.png` is not.
        return sum(" " in placed.prompt for placed in reading.placed) > len(reading.placed) / 2
    folders = {posixpath.dirname(_unwrapped(placed.entry.name)) for placed in reading.placed}
    styled = {posixpath.basename(folder).lower() for folder in folders} <= STYLES
    if reading.layout == "folders":
        numbers = all(posixpath.basename(folder).isdigit() for folder in folders)
        return not styled and (numbers or all(" " in posixpath.basename(folder) for folder in folders))
    # Of one stem alone with running numbers, such as img_0001, each file is a prompt.
    stems = {match.group(1) for p in reading.placed if (match := _NUMBERED.fullmatch(p.unit)) and " " not in p.unit}
    return styled or (folders == {""} and len(stems) == 1)


def _unwrapped(name: str) -> str:
    """Return a name without leading folders that say nothing."""
    parts = name.split("/")
    while len(parts) > 1 and parts[0].lower() in _WRAPPERS:
        parts = parts[1:]
    return "/".join(parts)


def _names(entries: Sequence[Entry]) -> Reading:
    """Read each file name, without its ending, as a prompt."""
    placed: list[Placed] = []
    seen: dict[tuple[str, int, str], str] = {}
    for entry in entries:
        unit = normalised(posixpath.splitext(_unwrapped(entry.name))[0])
        key = (entry.generator, entry.place, unit)
        if key in seen:
            raise InputError(
                f"{printable(entry.generator)} has two pictures of one name: {printable(seen[key])} and "
                f"{printable(entry.name)}; rename one, or list the pictures in a table with a column prompt"
            )
        seen[key] = entry.name
        placed.append(Placed(entry, unit, unit, _seed("", entry)))
    return Reading("names", "the same file name in each folder is a prompt", placed)


def _numbered(entries: Sequence[Entry]) -> Reading | None:
    """Read `<prompt>_000123.png`: what stands before the number is the prompt."""
    placed = []
    for entry in entries:
        folder, base = posixpath.split(_unwrapped(entry.name))
        match = _NUMBERED.fullmatch(posixpath.splitext(base)[0])
        if match is None:
            return None
        unit = normalised(posixpath.join(folder, match.group(1)))
        placed.append(Placed(entry, unit, unit, _seed(match.group(2), entry)))
    return Reading("numbered", "a prompt and a number make a file name", placed)


def _folders(entries: Sequence[Entry]) -> Reading | None:
    """Read a folder for each prompt, which holds its pictures."""
    placed = []
    for entry in entries:
        folder, base = posixpath.split(_unwrapped(entry.name))
        if not folder:
            return None
        unit = normalised(folder)
        placed.append(Placed(entry, unit, unit, _seed(posixpath.splitext(base)[0], entry)))
    return Reading("folders", "a folder for each prompt", placed)


def _geneval(entries: Sequence[Entry]) -> Reading | None:
    """Read `NNNNN/metadata.jsonl` beside `NNNNN/samples/0000.png`; overviews such as `NNNNN/grid.png` are left out."""
    matches = [(entry, _GENEVAL.fullmatch(entry.name)) for entry in entries]
    inside = [(entry, match) for entry, match in matches if match is not None]
    folders = {_prompt_folder(entry) for entry, _ in inside}
    if not inside or not any((folder / "metadata.jsonl").is_file() for folder in folders):
        return None
    outside = [entry for entry, match in matches if match is None]
    if any(Path(entry.path).parent not in folders for entry in outside):
        return None
    texts: dict[Path, str] = {}
    remarks = []
    for folder in sorted(folders):
        text, why = _geneval_prompt(folder / "metadata.jsonl")
        texts[folder] = text
        if why:
            remarks.append(f"{printable(str(folder / 'metadata.jsonl'))}: {why}: the folder's number stands for it")
    if outside:
        remarks.append(f"{len(outside)} pictures beside samples/ left out: {listed(entry.name for entry in outside)}")
    placed = [
        Placed(
            entry, match.group(1), texts[_prompt_folder(entry)] or match.group(1), _seed(Path(entry.name).stem, entry)
        )
        for entry, match in inside
    ]
    by_unit: dict[str, set[str]] = defaultdict(set)
    for one in placed:
        if one.prompt != one.unit:
            by_unit[one.unit].add(one.prompt)
    if differing := sorted(unit for unit, prompts in by_unit.items() if len(prompts) > 1):
        unit = differing[0]
        raise InputError(
            f"the number {unit} means different prompts in different generators: {listed(sorted(by_unit[unit]))}; "
            "compare generators on one list of prompts, or list the pictures in a table with a column prompt"
        )
    return Reading("geneval", "GenEval's folders, a number for each prompt", placed, remarks)


def _prompt_folder(entry: Entry) -> Path:
    return Path(entry.path).parent.parent


def _geneval_prompt(file: Path) -> tuple[str, str]:
    """Return the prompt of a metadata file, or why there is none."""
    try:
        content = json.loads(read_text(file, "metadata").strip().split("\n")[0])
        prompt = content["prompt"]
    except (InputError, ValueError, KeyError, TypeError, RecursionError) as error:
        return "", f"no prompt can be read ({printable(str(error))[:100]})"
    return (prompt, "") if isinstance(prompt, str) and prompt.strip() else ("", "its prompt is no text")


def _seed(seed: str, entry: Entry) -> str:
    """Return what tells pictures of one prompt apart, those of a generator's further places included."""
    return f"{seed}#{entry.place + 1}" if entry.place else seed


def _misfit(layout: str) -> str:
    return {
        "numbered": "every name must be a prompt, an underscore and at least three digits",
        "folders": "every picture must lie in a folder of its prompt",
        "geneval": "every picture must lie in NNNNN/samples/ beside NNNNN/metadata.jsonl",
    }.get(layout, "")


LAYOUTS: dict[str, Callable[[Sequence[Entry]], Reading | None]] = {
    "names": _names,
    "numbered": _numbered,
    "folders": _folders,
    "geneval": _geneval,
}
