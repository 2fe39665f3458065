"""Small copies of pictures for a page, within a stated number and size."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from leafiqa.errors import LeafiqaError, OutputError
from leafiqa.files import StrPath, write_whole
from leafiqa.images.decoding import decode
from leafiqa.images.loading import load_ahead

# The longer side, in pixels.
SIZE = 224
_QUALITY = 72
# A page of 30 MB is the most that browsers open without a pause: this much is for pictures in it, in base64.
_MOST_BYTES = 22_000_000
# Says that a folder of thumbnails is one of ours.
_MARK = ".leafiqa-thumbnails"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes:
        source: what an `img` element's `src` is: a data URI, or a path relative to the page.
        width: in pixels.
        height: in pixels.
    """

    source: str
    width: int
    height: int


@dataclass
class Thumbnails:
    """Small pictures by the path of the picture that they were made from.

    Attributes:
        made: those on the page.
        left_out: how many pictures are not shown because there would be too many.
        unreadable: why there is none, by path.
    """

    made: dict[str, Thumbnail] = field(default_factory=dict)
    left_out: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def make_thumbnails(
    paths: Sequence[str],
    most: int,
    *,
    beside: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Thumbnails:
    """Make small copies of pictures.

    Args:
        paths: pictures, the most important ones first.
        most: at most so many.
        beside: folder to write them into, made by `prepare_folder`; None embeds them, within 22 MB.
        workers: threads that decode.
        progress: called with how many are done, and how many there are.
    """
    unique = list(dict.fromkeys(paths))
    chosen = unique[:most]
    found = Thumbnails(left_out=len(unique) - len(chosen))
    held = 0
    for number, (path, made) in enumerate(zip(chosen, load_ahead(_small, chosen, workers=workers))):
        progress(number + 1, len(chosen))
        if isinstance(made, str):
            found.unreadable[path] = made
            continue
        data, width, height = made
        if beside is not None:
            name = f"{number:05}.jpg"
            write_whole(beside / name, data)
            found.made[path] = Thumbnail(f"{beside.name}/{name}", width, height)
            continue
        text = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
        held += len(text)
        if held > _MOST_BYTES:
            found.left_out += len(chosen) - number
            break
        found.made[path] = Thumbnail(text, width, height)
    return found


def _small(path: str) -> tuple[bytes, int, int] | str:
    """Return a JPEG of at most `SIZE` pixels with its size, or why there is none."""
    try:
        pixels = decode(path).pixels
        if pixels.dtype != np.uint8:
            pixels = (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        image = Image.fromarray(pixels)
        image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
    except (LeafiqaError, OSError, ValueError, MemoryError) as error:
        return str(error) or type(error).__name__
    return buffer.getvalue(), image.width, image.height


def prepare_folder(page: StrPath, overwrite: bool) -> Path:
    """Make the folder for thumbnails beside a page: `NAME_thumbnails`.

    Raises:
        OutputError: it is there already, and it may not be replaced or is not one of ours.
    """
    place = check_folder(page, overwrite)
    for old in _ours(place):
        old.unlink()
    place.mkdir(exist_ok=True)
    (place / _MARK).touch()
    return place


def check_folder(page: StrPath, overwrite: bool) -> Path:
    """Return the folder for thumbnails beside a page, if it may be made or replaced; see `prepare_folder`."""
    place = Path(f"{os.path.splitext(os.fspath(page))[0]}_thumbnails")
    if place.exists():
        if not (place / _MARK).is_file():
            raise OutputError(f"{place} is there and holds no thumbnails of leafiqa's; move it, or name another page")
        if not overwrite:
            raise OutputError(
                f"{place} exists already; name another page, or allow it with overwrite=True (--overwrite)"
            )
    return place


def _ours(place: Path) -> Iterator[Path]:
    """Yield thumbnails that an earlier page had; other files stay."""
    yield from (path for path in place.glob("[0-9][0-9][0-9][0-9][0-9].jpg") if path.is_file())
