"""What the benchmarks share: where the image sets are, students by name or place, and what becomes of results."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leafiqa
from leafiqa.model.places import is_place

if TYPE_CHECKING:  # it imports torch, whose import benchmarks.peers measures
    from leafiqa.metric import Metric

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = Path(os.environ.get("LEAFIQA_DATA", SHARED / "data"))
TEACHER = Path(os.environ.get("LEAFIQA_TEACHER", SHARED / "teacher"))


def need_data(folder: Path = DATA) -> None:
    """End with the reason where the image sets or the evidence are not there."""
    if not folder.is_dir():
        variable = "LEAFIQA_DATA" if folder == DATA else "LEAFIQA_TEACHER"
        raise SystemExit(f"this benchmark needs {folder}, which is not there; {variable} names another folder")


def student(text: str) -> Metric:
    """Return the metric that a command line means: a bundled name, or a place written with a / or an ending."""
    return leafiqa.create_metric(weights=text) if is_place(text) else leafiqa.create_metric(text)


def filled(text: str, name: str, content: str, inline: bool = False) -> str:
    """Return a page with what stands between its two marks of a name replaced."""
    gap = "" if inline else "\n"
    pattern = rf"(<!-- {name}: [^>]*-->).*?(<!-- /{name} -->)"
    found, count = re.subn(pattern, lambda match: f"{match[1]}{gap}{content}{gap}{match[2]}", text, flags=re.DOTALL)
    if not count:
        raise ValueError(f"the page has no marks <!-- {name}: ... --> and <!-- /{name} -->")
    return found


def report(results: Any, place: Path | None) -> None:
    """Print results as JSON, and write them where that was asked for."""
    text = json.dumps(results, indent=1)
    print(text)
    if place is not None:
        place.write_text(text + "\n", encoding="utf-8")
