"""Scores of a cluster's runs: folders of parts, one folder a run, in one output folder."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from leafiqa.errors import InputError, OutputError
from leafiqa.integrations.ray_images import open_place, shown

_RUN = re.compile(r"run-(\d{4,})$")
_NEEDED = ("image", "score", "weights", "sha256")


@dataclass(frozen=True)
class Known:
    """Images that were scored, as hashes of 64 bits: sixteen bytes an image, shared by the workers of a node.

    Attributes:
        names: hashes of the images' names, sorted.
        digests: the first 64 bits of their contents' sha256, in the same order.
        runs: earlier runs in the output folder, whatever their weights.
    """

    names: Any
    digests: Any
    runs: int = 0

    @classmethod
    def nothing(cls) -> Known:
        """Return what is known before the first run."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64))

    @classmethod
    def of(cls, images: list[str], digests: list[str], runs: int) -> Known:
        """Return what is known of images, given with their contents' digests."""
        names = np.array([hash_of(image) for image in images], np.uint64)
        order = names.argsort()
        return cls(names[order], np.array([int(digest, 16) for digest in digests], np.uint64)[order], runs)

    def holds(self, image: str, digest: str) -> bool:
        """Tell whether an image of this name and content was scored."""
        if not len(self.names):
            return False
        name = np.uint64(hash_of(image))
        first, last = np.searchsorted(self.names, name, "left"), np.searchsorted(self.names, name, "right")
        return bool((self.digests[first:last] == np.uint64(int(digest, 16))).any())


def hash_of(name: str) -> int:
    """Return 64 bits that stand for a name."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _runs(output: str, filesystem: Any) -> tuple[Any, str, list[str]]:
    from pyarrow import fs

    system, place = open_place(output, filesystem)
    try:
        listed = system.get_file_info(fs.FileSelector(place, allow_not_found=True))
    except OSError as error:
        raise OutputError(f"cannot list output {shown(output)}: {error}") from error
    found = [one.path for one in listed if one.type == fs.FileType.Directory and _RUN.search(one.path)]
    return system, place, sorted(found, key=lambda path: int(_RUN.search(path)[1]))  # type: ignore[index]


def new_run(output: str, filesystem: Any) -> tuple[str, str, Any]:
    """Make the folder of a new run; return what to call it, its path and the filesystem.

    Raises:
        OutputError: it cannot be made.
    """
    system, place, runs = _runs(output, filesystem)
    number = 1 + (int(_RUN.search(runs[-1])[1]) if runs else 0)  # type: ignore[index]
    name = f"run-{number:04d}"
    try:
        system.create_dir(f"{place}/{name}", recursive=True)
    except OSError as error:
        raise OutputError(f"cannot write to output {shown(output)}: {error}") from error
    return f"{shown(output).rstrip('/')}/{name}", f"{place}/{name}", system


def _parts(system: Any, run: str) -> list[str]:
    from pyarrow import fs

    listed = system.get_file_info(fs.FileSelector(run, recursive=True))
    return sorted(one.path for one in listed if one.path.endswith((".parquet", ".csv")))


def _read(system: Any, part: str) -> Any | None:
    """Return a part's rows, None where it was cut off while it was written."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if part.endswith(".parquet"):
            table = parquet.read_table(part, filesystem=system)
        else:
            with system.open_input_stream(part) as stream:
                texts = {name: pa.string() for name in ("image", "error", "note", "metric", "weights", "sha256")}
                options = csv.ConvertOptions(column_types={**texts, "score": pa.float64()}, strings_can_be_null=False)
                lines = csv.ParseOptions(newlines_in_values=True)  # a file's name may hold one
                table = csv.read_csv(stream, parse_options=lines, convert_options=options)
    except (pa.ArrowInvalid, EOFError):
        return None
    return table if set(_NEEDED) <= set(table.column_names) else None


def finished_rows(output: str, filesystem: Any, weights: str) -> tuple[Known, tuple[str, ...]]:
    """Return what earlier runs scored with these weights, and which of their parts are torn."""
    system, _, runs = _runs(output, filesystem)
    images: list[str] = []
    digests: list[str] = []
    torn: list[str] = []
    for run in runs:
        for part in _parts(system, run):
            table = _read(system, part)
            if table is None:
                torn.append(part)
                continue
            for row in table.select(list(_NEEDED)).to_pylist():
                if row["score"] is not None and row["weights"] == weights:
                    images.append(row["image"])
                    digests.append(row["sha256"])
    return Known.of(images, digests, len(runs)), tuple(torn)


def count_rows(system: Any, run: str) -> tuple[int, int]:
    """Return how many rows a run wrote, and how many of them have no score."""
    rows = failed = 0
    for part in _parts(system, run):
        table = _read(system, part)
        if table is not None:
            rows, failed = rows + table.num_rows, failed + table["score"].null_count
    return rows, failed


def table_of(output: str, filesystem: Any) -> Any:
    """Return the rows of all runs, of each image and weights the one of the latest run.

    Raises:
        InputError: there are none.
    """
    import pyarrow as pa

    system, _, runs = _runs(output, filesystem)
    tables = []
    for part in (part for run in runs for part in _parts(system, run)):
        if (found := _read(system, part)) is None:
            warnings.warn(f"{part} was cut off while it was written: its rows are missing", stacklevel=3)
        else:
            tables.append(found)
    if not tables:
        raise InputError(f"there are no scores in {shown(output)}")
    whole = pa.concat_tables(tables, promote_options="permissive")
    latest = {key: place for place, key in enumerate(zip(*(whole[name].to_pylist() for name in ("image", "weights"))))}
    return whole.take(sorted(latest.values()))
