"""Find image files, and say what was not searched and what was passed over."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from leafiqa.errors import InputError
from leafiqa.files import StrPath, printable
from leafiqa.images.extensions import EXTENSIONS, UNREAD


@dataclass
class Found:
    """The files that some paths mean, in a stable order; iterating yields them.

    Attributes:
        files: each once.
        unreadable: folders that could not be looked into, and why.
        passed_over: pictures of kinds that leafiqa does not read, by file name ending.
    """

    files: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def remarks(self) -> list[str]:
        """Return a sentence for each folder that could not be read and each kind of picture that was passed over."""
        remarks = [
            f"{printable(folder)}: {why}: the pictures in it are missing here" for folder, why in self.unreadable
        ]
        remarks += [
            f"{count} file(s) ending in {ending} passed over: leafiqa does not read this kind; convert to PNG or TIFF"
            for ending, count in sorted(self.passed_over.items())
        ]
        return remarks


def find_images(paths: StrPath | Iterable[StrPath], recursive: bool) -> Found:
    """Find the files that the arguments mean.

    A named file is taken whatever its ending, and also if it does not exist, so that its absence is reported. Of a
    folder, files with an image's ending are taken, sorted by name; hidden files and folders are left out and links to
    folders are not followed, in patterns neither.

    Args:
        paths: files, folders and glob patterns (`**` spans folders).
        recursive: look into the folders of a folder, too.
    """
    found = Found()
    seen: set[str] = set()
    for path in _given(paths):
        for file in _expand(os.fspath(path), recursive, found):
            if (place := os.path.abspath(file)) not in seen:
                seen.add(place)
                found.files.append(file)
    return found


def _given(paths: object) -> list[StrPath]:
    """Return the paths that a caller passed.

    Raises:
        InputError: something is no path.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(given, Iterable) or isinstance(given, (bytes, dict)):
        raise InputError(f"images must be a path or several, got {type(paths).__name__}")
    listed = list(given)
    if wrong := [path for path in listed if not isinstance(path, (str, os.PathLike))]:
        raise InputError(f"images must be paths of files and folders, got {type(wrong[0]).__name__}")
    return listed


def need_images(paths: StrPath | Iterable[StrPath], recursive: bool) -> Found:
    """Return what `find_images` finds, at least one file.

    Raises:
        InputError: no file is found.
    """
    paths = _given(paths)
    found = find_images(paths, recursive)
    if not found.files:
        where = ", ".join(printable(os.fspath(path)) for path in paths) or "nothing"
        deeper = "" if recursive else "; folders inside are searched with recursive=True (-r on the command line)"
        why = f" ({'; '.join(found.remarks())})" if found.remarks() else ""
        raise InputError(f"no images found in {where}{why}{deeper}")
    return found


def images_below(folder: StrPath) -> list[str]:
    """Return the image files below a folder that are regular files, as POSIX paths relative to it."""
    return [
        Path(file).relative_to(folder).as_posix()
        for file in find_images(folder, recursive=True)
        if os.path.isfile(file)
    ]


def _expand(path: str, recursive: bool, found: Found) -> Iterator[str]:
    if os.path.isdir(path):
        yield from _in_folder(path, recursive, found)
    elif not os.path.lexists(path) and glob.has_magic(path):
        matches = sorted(_matches(path, found))
        yield from matches
        if not matches:
            yield path
    else:
        yield path


def _matches(pattern: str, found: Found) -> Iterator[str]:
    """Yield the files that a pattern means. `**` is walked here: Python's own follows links to folders in circles."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from (match for match in glob.glob(pattern) if not os.path.isdir(match))
        return
    at = parts.index("**")
    base, rest = os.sep.join(parts[:at]), os.sep.join(parts[at + 1 :])
    if at and not base:
        base = os.sep
    for start in glob.glob(base) if glob.has_magic(base) else [base]:
        for root, folders, files in os.walk(start or os.curdir, onerror=_noting(found, start)):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            root = root[2:] if not start and root.startswith(f"{os.curdir}{os.sep}") else root
            root = "" if not start and root == os.curdir else root
            if not rest:
                yield from (os.path.join(root, name) for name in files if not name.startswith("."))
            else:
                yield from _matches(os.path.join(glob.escape(root), rest), found)


def _noting(found: Found, folder: str) -> Callable[[OSError], None]:
    """Return what notes a folder that cannot be read."""
    return lambda error: found.unreadable.append((error.filename or folder, error.strerror or str(error)))


def _in_folder(folder: str, recursive: bool, found: Found) -> Iterator[str]:
    for root, folders, files in os.walk(folder, onerror=_noting(found, folder)):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(files):
            ending = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if ending in EXTENSIONS:
                yield os.path.join(root, name)
            elif ending in UNREAD:
                found.passed_over[ending] += 1
