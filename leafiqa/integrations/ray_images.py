"""Where a cluster's images are: folders and addresses, Parquet files, Ray datasets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from leafiqa.errors import InputError
from leafiqa.images.extensions import EXTENSIONS
from leafiqa.images.find import need_images
from leafiqa.scoring.contents import Content
from leafiqa.scoring.rows import digits_of

_IMAGE_COLUMNS = ("image", "bytes", "content", "path", "file", "url")
_NAME_COLUMNS = ("path", "name", "key", "id", "file", "url")


@dataclass(frozen=True)
class Images:
    """A Ray dataset of images.

    Attributes:
        dataset: the dataset; None in a worker, which is given batches.
        column: the column with paths or bytes.
        name_column: the column that names rows of bytes; empty for their sha256.
        filesystem: how paths are read; None for local files and addresses that pyarrow knows.
    """

    dataset: Any
    column: str
    name_column: str
    filesystem: Any

    def without_dataset(self) -> Images:
        """Return the same for a worker."""
        return replace(self, dataset=None)

    def contents(self, batch: dict[str, Any]) -> list[Content]:
        """Return a batch's images."""
        cells = batch[self.column]
        named = batch[self.name_column] if self.name_column else [None] * len(cells)
        return [self._content(cell, name) for cell, name in zip(cells, named)]

    def _content(self, cell: Any, name: Any) -> Content:
        if isinstance(cell, dict):
            data, path = cell.get("bytes"), cell.get("path")
            name = name if name is not None else path
            cell = data if data is not None else path
        if isinstance(cell, (bytes, bytearray, memoryview)):
            content = bytes(cell)
            return Content(str(name) if name is not None else f"sha256:{digits_of(content)}", lambda: content)
        if isinstance(cell, str) and cell:
            return Content(shown(cell), self._reader(cell))
        return Content(str(name) if name is not None else "", _no_image(cell))

    def _reader(self, path: str) -> Callable[[], bytes]:
        def read() -> bytes:
            if self.filesystem is None and "://" not in path:
                if not os.path.isfile(path):
                    raise InputError(f"there is no regular file {path} on this node")
                with open(path, "rb") as file:
                    return file.read()
            system, place = open_place(path, self.filesystem)
            with system.open_input_stream(place) as stream:
                content: bytes = stream.read()
            return content

        return read


def _no_image(cell: Any) -> Callable[[], bytes]:
    def read() -> bytes:
        raise InputError(f"no path and no bytes, but {'nothing' if cell is None else type(cell).__name__}")

    return read


def shown(place: str) -> str:
    """Return a place as it is told: an address without the keys and options that open it."""
    scheme, mark, rest = place.partition("://")
    if not mark:
        return place
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def open_place(place: str, filesystem: Any = None) -> tuple[Any, str]:
    """Return pyarrow's filesystem for a path or address, and the path in it.

    Args:
        place: a path, or an address such as `s3://bucket/key`.
        filesystem: of pyarrow or fsspec; None finds it by the address.

    Raises:
        InputError: pyarrow does not know the address.
    """
    from pyarrow import fs

    scheme, mark, rest = place.partition("://")
    if filesystem is not None:
        if not isinstance(filesystem, fs.FileSystem):
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
        return filesystem, rest if mark else place
    if not mark:
        return fs.LocalFileSystem(), os.path.abspath(place)
    address, question, query = rest.partition("?")
    bucket, slash, key = address.partition("/")
    system, path = _system(f"{scheme}://{bucket}{question}{query}")
    return system, f"{path}{slash}{key}"


@lru_cache(maxsize=64)
def _system(address: str) -> tuple[Any, str]:
    """Open a bucket or server once: making a client takes longer than reading an image."""
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(address)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open {shown(address)}: {type(error).__name__}; give filesystem") from error
    return system, path


def find_images_for_ray(images: Any, column: str | None, name_column: str | None, filesystem: Any) -> Images:
    """Return the images that `leafiqa.integrations.ray.score` is given.

    Raises:
        InputError: there are none, or a column is missing.
    """
    import ray.data

    if isinstance(images, ray.data.Dataset):
        return _of_table(images, column, name_column, filesystem)
    given = [images] if isinstance(images, (str, os.PathLike)) else images
    if not isinstance(given, (list, tuple)) or not all(isinstance(place, (str, os.PathLike)) for place in given):
        raise InputError(f"images must be a path, an address, a list of these or a Ray dataset, got {images!r}")
    places: list[str] = [os.fspath(place) for place in given]
    if places and all(_is_parquet(place, filesystem) for place in places):
        paths = [open_place(place, filesystem)[1] for place in places]
        table = ray.data.read_parquet(paths, filesystem=open_place(places[0], filesystem)[0])
        return _of_table(table, column, name_column, filesystem)
    if column is not None or name_column is not None:
        raise InputError("column and name_column are for datasets and Parquet files")
    if len({place.partition("://")[0] if "://" in place else "" for place in places}) > 1:
        raise InputError("images must all be on this machine, or all on one kind of server")
    found = list(dict.fromkeys(name for place in places for name in _files(place, filesystem)))
    if not found:
        raise InputError(f"no image in {', '.join(map(shown, places)) or 'an empty list'}")
    # Rows name addresses without what opens them (a region, an endpoint, a key), so the filesystem travels along.
    system = open_place(places[0], filesystem)[0] if "://" in places[0] or filesystem is not None else None
    return Images(ray.data.from_items([{"image": name} for name in found]), "image", "", system)


def _of_table(dataset: Any, column: str | None, name_column: str | None, filesystem: Any) -> Images:
    names = list(dataset.columns() or [])
    if column is None:
        column = next((name for name in _IMAGE_COLUMNS if name in names), None)
        if column is None:
            raise InputError(f"none of the columns {names} is one of {', '.join(_IMAGE_COLUMNS)}; name it by column")
    for given in (column, name_column):
        if given is not None and given not in names:
            raise InputError(f"there is no column {given!r}; there are {', '.join(names)}")
    if name_column is None:
        name_column = next((name for name in _NAME_COLUMNS if name in names and name != column), "")
    wanted = [column, *([name_column] if name_column else [])]
    return Images(dataset.select_columns(wanted), column, name_column, filesystem)


def _is_parquet(place: str, filesystem: Any) -> bool:
    if place.partition("?")[0].lower().endswith((".parquet", ".pq")):
        return True
    if filesystem is None and "://" not in place and not os.path.isdir(place):
        return False
    return any(name.lower().endswith(".parquet") for name in _listed(place, filesystem, recursive=False))


def _files(place: str, filesystem: Any) -> list[str]:
    """Return the images in a folder and the folders within, at an address, or that a local pattern means."""
    if filesystem is None and "://" not in place:
        return [os.path.abspath(path) for path in need_images([place], recursive=True)]
    head = place.partition("://")[0] + "://" if "://" in place else ""
    listed = _listed(place, filesystem, recursive=True)
    return [head + name for name in listed if name.lower().endswith(tuple(EXTENSIONS))]


def _listed(place: str, filesystem: Any, recursive: bool) -> list[str]:
    """Return the files in a folder of any filesystem, or the one that is named."""
    from pyarrow import fs

    system, path = open_place(place, filesystem)
    try:
        what = system.get_file_info(path)
        if what.type == fs.FileType.File:
            return [path]
        chosen = system.get_file_info(fs.FileSelector(path, recursive=recursive, allow_not_found=True))
    except OSError as error:
        raise InputError(f"cannot list {shown(place)}: {error}") from error
    return sorted(one.path for one in chosen if one.type == fs.FileType.File)
