"""The model card: all that a reader, and a loader, must know of a checkpoint, as one JSON file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.errors import WeightsError
from leafiqa.files import printable

CARD_FORMAT = 1
# Characters in the name of a base, with which its files' names begin.
_LONGEST = 200
# Arguments of `Student` and the JSON types of their values.
_ARCHITECTURE: dict[str, tuple[type, ...]] = {
    "backbone": (str, list, tuple),
    "stages": (list, tuple),
    "hidden": (int,),
    "experts": (int,),
    "dropout": (int, float),
    "residual": (bool,),
    "defects": (list, tuple),
}
_REQUIRED = ("format", "name", "sha256", "architecture", "preprocess", "score")


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        name: `arch.tag`, such as `leaf_lite0.general`.
        description: one sentence for humans.
        sha256: hash of the `.safetensors` file beside the card, 64 lower-case hex digits.
        architecture: arguments of `Student`: `backbone`, `stages`, `hidden`, ...
        preprocess: arguments of `Preprocess`.
        score: `range` (two numbers that no score leaves) and `unit` (what one unit means).
        teacher: who judged the training images, and how.
        training: data, label budget and procedure.
        accuracy: list of measurements: `dataset`, `split`, `n`, `srcc`, `plcc`, each with a 95 % interval.
        licences: of `code`, `weights`, and each data set.
        limitations: what the scores cannot tell.
        base: `name` and `sha256` of the student that the weights file holds the difference from, and `backbone`, which
            of several backbones is that student's; empty where it holds all weights.
        leafiqa_version: version that wrote the card.
        format: version of this layout.

    Fields that this version does not know are ignored when a card is read; what decides the score, `architecture`,
    `preprocess` and `score`, is checked field by field.
    """

    name: str
    sha256: str
    architecture: dict[str, Any]
    preprocess: dict[str, Any]
    score: dict[str, Any]
    description: str = ""
    teacher: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    licences: dict[str, Any] = field(default_factory=dict)
    limitations: list[str] = field(default_factory=list)
    base: dict[str, Any] = field(default_factory=dict)
    leafiqa_version: str = ""
    format: int = CARD_FORMAT

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest possible score."""
        low, high = self.score["range"]
        return float(low), float(high)

    @property
    def short_hash(self) -> str:
        """First twelve digits of the weights' sha256, as printed beside scores."""
        return self.sha256[:12]

    def to_json(self) -> str:
        """Return the card as indented JSON, ending in a newline."""
        fields = {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}
        return json.dumps({"format": fields.pop("format"), **fields}, indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a value of JSON types; JSON has no NaN: an undefined figure is null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_card(text: str, where: str) -> Card:
    """Parse and check a card.

    Args:
        text: the JSON text.
        where: what to call it in errors.

    Raises:
        WeightsError: not JSON, not a card, or of a layout that this leafiqa does not know.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where} is not a model card: invalid JSON ({error})") from error
    if not isinstance(fields, dict) or (missing := [name for name in _REQUIRED if name not in fields]):
        raise WeightsError(
            f"{where} is not a model card: it lacks {missing if isinstance(fields, dict) else _REQUIRED}"
        )
    if fields["format"] != CARD_FORMAT:
        raise WeightsError(
            f"{where} has card format {fields['format']}, this leafiqa reads {CARD_FORMAT}; upgrade leafiqa"
        )
    # What a newer leafiqa has to say of a student is not needed to score with it.
    fields = {name: value for name, value in fields.items() if name in Card.__dataclass_fields__}
    for name, kind in (("name", str), ("description", str), ("accuracy", list), ("limitations", list)):
        if not isinstance(fields.get(name, kind()), kind):
            raise WeightsError(f"{where}: {name} must be a {kind.__name__}, got {fields[name]!r}")
    if fields["name"] != printable(fields["name"]) or not fields["name"].strip():
        raise WeightsError(f"{where}: name must be printable text, got {fields['name']!r}")
    for name in ("architecture", "preprocess", "score", "teacher", "training", "licences", "base"):
        if not isinstance(fields.get(name, {}), dict):
            raise WeightsError(f"{where}: {name} must be an object, got {fields[name]!r}")
    _check_architecture(fields["architecture"], where)
    card = Card(**fields)
    if not _is_hash(card.sha256):
        raise WeightsError(f"{where}: sha256 must be 64 lower-case hex digits, got {card.sha256!r}")
    if card.base and not (_is_name(card.base.get("name")) and _is_hash(card.base.get("sha256"))):
        raise WeightsError(f"{where}: base must be a name and a sha256, got {card.base!r}")
    several = card.architecture["backbone"]
    place = card.base.get("backbone")
    count = 0 if isinstance(several, str) else len(several)
    if place is not None and not (type(place) is int and 0 <= place < count):
        raise WeightsError(f"{where}: base.backbone must be the place of one of {several}, got {card.base!r}")
    try:
        low, high = card.score_range
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{where}: score.range must be two numbers, got {card.score!r}") from error
    if any(type(end) not in (int, float) for end in card.score["range"]):
        raise WeightsError(f"{where}: score.range must be two numbers, got {card.score!r}")
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise WeightsError(f"{where}: score.range must rise, got {card.score['range']}")
    return card


def _is_hash(digits: Any) -> bool:
    return isinstance(digits, str) and len(digits) == 64 and set(digits) <= set("0123456789abcdef")


def _is_name(name: Any) -> bool:
    """Tell whether a name is that of a file beside a card: not one that leads elsewhere."""
    return isinstance(name, str) and bool(name.strip()) and len(name) <= _LONGEST and not set(name) & set("/\\\0")


def _check_architecture(fields: dict[str, Any], where: str) -> None:
    """Refuse what `Student` would stumble over, or what a newer leafiqa's student may need."""
    if unknown := set(fields) - set(_ARCHITECTURE):
        raise WeightsError(
            f"{where}: architecture has unknown fields {sorted(unknown)}; this leafiqa knows "
            f"{sorted(_ARCHITECTURE)}. A newer leafiqa may be needed."
        )
    if missing := {"backbone", "stages"} - set(fields):
        raise WeightsError(f"{where} does not fit: architecture lacks {sorted(missing)}")
    for name, value in fields.items():
        good = type(value) in _ARCHITECTURE[name]
        if name == "backbone" and not isinstance(value, str):
            good = good and len(value) > 1 and all(isinstance(one, str) for one in value)
        elif name == "stages":
            good = good and len(value) > 0 and all(type(stage) is int and stage >= 0 for stage in value)
        elif name == "defects":
            good = good and all(isinstance(one, str) and one.strip() and one == printable(one) for one in value)
            good = good and len(set(value)) == len(value)
        elif name in ("hidden", "experts"):
            good = good and value >= 1
        elif name == "dropout":
            good = good and 0 <= value < 1
        if not good:
            raise WeightsError(f"{where}: architecture.{name} is not what it should be: {value!r}")


def read_card(path: Path) -> Card:
    """Read a card file.

    Raises:
        WeightsError: the file is missing or no valid card.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read model card {path}: {error}") from error
    return parse_card(text, str(path))
