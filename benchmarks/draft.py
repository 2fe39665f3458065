"""By how much decoding JPEG files at reduced scale moves scores, and how much time it saves.

    python -m benchmarks.draft --json benchmarks/results/draft.json

Real photographs: two hundred of BIQ2021 with the pristine ones, each scaled up to camera sizes of 2 to 12 megapixels
and saved as JPEG, as no larger photographs are at hand; and, as they are, those larger than twice the look. Scores of
the default student, whole against reduced, as mean and maximum of the absolute difference.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

import leafiqa
from benchmarks.common import DATA, need_data, report

COUNT = 200
_SIDES = (1400, 2000, 2800, 3500)


def camera_sized(count: int) -> list[bytes]:
    """Return photographs of 2 to 12 megapixels as JPEG files."""
    pristine = sorted((DATA / "pristine" / "images").iterdir())
    real = sorted((DATA / "biq2021" / "images").glob("*.jpg"))
    chosen = pristine + real[:: max(1, len(real) // (count - len(pristine)))]
    made = []
    for number, path in enumerate(chosen[:count]):
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
        factor = _SIDES[number % len(_SIDES)] / (picture.width * picture.height) ** 0.5
        size = (round(picture.width * factor), round(picture.height * factor))
        stream = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=92)
        made.append(stream.getvalue())
    return made


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    whole = leafiqa.create_metric("leaf", device="cpu")
    reduced = leafiqa.create_metric("leaf", device="cpu", draft=True)
    gaps: list[float] = []
    seconds = {"whole": 0.0, "reduced": 0.0}
    for content in camera_sized(COUNT):
        scores = {}
        for name, metric in (("whole", whole), ("reduced", reduced)):
            began = time.perf_counter()
            scores[name] = metric(content).item()
            seconds[name] += time.perf_counter() - began
        gaps.append(abs(scores["whole"] - scores["reduced"]))
    found = {
        "photographs": len(gaps),
        "mean_difference": round(float(np.mean(gaps)), 5),
        "largest_difference": round(float(np.max(gaps)), 5),
        "time_share": round(seconds["reduced"] / seconds["whole"], 3),
    }
    report(found, arguments.json)


if __name__ == "__main__":
    main()
