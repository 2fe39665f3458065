"""Do details tell what a look at a large photograph cannot? `python -m benchmarks.details FOLDER`.

`FOLDER` holds photographs of at least 2.5 megapixels as cameras made them, that nothing was learned from. Those of the
published figures are the JPEG files of half a megabyte and more, of each content one, in three public repositories:
drewnoakes/metadata-extractor-images, ianare/exif-samples and immich-app/test-assets. Each is spoilt by a few pixels at
full size. Told is of each kind of damage how well a severity tells spoilt photographs from those as they were (the
area under the ROC curve, with a bootstrap interval over photographs), and in how many the defect is called clear or
severe, before and after; by the look at the whole picture and by the details. Some photographs are out of focus or
noisy as they are: no severity can tell all of them apart. And how much longer it takes. Where windows lie was chosen on
every second photograph: the area is also told of the others alone.

`--table` writes the table of docs/explain.md from the last results.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import mannwhitneyu

from benchmarks.common import filled, student
from benchmarks.explain import CLEAR, PAGE
from benchmarks.readme import figure
from leafiqa.cli.progress import progress
from leafiqa.errors import ImageError
from leafiqa.images.decoding import decode
from leafiqa.images.find import need_images
from leafiqa.metric import Metric

RESULT = Path(__file__).with_name("results") / "details.json"
LEAST = 2_500_000
DRAWS = 1000

Pixels = NDArray[np.uint8]


def blurred(radius: float) -> Callable[[Pixels], Pixels]:
    """Return what blurs a picture by a Gaussian of so many pixels."""
    return lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def shaken(pixels: Pixels) -> Pixels:
    """Return the mean of nine copies of a picture, each a pixel further to the right."""
    sums = np.zeros(pixels.shape, np.uint16)
    for step in range(9):
        sums += np.roll(pixels, step, axis=1)
    return (sums // 9).astype(np.uint8)


def enlarged(factor: int) -> Callable[[Pixels], Pixels]:
    """Return what makes a picture of one that is smaller by a factor."""

    def spoil(pixels: Pixels) -> Pixels:
        picture = Image.fromarray(pixels)
        small = picture.resize((picture.width // factor, picture.height // factor), Image.Resampling.BICUBIC)
        return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))

    return spoil


def grainy(pixels: Pixels) -> Pixels:
    """Return a picture with noise of a standard deviation of 12 levels of 255."""
    noise = np.random.default_rng(0).normal(0, 12, pixels.shape).astype(np.float32)
    made: Pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return made


def compressed(pixels: Pixels) -> Pixels:
    """Return a picture as a JPEG file of quality 12 keeps it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=12)
    return np.asarray(Image.open(buffer))


# What is done, and the defect that should be seen.
DAMAGE: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "blur of 1.5 pixels": (blurred(1.5), "blur"),
    "blur of 3 pixels": (blurred(3), "blur"),
    "enlarged twice": (enlarged(2), "blur"),
    "enlarged four times": (enlarged(4), "blur"),
    "shaken by 9 pixels": (shaken, "motion"),
    "noise of 12 levels": (grainy, "noise"),
    "JPEG of quality 12": (compressed, "compression"),
}


def area(clean: NDArray[np.float64], spoilt: NDArray[np.float64]) -> float:
    """Return the probability that a spoilt picture has the higher severity of the two."""
    return float(mannwhitneyu(spoilt, clean).statistic / (len(clean) * len(spoilt)))


def compared(clean: list[float], spoilt: list[float]) -> dict[str, Any]:
    """Return how well severities tell spoilt pictures from the same ones as they were."""
    one, other = np.array(clean), np.array(spoilt)
    drawn = np.random.default_rng(0).integers(0, len(one), (DRAWS, len(one)))
    ends = np.quantile([area(one[rows], other[rows]) for rows in drawn], (0.025, 0.975))
    return {
        "auc": round(area(one, other), 4),
        "auc_interval": [round(float(end), 4) for end in ends],
        "auc_held_out": round(area(one[1::2], other[1::2]), 4),
        "clear_before": round(float((one >= CLEAR).mean()), 4),
        "clear": round(float((other >= CLEAR).mean()), 4),
    }


def seen_of(metric: Metric, pixels: Pixels) -> tuple[float, dict[str, float], dict[str, float]]:
    """Return a picture's score, what the look sees and what the details tell."""
    told = metric.explain(pixels, details=True)
    if told.details is None:
        raise SystemExit("a picture of 2.5 megapixels has details: the metric looks at more than a million pixels")
    return told.score, told.defects, told.details.defects


def longer(metric: Metric, picture: Pixels) -> float:
    """Return how many times as long an explanation takes with details, the median of seven in turn."""
    ratios = []
    for _ in range(7):
        begun = time.perf_counter()
        metric.explain(picture)
        between = time.perf_counter()
        metric.explain(picture, details=True)
        ratios.append((time.perf_counter() - between) / (between - begun))
    return round(statistics.median(ratios), 2)


def measure(metric: Metric, files: list[str]) -> dict[str, Any]:
    """Measure all damage on all photographs."""
    seen: dict[str, list[tuple[float, dict[str, float], dict[str, float]]]] = {name: [] for name in ("", *DAMAGE)}
    ratios, sizes = [], []
    with progress("photographs") as bar:
        for number, file in enumerate(files, 1):
            try:
                pixels = decode(file).pixels
            except ImageError as error:
                bar.say(f"{file}: {error}")
                continue
            if pixels.shape[0] * pixels.shape[1] >= LEAST:
                seen[""].append(seen_of(metric, pixels))
                for name, (spoil, _) in DAMAGE.items():
                    seen[name].append(seen_of(metric, spoil(pixels)))
                if len(sizes) % 16 == 0:
                    ratios.append(longer(metric, pixels))
                sizes.append(pixels.shape[0] * pixels.shape[1] / 1e6)
            bar(number, len(files))
    if len(sizes) < 2:
        raise SystemExit("at least two photographs of 2.5 megapixels or more are needed")
    clean = seen.pop("")
    found: dict[str, Any] = {
        "metric": metric.metric_name,
        "weights": metric.card.short_hash,
        "n": len(clean),
        "megapixels": [round(float(of), 1) for of in np.quantile(sizes, (0, 0.5, 1))],
        "longer": statistics.median(ratios),
        "damage": {},
    }
    for name, (_, defect) in DAMAGE.items():
        found["damage"][name] = {
            "defect": defect,
            "score_falls": round(float(np.mean([before[0] - after[0] for before, after in zip(clean, seen[name])])), 4),
            "look": compared([of[1][defect] for of in clean], [of[1][defect] for of in seen[name]]),
            "details": compared([of[2][defect] for of in clean], [of[2][defect] for of in seen[name]]),
        }
    return found


def table(results: dict[str, Any]) -> str:
    """Return the table of docs/explain.md."""
    least, median, most = results["megapixels"]
    lines = [
        "| damage at full size | severity of | score falls by | AUC, look | details | clear before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in results["damage"].items():
        look, close = (figure(of[by]["auc"], of[by]["auc_interval"]) for by in ("look", "details"))
        shares = [f"{100 * of['details'][share]:.0f} %" for share in ("clear_before", "clear")]
        falls = f"{of['score_falls']:.3f}".removeprefix("0")
        lines.append(f"| {' | '.join([name, of['defect'], falls, look, close, *shares])} |")
    held_out = ", ".join(f"{of['details']['auc_held_out']:.2f}".removeprefix("0") for of in results["damage"].values())
    sizes = f"{least} to {most} megapixels, median {median}"
    lines += [
        "",
        f"{results['n']} photographs of {sizes}. Where windows lie was chosen on every second of them; details' AUC "
        f"on the others alone, in the same order: {held_out}. With details an explanation takes {results['longer']} "
        "times as long.",
    ]
    return "\n".join(lines)


def page() -> str:
    """Return docs/explain.md with the table of the last results."""
    results = json.loads(RESULT.read_text(encoding="utf-8"))
    return filled(PAGE.read_text(encoding="utf-8"), "details", table(results))


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--metric", default="leaf")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        PAGE.write_text(page(), encoding="utf-8")
        return
    if arguments.folder is None:
        parser.error("name a folder of photographs")
    results = measure(student(arguments.metric), list(need_images([arguments.folder], recursive=True)))
    RESULT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
