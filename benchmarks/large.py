"""Do scores fall along ladders of large photographs, too? `python -m benchmarks.large FOLDER`.

`FOLDER` holds large photographs that nothing was learned from: those of the published figures are the ones that
`benchmarks.details` names, of which every fourth is taken. Each is looked at with its longer side reduced to 2,048
pixels where it is larger, degraded there by each of the degradations at five levels. Told is the median and the mean
over the photographs of Kendall's tau between levels and scores. The same at 512 pixels.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kendalltau

from benchmarks.common import student
from leafiqa.cli.progress import progress
from leafiqa.errors import ImageError
from leafiqa.images.decoding import decode
from leafiqa.images.find import need_images
from leafiqa.images.loading import load_ahead
from leafiqa.metric import Metric
from leafiqa.training.degradations.arrays import LEVELS
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade

RESULT = Path(__file__).with_name("results") / "large.json"
SIDES = (512, 2048)
LEAST_SIDE = 1600


def reduced(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture whose longer side is at most `side`."""
    height, width = pixels.shape[:2]
    if (share := side / max(height, width)) >= 1:
        return pixels
    size = (round(width * share), round(height * share))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def taus(metric: Metric, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return Kendall's tau of each degradation's levels and scores, on one picture."""
    jobs = [(name, float(level)) for name in DEGRADATIONS for level in range(1, LEVELS + 1)]
    versions = load_ahead(lambda job: degrade(pixels, *job, 7), jobs)
    clean, *scores = metric(itertools.chain([pixels], versions)).tolist()
    found = {}
    for number, name in enumerate(DEGRADATIONS):
        ladder = [clean, *scores[number * LEVELS : (number + 1) * LEVELS]]
        found[name] = float(kendalltau(np.arange(LEVELS + 1), -np.array(ladder)).statistic)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--metric", default="leaf")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take every Nth photograph")
    arguments = parser.parse_args()
    metric = student(arguments.metric)
    pictures = []
    for file in list(need_images([arguments.folder], False))[:: arguments.every]:
        try:
            pixels = decode(file).pixels
        except ImageError as error:
            print(f"left out: {file}: {error}")
            continue
        if max(pixels.shape) >= LEAST_SIDE:
            pictures.append(reduced(pixels, max(SIDES)))
    if not pictures:
        raise SystemExit(f"{arguments.folder} holds no photograph with a side of {LEAST_SIDE} pixels or more")
    found: dict[str, Any] = {}
    done = 0
    with progress("ladders", "photographs") as bar:
        for side in SIDES:
            each = []
            for pixels in pictures:
                each.append(taus(metric, reduced(pixels, side)))
                bar(done + len(each), len(SIDES) * len(pictures))
            for told, middle in (("median_tau", np.median), ("mean_tau", np.mean)):
                known = {name: round(float(middle([of[name] for of in each])), 3) for name in DEGRADATIONS}
                found.setdefault(told, {})[str(side)] = known
            done += len(each)
    results = {"sha256": metric.card.sha256, "photographs": len(pictures), **found}
    RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for side, of in found["median_tau"].items():
        low = {name: value for name, value in of.items() if value < 0.9}
        print(f"{side} pixels: {len(of) - len(low)} of {len(of)} degradations with a median of at least .9; {low}")


if __name__ == "__main__":
    main()
