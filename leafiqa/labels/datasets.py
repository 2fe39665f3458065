"""Readers for the field's usual data sets, in the folder layout that their authors ship.

Each returns a `MosTable` with the right join of files and scores, the scale's ends, higher meaning better, groups that
must not be split, and the official split where the authors made one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leafiqa.errors import InputError
from leafiqa.files import StrPath, as_path
from leafiqa.labels.mos_table import Labelled, MosTable, read_mos
from leafiqa.tables import read_table, to_number

# Of each image its official split (empty if none), its file, and its row or why it cannot be used.
_Rows = Iterator[tuple[str, Path, Labelled | str]]


@dataclass(frozen=True)
class Dataset:
    """A data set with human scores.

    Attributes:
        title: its name and source.
        markers: files inside its folder, `/` between folders, one of which must be there; the folder is known by them.
        scale: ends of its MOS.
        splits: names of its official splits; empty where the authors made none.
        read: yields for a folder each image's split (empty if none), its file, and its row or why it cannot be used.
    """

    title: str
    markers: tuple[str, ...]
    scale: tuple[float, float]
    splits: tuple[str, ...]
    read: Callable[[Path], _Rows]

    def is_in(self, folder: Path) -> bool:
        """Tell whether a folder holds this data set."""
        return any((folder / marker).is_file() for marker in self.markers)


def read_dataset(folder: Path, *, name: str | None = None, split: str | None = None) -> MosTable:
    """Read a known data set from the folder as its authors ship it.

    Args:
        folder: the data set's folder.
        name: a key of `DATASETS`; None means recognise it by its files.
        split: use only images of this official split.

    Raises:
        InputError: the folder is of no known data set, lacks a file, has no such split, or no image with a score.
    """
    key = recognise(folder) if name is None else name
    if key not in DATASETS:
        raise InputError(f"unknown data set {key!r}; known are {', '.join(DATASETS)}")
    dataset = DATASETS[key]
    if split is not None and split not in dataset.splits:
        known = ", ".join(dataset.splits) or "none: its authors made no split"
        raise InputError(f"{dataset.title} has no official split {split!r}; it has {known}")
    if not dataset.is_in(folder):
        raise InputError(
            f"{folder} is not {dataset.title} as its authors ship it: there is no {' or '.join(dataset.markers)}"
        )
    table = MosTable(scale=dataset.scale, name=key, folder=folder)
    missing: list[str] = []
    seen: set[Path] = set()
    for part, path, row in dataset.read(folder):
        if split is not None and part != split:
            table.elsewhere.add(path)
        elif isinstance(row, str):
            table.problems.append(row)
        elif path in seen:
            table.problems.append(f"{row.image}: stands several times: the first is used")
        elif path.is_file():
            seen.add(path)
            table.rows.append(row)
        else:
            missing.append(row.image)
    if missing:
        table.problems.append(
            f"{len(missing)} image(s) of {dataset.title} are not there and left out, such as {missing[0]}"
        )
    if not table.rows:
        why = f": {table.problems[0]}" if table.problems else ""
        if table.elsewhere:
            why += f": none is of split {split!r}; is the authors' file of the split there?"
        raise InputError(f"{folder}: no image of {dataset.title} with a score was found{why}")
    return table


def read_labels(
    path: StrPath,
    *,
    images: StrPath | None = None,
    image_column: str | None = None,
    mos_column: str | None = None,
    split: str | None = None,
    part_column: str | None = None,
    score_columns: tuple[str, ...] = (),
) -> MosTable:
    """Read human scores from a CSV table, or from the folder of a known data set.

    Args:
        path: the table (see `read_mos`, which takes the other arguments too) or the folder.
        images: of a table only.
        image_column: of a table only.
        mos_column: of a table only.
        split: use only images of this split.
        part_column: of a table only.
        score_columns: of a table only.

    Raises:
        InputError: see `read_mos` and `read_dataset`; or an argument is given that a folder does not take.
    """
    path = as_path(path, "the table of human scores")
    if not path.is_dir():
        return read_mos(
            path,
            images=images,
            image_column=image_column,
            mos_column=mos_column,
            split=split,
            part_column=part_column,
            score_columns=score_columns,
        )
    if score_columns or any(argument is not None for argument in (images, image_column, mos_column, part_column)):
        raise InputError(
            f"{path} is a folder, read as a known data set: a folder of images and names of columns are for tables"
        )
    return read_dataset(path, split=split)


def recognise(folder: Path) -> str:
    """Return the name of the data set that a folder holds.

    Raises:
        InputError: it is none that is known here.
    """
    found = [name for name, dataset in DATASETS.items() if dataset.is_in(folder)]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{name} has {' or '.join(dataset.markers)}" for name, dataset in DATASETS.items())
    what = f"looks like {' and '.join(found)}: keep them apart" if found else "is of no data set that is known here"
    raise InputError(f"{folder} {what} ({known}). For your own images write a CSV with columns image and mos")


def _koniq(folder: Path) -> _Rows:
    # The file of the official split, out of the authors' repository, calls MOS what the one that comes with the images
    # calls MOS_zscore, on 1 to 100; the latter's own MOS is on 1 to 5. SD is of ratings on 1 to 5, c_total of them.
    images = _first(folder, "1024x768", "512x384", "images")
    names = {"training": "train", "validation": "val", "test": "test"}
    split, plain = (folder / f"koniq10k_{name}.csv" for name in ("distributions_sets", "scores_and_distributions"))
    table, column, more = (split, "MOS", ("set",)) if split.is_file() else (plain, "MOS_zscore", ())
    for row in _csv(table, "image_name", column, "SD", "c_total", *more):
        deviation, count = to_number(row["SD"]), to_number(row["c_total"])
        error = deviation / math.sqrt(count) if deviation and count and count > 0 else None
        part = row.get("set", "")
        yield names.get(part, part), *_row(images, row["image_name"], row[column], error)


def _spaq(folder: Path) -> _Rows:
    images = _first(folder, "TestImage", "SPAQ/TestImage", "images")
    for row in _xlsx(folder / "Annotations" / "MOS and Image attribute scores.xlsx", "Image name", "MOS"):
        yield "", *_row(images, row["Image name"], row["MOS"])


def _agiqa3k(folder: Path) -> _Rows:
    images = _first(folder, "images", "image", "AGIQA-3K", "file")
    for row in _csv(folder / "data.csv", "name", "prompt", "mos_quality", "std_quality"):
        spread = to_number(row["std_quality"])
        yield "", *_row(images, row["name"], row["mos_quality"], spread, row["prompt"])


def _aigiqa20k(folder: Path) -> _Rows:
    for split in ("train", "val", "test"):
        table = folder / f"info_{split}.csv"
        if not table.is_file():
            continue
        images = _first(folder, split, "images")
        for row in _csv(table, "name"):  # a set whose scores are kept back has no column mos
            yield split, *_row(images, row["name"], row.get("mos"), None, row.get("prompt"))


def _live_challenge(folder: Path) -> _Rows:
    data = folder / "Data"
    names = [str(cell[0]) for cell in _mat(data, "AllImages_release")[:, 0]]
    scores, deviations = (_mat(data, f"{name}_release").ravel().tolist() for name in ("AllMOS", "AllStdDev"))
    if not len(names) == len(scores) == len(deviations):
        raise InputError(f"{data}: {len(names)} names, {len(scores)} scores and {len(deviations)} deviations differ")
    for name, score, deviation in zip(names, scores, deviations):
        # t1 to t7 served to train the raters; papers leave them out.
        if not name.startswith("t"):
            yield "", *_row(folder / "Images", name, score, deviation)


def _kadid(folder: Path) -> _Rows:
    # The column is called dmos, yet higher is better.
    for row in _csv(folder / "dmos.csv", "dist_img", "ref_img", "dmos", "var"):
        variance = to_number(row["var"])
        spread = math.sqrt(variance) if variance and variance > 0 else None
        yield "", *_row(folder / "images", row["dist_img"], row["dmos"], spread, row["ref_img"])


def _biq2021(folder: Path) -> _Rows:
    for split in ("Train", "Test"):
        table = folder / f"{split} (Images and MOS).csv"
        if table.is_file():
            for row in _csv(table, "Image Name", "MOS"):
                yield split.lower(), *_row(folder / "Images", row["Image Name"], row["MOS"])


DATASETS: dict[str, Dataset] = {
    "koniq10k": Dataset(
        "KonIQ-10k (Hosu et al., 2020)",
        ("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv"),
        (1, 100),
        ("train", "val", "test"),
        _koniq,
    ),
    "spaq": Dataset(
        "SPAQ (Fang et al., 2020)", ("Annotations/MOS and Image attribute scores.xlsx",), (0, 100), (), _spaq
    ),
    "agiqa3k": Dataset("AGIQA-3K (Li et al., 2023)", ("data.csv",), (0, 5), (), _agiqa3k),
    "aigiqa20k": Dataset(
        "AIGIQA-20K (Li et al., 2024)", ("info_train.csv",), (0, 5), ("train", "val", "test"), _aigiqa20k
    ),
    "livec": Dataset(
        "LIVE In the Wild Challenge (Ghadiyaram and Bovik, 2016)",
        ("Data/AllMOS_release.mat",),
        (0, 100),
        (),
        _live_challenge,
    ),
    "kadid10k": Dataset("KADID-10k (Lin et al., 2019)", ("dmos.csv",), (1, 5), (), _kadid),
    "biq2021": Dataset(
        "BIQ2021 (Ahmed and Asif, 2021)", ("Train (Images and MOS).csv",), (0, 1), ("train", "test"), _biq2021
    ),
}


def _row(
    folder: Path, name: str, score: object, spread: float | None = None, group: str | None = None
) -> tuple[Path, Labelled | str]:
    path, mos = folder / name, to_number(score)
    if mos is None:
        return path, f"{name}: MOS {score!r} is no finite number: left out"
    return path, Labelled(name, path, mos, spread if spread and spread > 0 else None, group or None)


def _first(folder: Path, *names: str) -> Path:
    """Return the first of some folders inside a folder that exists, whatever its capitals, else the folder itself."""
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((there[name.lower()] for name in names if name.lower() in there), folder)


def _csv(path: Path, *columns: str) -> list[dict[str, str]]:
    table = read_table(path)
    table.need(*columns)
    return table.rows


def _xlsx(path: Path, *columns: str) -> Iterator[dict[str, Any]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(f"{path.name} needs openpyxl to be read: pip install openpyxl") from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl passes on whatever its zip and XML readers raise
        raise InputError(f"cannot read {path}: {error}") from error
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        head = [str(cell) for cell in next(rows, ())]
        _need(path, columns, head)
        for row in rows:
            named = dict(zip(head, row))
            if named[columns[0]] is not None:
                yield named
    finally:
        book.close()


def _mat(folder: Path, name: str) -> Any:
    from scipy.io import loadmat

    try:
        return loadmat(folder / f"{name}.mat")[name]
    except Exception as error:  # a missing file, another format, another variable
        raise InputError(f"cannot read {name} from {folder / name}.mat: {error}") from error


def _need(path: Path, columns: tuple[str, ...], found: list[str]) -> None:
    if lacking := [column for column in columns if column not in found]:
        raise InputError(f"{path} lacks the column(s) {', '.join(lacking)}; it has {', '.join(found) or 'none'}")
