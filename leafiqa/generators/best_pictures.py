"""The best of several pictures of each prompt, always labelled as best of N."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError, OutputError
from leafiqa.files import StrPath, check_output, printable, write_whole
from leafiqa.generators.best_of import choose_best
from leafiqa.generators.scoring_samples import ScoredSamples
from leafiqa.scoring.rows import csv_line
from leafiqa.scoring.scores import name_in
from leafiqa.tables import safe_cell, to_frame

PER = ("prompt", "folder", "all")
_LIST = "best.csv"


@dataclass(frozen=True)
class Chosen:
    """A picture that was chosen.

    Attributes:
        image: its path.
        generator: its generator's name.
        group: the prompt, or the folder, that it is the best of.
        score: its score.
        place: 1 for the best of the group.
        best_of: from how many pictures with a score it was chosen.
    """

    image: str
    generator: str
    group: str
    score: float
    place: int
    best_of: int


@dataclass
class BestPictures:
    """The best pictures of each prompt: a sequence of `Chosen`.

    Attributes:
        chosen: in the order of the groups, best first.
        metric: the metric's name.
        weights: sha256 of its weights.
        remarks: how pictures were grouped, and groups without any score.
        failed: why pictures have no score, by path.
    """

    chosen: list[Chosen]
    metric: str
    weights: str
    remarks: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Chosen]:
        return iter(self.chosen)

    @property
    def paths(self) -> list[str]:
        """Paths of the chosen pictures."""
        return [one.image for one in self.chosen]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {**vars(self), "chosen": [asdict(one) for one in self.chosen]}

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame, a row for each chosen picture.

        Raises:
            InputError: pandas is not installed.
        """
        return to_frame([asdict(one) for one in self.chosen])

    def to_csv(self, path: StrPath, *, overwrite: bool = False) -> None:
        """Write a row for each chosen picture; names are relative to the file's folder.

        Raises:
            OutputError: the file exists already, is one of the pictures, or there is no such folder.
        """
        header = csv_line([*Chosen.__dataclass_fields__, "metric", "weights"])
        check_output(
            path, inputs=self.paths, overwrite=overwrite, is_ours=lambda head: head.startswith(header.encode())
        )
        folder = os.path.dirname(os.path.abspath(path))
        lines = [header]
        for one in self.chosen:
            name = safe_cell(name_in(one.image, folder))
            rest = [
                safe_cell(one.generator),
                safe_cell(one.group),
                f"{one.score:.6f}",
                str(one.place),
                str(one.best_of),
            ]
            lines.append(csv_line([name, *rest, safe_cell(self.metric), self.weights]))
        write_whole(path, "".join(lines))

    def copy_to(self, folder: StrPath) -> list[Path]:
        """Copy the chosen pictures into a folder, with a list `best.csv` that says of how many each is the best.

        Args:
            folder: made if it is not there; must be empty, so that nothing in it is replaced or mixed with others.

        Returns:
            Paths of the copies, named as the pictures are; where two have one name, with their folder's name before.

        Raises:
            OutputError: the folder is not empty, or a picture cannot be copied.
        """
        place = Path(folder)
        check_new(place, self.paths)
        try:
            place.mkdir(parents=True, exist_ok=True)
            copies = []
            taken: set[str] = set()
            for one in self.chosen:
                name = _free_name(Path(one.image), taken)
                shutil.copy2(one.image, place / name)
                copies.append(place / name)
        except OSError as error:
            raise OutputError(f"cannot copy to {place}: {error.strerror or error}") from error
        listed = [
            Chosen(str(copy), one.generator, one.group, one.score, one.place, one.best_of)
            for copy, one in zip(copies, self.chosen)
        ]
        BestPictures(listed, self.metric, self.weights).to_csv(place / _LIST)
        return copies

    def __str__(self) -> str:
        weights = f", weights {self.weights[:12]}" if self.weights else ""
        lines = [f"# best of N by {printable(self.metric)}{weights}", "#  score  best of  image"]
        lines += [f"{one.score:8.4f}  {one.best_of:7d}  {printable(one.image)}" for one in self.chosen]
        return "\n".join(lines)


def check_new(folder: Path, pictures: Sequence[str] = ()) -> None:
    """Refuse a folder for copies that holds something, or lies among the pictures, where they would be found again.

    Raises:
        OutputError: it is one of these.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is not empty: name a new folder, so that no other picture is mixed in")
    place = os.path.realpath(folder)
    if any(place.startswith(os.path.dirname(os.path.realpath(path)) + os.sep) for path in pictures):
        raise OutputError(f"{folder} lies among the pictures, which would be found again: name a folder beside them")


def _free_name(image: Path, taken: set[str]) -> str:
    parts = image.parts
    for depth in range(1, len(parts) + 1):
        name = "_".join(part.strip("/\\:") for part in parts[-depth:])
        if name.lower() not in taken and name.lower() != _LIST:
            break
    else:
        number = 2
        while f"{number}_{image.name}".lower() in taken:
            number += 1
        name = f"{number}_{image.name}"
    taken.add(name.lower())
    return name


def choose_pictures(scored: ScoredSamples, per: str, n: int) -> BestPictures:
    """Choose the best pictures of each group by the first metric.

    Args:
        scored: pictures and scores.
        per: "prompt" (of each generator), "folder" (the folder that a picture lies in), or "all".
        n: how many of each.

    Raises:
        InputError: `per` is none of these, or `n` no whole number from 1 on.
    """
    if per not in PER:
        raise InputError(f"per must be one of {', '.join(PER)}, got {per!r}")
    whole_number(n, "n", 1)
    metric, scores = next(iter(scored.scores.items()))
    samples = scored.samples.samples
    keys = []
    for sample in samples:
        group = {"prompt": sample.prompt, "folder": os.path.dirname(sample.image), "all": ""}[per]
        unit = sample.unit if per == "prompt" else group
        keys.append((sample.generator if per == "prompt" else "", unit, group))
    names = [repr(key) for key in keys]
    counts: dict[str, int] = {}
    for name, score in zip(names, scores.tolist()):
        counts[name] = counts.get(name, 0) + math.isfinite(score)
    groups = {name: key[2] for name, key in zip(names, keys)}
    found = BestPictures([], metric, scored.weights[metric], list(scored.remarks), scored.failed())
    for name, places in choose_best(scores, names, n).items():
        group = groups[name]
        for rank, place in enumerate(places, 1):
            sample = samples[place]
            found.chosen.append(Chosen(sample.image, sample.generator, group, float(scores[place]), rank, counts[name]))
        if not places:
            found.remarks.append(f"{printable(group) or 'all'}: no picture has a score: none is chosen")
    if per == "prompt" and counts and max(counts.values()) == 1:
        found.remarks.append("each prompt has one picture only: there was nothing to choose from")
    return found
