"""The pictures of a page: which of them get a small copy, and what a template shows of each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.files import StrPath, as_path, check_output
from leafiqa.reports.pages import is_page, link
from leafiqa.reports.thumbnails import Thumbnail, Thumbnails, check_folder, make_thumbnails, prepare_folder

HOW = ("embed", "beside")


@dataclass
class Item:
    """A picture at one place of a page.

    Attributes:
        path: the picture.
        name: what it is called on the page.
        score: its score; NaN where there is none.
        link: address of the picture itself.
        caption: what stands below it.
        id: of the `img` element that holds its small copy.
        first: whether this is the place that holds the copy.
        thumbnail: the copy; None where there is none.
    """

    path: str
    name: str
    score: float
    link: str
    caption: str = ""
    id: str = ""
    first: bool = False
    thumbnail: Thumbnail | None = None

    @property
    def told(self) -> str:
        """The score to three decimals."""
        return f"{self.score:.3f}" if math.isfinite(self.score) else "-"


@dataclass
class Pictures:
    """Collects the pictures of a page in the order in which they stand on it, and makes their small copies.

    Attributes:
        page: the page's place.
        items: those asked for so far.
    """

    page: StrPath
    items: list[Item] = field(default_factory=list)

    def item(self, path: str, score: float, caption: str | None = None) -> Item:
        """Return a picture for a place of the page."""
        name = os.path.basename(path)
        made = Item(path, name, score, link(path, self.page), name if caption is None else caption)
        self.items.append(made)
        return made

    def make(
        self,
        most: int,
        how: str,
        overwrite: bool,
        important: Iterable[Item],
        progress: Callable[[int, int], None],
    ) -> Thumbnails:
        """Make the small copies, and enter them into the items.

        Args:
            most: at most so many.
            how: "embed", or "beside" for a folder beside the page.
            overwrite: whether a folder of an earlier page may be replaced.
            important: items whose pictures come first where there are too many.
            progress: called with how many are done, and how many there are.
        """
        order = list(dict.fromkeys(item.path for item in [*important, *self.items]))
        folder: Path | None = prepare_folder(self.page, overwrite) if how == "beside" else None
        made = make_thumbnails(order, most, beside=folder, progress=progress)
        ids = {path: f"p{number}" for number, path in enumerate(order)}
        seen: set[str] = set()
        for item in self.items:
            item.id, item.thumbnail = ids[item.path], made.made.get(item.path)
            item.first = item.path not in seen
            seen.add(item.path)
        return made


def check_page(page: StrPath, how: str, *, overwrite: bool, inputs: Iterable[StrPath] = ()) -> Path:
    """Refuse a page that cannot be written, before the work.

    Args:
        page: where it is to go.
        how: "embed" or "beside".
        overwrite: whether a page of ours, and its folder, may be replaced.
        inputs: files that are read.

    Raises:
        InputError: its ending is not `.html`.
        OutputError: it exists already and may not be replaced, or its folder of thumbnails may not.
    """
    place = as_path(page, "output")
    if place.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"output must be a page, .html, got {place}")
    check_output(place, inputs=inputs, overwrite=overwrite, is_ours=is_page)
    if how == "beside":
        check_folder(place, overwrite)
    return place


def check_pictures(most: int, how: str) -> None:
    """Check the arguments that say how many small copies there are, and where.

    Raises:
        InputError: `max_images` is no whole number from 0 on, or `thumbnails` neither "embed" nor "beside".
    """
    whole_number(most, "max_images", 0)
    if how not in HOW:
        raise InputError(f"thumbnails must be one of {', '.join(HOW)}, got {how!r}")
