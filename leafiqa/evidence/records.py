"""One judgment of a teacher, as an object and as a line of JSON. Raw facts only: reliability is computed from them.

    {"kind": "point", "image": "a.jpg", "score": 73, "scale": [0, 100], "confidence": 0.55, "view": "p1"}
    {"kind": "point", "image": "a.jpg", "score": 73, "scale": [0, 100], "defects": {"blur": 2, "dark": 1}}
    {"kind": "point", "image": "a.jpg", "levels": {"poor": -2.3, "fair": -0.4, "good": -1.6}}
    {"kind": "pair", "images": ["a.jpg", "b.jpg"], "first": 0.83}
    {"kind": "ranking", "images": ["best.jpg", "middle.jpg", "worst.jpg"], "view": "p1"}

`levels` are natural logarithms of the probabilities of the level words; a level that is missing is unknown, not
impossible. `images` of a pair stand in the order they were shown, and `first` is the probability that the first one
is the better. Optional `defects` of a point are what was seen wrong: names with severities, 1 slight, 2 clear, 3
severe; those that its file names elsewhere were not seen here. `view`, optional, names what was shown together:
judgments of one view share its context. Optional `sha256` (of a point: the image's content; of pairs and rankings: a
list) tells a file that was replaced since. Optional `rater` of a point names the person who rated. Names of images are
relative to their folder and do not lead out of it. Other fields are allowed and left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEVELS = ("bad", "poor", "fair", "good", "excellent")
MOST_SEVERE = 3


@dataclass(frozen=True)
class Point:
    """A point-wise judgment.

    Attributes:
        image: name of the image.
        score: in [0, 1]; of levels the mean of bad = 0, poor = 0.25, ..., excellent = 1.
        confidence: the teacher's stated confidence in [0, 1], None if it stated none.
        mass: probability that fell on the level words, None if it was not asked for levels.
        entropy: of the levels, renormalised, as a share of its maximum; None if it was not asked for levels.
        view: what the image was shown together with, None if alone.
        sha256: of the image's content, None if not recorded.
        rater: the person who rated, None for a teacher that is no person.
        defects: severities in [0, 3] by name of the defect, None if it was not asked for them.
    """

    image: str
    score: float
    confidence: float | None = None
    mass: float | None = None
    entropy: float | None = None
    view: str | None = None
    sha256: str | None = None
    rater: str | None = None
    defects: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Pair:
    """A comparison of two images.

    Attributes:
        first: the image shown first (of a ranking: the one ranked higher).
        second: the other one.
        preference: probability that the first is the better.
        view: what they were shown together with, None if alone.
        ranked: how many places lie between them in the ranking that the pair comes from; 0 for a direct comparison.
        mass: probability that fell on the words asked for; 1 where none was recorded.
        sha256: of the two images' contents, None if not recorded.
    """

    first: str
    second: str
    preference: float
    view: str | None = None
    ranked: int = 0
    mass: float = 1.0
    sha256: tuple[str, str] | None = None


# One place apart in a ranking is decided at about this many standard deviations, two places at twice it.
RANK_STEP = 0.8
# Of a longer ranking not every pair is taken: all within so many places, and pairs 16, 32, 64, ... places apart.
_ALL_PAIRS = 64
_NEAR = 8


def parse(record: Any) -> list[Point | Pair]:
    """Return the judgments that a record stands for.

    A ranking stands for each ordered pair in it; of one of more than 64 images, whose distant pairs repeat what the
    nearer ones say, for about twelve pairs an image.

    Raises:
        ValueError: the record is not of the format; the message says what is wrong.
    """
    if not isinstance(record, dict) or "kind" not in record:
        raise ValueError('a record is an object with a "kind"')
    kind = record["kind"]
    if kind == "point":
        return [_point(record)]
    if kind == "pair":
        first, second = _images(record, 2)
        mass = 1.0 if record.get("mass") is None else _share(record, "mass")
        digests = _digests(record, 2)
        both = None if digests is None else (digests[0], digests[1])
        return [Pair(first, second, _share(record, "first"), _text(record, "view"), mass=mass, sha256=both)]
    if kind == "ranking":
        images = _images(record, None)
        view, digests = _text(record, "view"), _digests(record, len(images))
        return [
            Pair(
                better,
                worse,
                0.5 * math.erfc(-RANK_STEP * (j - i) / math.sqrt(2)),
                view,
                j - i,
                sha256=None if digests is None else (digests[i], digests[j]),
            )
            for i, better in enumerate(images)
            for j, worse in ((j, images[j]) for j in _ranked_below(i, len(images)))
        ]
    raise ValueError(f"unknown kind {kind!r}; known are point, pair, ranking")


def _ranked_below(place: int, count: int) -> list[int]:
    """Return the lower places that an image of a ranking is compared with."""
    if count <= _ALL_PAIRS:
        return list(range(place + 1, count))
    near = range(place + 1, min(place + 1 + _NEAR, count))
    far = (place + 2**power for power in range(_NEAR.bit_length(), count.bit_length()))
    return [*near, *(other for other in far if other < count)]


def check_name(name: str) -> str:
    """Return an image's name if it stays within the folder that it is relative to.

    Raises:
        ValueError: it is absolute, or leads out of the folder.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or ".." in parts or name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        raise ValueError(f"{name[:200]!r} leads out of the images' folder: names are relative to it")
    return name


def _point(record: dict[str, Any]) -> Point:
    image, view, digest = record.get("image"), _text(record, "view"), _text(record, "sha256")
    rater, defects = _text(record, "rater"), _defects(record)
    if not isinstance(image, str) or not image:
        raise ValueError(f"image must be a name, got {image!r}")
    check_name(image)
    if "levels" in record:
        score, mass, entropy = _levels(record["levels"])
        return Point(image, score, None, mass, entropy, view, digest, rater, defects)
    scale = record.get("scale")
    if not (isinstance(scale, list) and len(scale) == 2 and all(map(_finite, scale)) and scale[0] < scale[1]):
        raise ValueError(f"scale must be two numbers that rise, got {scale!r}")
    low, high = scale
    if not (_finite(record.get("score")) and low <= record["score"] <= high):
        raise ValueError(f"score must be a number from {low} to {high}, got {record.get('score')!r}")
    confidence = None if record.get("confidence") is None else _share(record, "confidence")
    score = (record["score"] - low) / (high - low)
    return Point(image, score, confidence, None, None, view, digest, rater, defects)


def _defects(record: dict[str, Any]) -> dict[str, float] | None:
    value = record.get("defects")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(name.strip() for name in value):
        raise ValueError(f"defects must be severities by name, got {value!r}")
    for name, severity in value.items():
        if not (_finite(severity) and 0 <= severity <= MOST_SEVERE):
            raise ValueError(f"severity of {name!r} must be a number from 0 to {MOST_SEVERE}, got {severity!r}")
    return {name.strip(): float(severity) for name, severity in value.items()}


def _levels(levels: Any) -> tuple[float, float, float]:
    if not isinstance(levels, dict) or not levels or set(levels) - set(LEVELS):
        raise ValueError(f"levels must be log-probabilities by {', '.join(LEVELS)}, got {levels!r}")
    if not all(_finite(value) and value <= 1e-6 for value in levels.values()):
        raise ValueError(f"log-probabilities of levels must be numbers of at most 0, got {levels!r}")
    masses = {name: math.exp(value) for name, value in levels.items()}
    total = sum(masses.values())
    if not 0 < total <= 1.001:
        raise ValueError(f"probabilities of the levels must sum to at most 1, got {total:.4g}")
    shares = {name: mass / total for name, mass in masses.items()}
    score = sum(share * LEVELS.index(name) / (len(LEVELS) - 1) for name, share in shares.items())
    entropy = -sum(share * math.log(share) for share in shares.values() if share > 0) / math.log(len(LEVELS))
    return min(max(score, 0.0), 1.0), min(total, 1.0), min(max(entropy, 0.0), 1.0)


def _images(record: dict[str, Any], count: int | None) -> list[str]:
    images = record.get("images")
    if not (isinstance(images, list) and len(images) >= 2 and all(isinstance(i, str) and i for i in images)):
        raise ValueError(f"images must be a list of at least two names, got {str(images)[:200]}")
    for image in images:
        check_name(image)
    if count is not None and len(images) != count:
        raise ValueError(f"images must be {count} names, got {len(images)}")
    if len(set(images)) != len(images):
        raise ValueError(f"an image stands twice in {images!r}")
    return images


def _digests(record: dict[str, Any], count: int) -> list[str] | None:
    """Return the recorded hashes of as many images, None where they are missing or not as many."""
    value = record.get("sha256")
    if isinstance(value, list) and len(value) == count and all(isinstance(item, str) for item in value):
        return value
    return None


def _share(record: dict[str, Any], name: str) -> float:
    value = record.get(name)
    if not (_finite(value) and 0 <= value <= 1):  # type: ignore[operator]
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def _text(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    return value if isinstance(value, str) and value else None


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        return False
