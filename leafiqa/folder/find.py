"""Find the files to score."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from leafiqa.images.extensions import EXTENSIONS


def find_images(paths: Iterable[str], recursive: bool) -> Iterator[str]:
    """Yield the files that the arguments mean, each once, in a stable order.

    A named file is yielded whatever its ending, and also if it does not exist, so that its absence is reported. Of a
    folder, files with an image's ending are yielded, sorted by name; hidden files and folders are left out and
    links to folders are not followed.

    Args:
        paths: files, folders and glob patterns (`**` spans folders).
        recursive: look into the folders of a folder, too.
    """
    seen: set[str] = set()
    for path in paths:
        for found in _expand(path, recursive):
            if (place := os.path.abspath(found)) not in seen:
                seen.add(place)
                yield found


def _expand(path: str, recursive: bool) -> Iterator[str]:
    if os.path.isdir(path):
        yield from _in_folder(path, recursive)
    elif not os.path.lexists(path) and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        for match in matches:
            if not os.path.isdir(match):
                yield match
        if not matches:
            yield path
    else:
        yield path


def _in_folder(folder: str, recursive: bool) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield os.path.join(root, name)
