"""What a distillation run needs to know, as one readable TOML file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from leafiqa.errors import EvidenceError, InputError
from leafiqa.files import StrPath, as_path
from leafiqa.model.places import is_place
from leafiqa.tables import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# What a person may say on the card of a student, and in what form.
CARD_WORDS: dict[str, type] = {
    "name": str,
    "description": str,
    "teacher": dict,
    "training": dict,
    "licences": dict,
    "limitations": list,
}
# Peak learning rates of backbone and head: from a backbone alone, and from a student, which forgets what else it knew
# the faster it learns (docs/experiments.md, "From a student").
_RATES = (1.5e-4, 1e-3)
_STUDENT_RATES = (5e-5, 3e-4)
# Fields that do not decide what a run ends with.
_NOT_OUTCOME = ("output", "card", "device", "passes", "keep_checkpoints")


def as_files(value: Any, name: str) -> tuple[Path, ...]:
    """Return one file, or several, as paths.

    Raises:
        EvidenceError: `value` is neither; `name` is what it is called.
    """
    files = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(files, (list, tuple)) or not all(isinstance(file, (str, os.PathLike)) for file in files):
        raise EvidenceError(f'{name} must be a list of files, such as ["evidence.jsonl"], got {value!r}')
    return tuple(Path(file) for file in files)


@dataclass(frozen=True)
class Source:
    """One folder of images with a teacher's evidence on them.

    Attributes:
        name: what logs call it.
        images: folder that the evidence's image names are relative to, `str` or `Path`.
        evidence: JSON-lines files of evidence, one or several.
        table: optional CSV with columns `image` and `split`, beside which its image paths are relative; only
            images whose split is `train` are learned from; the teacher's judgments of the others serve to measure the
            result. No other column is read: no human score reaches the student.
        table_prefix: what to put before the table's image names to get the evidence's.
        point_weight: weight of this source's scores in the point-wise loss, beside those of the other sources; their
            differences stay in the pair-wise one. Below 1 where a teacher orders images better than it places them on
            its scale.
    """

    name: str
    images: Path
    evidence: tuple[Path, ...]
    table: Path | None = None
    table_prefix: str = ""
    point_weight: float = 1.0

    def __post_init__(self) -> None:
        """Take `str` for paths, and check the fields.

        Raises:
            EvidenceError: a field is of a wrong type.
        """
        files = as_files(self.evidence, "evidence")
        if not files:
            raise EvidenceError(f'evidence must be a list of files, such as ["evidence.jsonl"], got {self.evidence!r}')
        for name, value in (("images", self.images), ("table", self.table)):
            if not (isinstance(value, (str, os.PathLike)) or (name == "table" and value is None)):
                raise EvidenceError(f"{name} of a source must be a path, got {value!r}")
        for name in ("name", "table_prefix"):
            if not isinstance(getattr(self, name), str):
                raise EvidenceError(f"{name} of a source must be text, got {getattr(self, name)!r}")
        if type(self.point_weight) not in (int, float) or not 0 <= self.point_weight < float("inf"):
            raise EvidenceError(
                f"point_weight of source {self.name!r} must be a number from 0 on, got {self.point_weight!r}"
            )
        object.__setattr__(self, "images", Path(self.images))
        object.__setattr__(self, "evidence", files)
        object.__setattr__(self, "table", None if self.table is None else Path(self.table))


@dataclass(frozen=True)
class Config:
    """A distillation run; every field can be set in the TOML file.

    Attributes:
        sources: images with evidence, `[[sources]]` in the file.
        pristine: folder of undistorted photographs, one of which a step shows degraded beside the images with
            evidence; or None.
        pristine_holdout: each n-th pristine photograph is left out of training, for evaluation; 0 keeps all.
        output: folder for checkpoints, logs and the student.
        holdout: share of the images with scores that is held out, to measure how well the student agrees with the
            teacher on images that it did not learn from; of a source with a table, its other splits serve instead. At
            most 200 images a source, none below 50. 0 holds out none.
        initial: where the student begins: the name of a bundled student; a place of one, written with a `/` or an
            ending (`./folder`, `mine.safetensors`, `hf-hub:owner/repo`); "timm" for the weights that timm fetches; or a
            `.pth` state dict of the backbone alone, loaded with `weights_only`.
        backbone: timm name of the backbone.
        experts: readers in the head, mixed by a gate; one for each source lets photographs and generated images, say,
            be read differently, and the gate learns to tell the sources apart. 0 means as many as the initial student
            has, one where it begins at a backbone.
        area: side of the square to whose area whole images are resized for training, in pixels; their aspect ratio is
            kept, as in scoring.
        look: the same of the finished student; may exceed `area`, as convolutional students see more detail than they
            were trained on.
        crop: side of the random crop, of a square image; of others the crop keeps the same share of each side.
        stored: side of the square to whose area images are resized to be held in memory, and to be degraded; those of a
            step are resized to `area` then. What is degraded before it is made smaller looks like what people degrade.
            0 means `area`.
        epochs: passes over the evidence.
        batch: images with evidence in a step; degraded and null images come on top.
        passes: parts that a step's images are computed in, for less memory; the outcome is the same, to rounding.
        pairs: pairs that the teacher compared in a step, two pictures each, where the evidence has comparisons.
        ladders: images of a step that are shown degraded as well, at two levels, by a degradation that is drawn.
        freeze: leading blocks of the backbone that keep their weights (the stem too); 0 trains all.
        lr: peak learning rate of the backbone; 0 means the usual one, 1.5e-4 from a backbone and 5e-5 from a student.
        head_lr: peak learning rate of the head; 0 means the usual one, 1e-3 from a backbone and 3e-4 from a student.
        weight_decay: AdamW's weight decay.
        warmup: steps of linear warm-up; at most a fifth of the run.
        ema: decay of the moving average of the weights, which is what is saved.
        point_weight: weight of the point-wise loss.
        pair_weight: weight of the pair-wise losses: of pairs within a batch, whose preference comes from the scores,
            and of pairs that the teacher compared.
        ladder_weight: weight of the ladder loss: of two levels the milder is better.
        damage_weight: weight of the point-wise loss of degraded images against what is left of their score by the cost
            of a level; see `leafiqa.training.degradations.ladders`.
        null_weight: weight of the loss that keeps pictures of nothing low.
        sigma: standard deviation of one judgment, in score units; turns score gaps into preferences.
        reliability_power: evidence weighs its reliability to this power; 0 switches weighting off.
        crossfit: cross-validation folds for second opinions, 2 or more: as many trainings come first, each without one
            fold of the images, to score that fold beside the teacher; 0 does without.
        common: files of evidence that judge images of several sources beside each other. The other files of each source
            are brought to their scale by a straight line through the images that both judge, and they join the evidence
            of each source; see `leafiqa.evidence.linking`.
        reconcile: bring the scores of all sources to the scale of the student that training begins at, which takes
            teachers that are not equally strict; see `leafiqa.distillation.scales`.
        aspects: pictures that the finished student learns defects, their places and its own errors from, degraded in
            part; it takes about four times as long as scoring them. 0 does without: it tells a score alone.
        seed: seeds everything random.
        bf16: run the student in bfloat16 autocast; faster on GPUs and on CPUs with bfloat16 instructions, slower on
            others.
        device: "auto" (CUDA where there is one), "cpu", "cuda", ...; of several processes each takes a GPU of its own.
        keep_checkpoints: keep the checkpoints of a finished run, about 25 MB an epoch, for averaging runs say.
        card: words of the model card that only a person knows: `name`, `description`, `teacher`, `licences`, ...
    """

    sources: tuple[Source, ...]
    output: Path
    initial: str = "leaf"
    pristine: Path | None = None
    pristine_holdout: int = 3
    holdout: float = 0.1
    backbone: str = "tf_efficientnet_lite0"
    experts: int = 0
    area: int = 320
    look: int = 384
    crop: int = 288
    stored: int = 0
    epochs: int = 4
    batch: int = 16
    passes: int = 1
    pairs: int = 4
    ladders: int = 4
    freeze: int = 2
    lr: float = 0.0
    head_lr: float = 0.0
    weight_decay: float = 0.02
    warmup: int = 80
    ema: float = 0.995
    point_weight: float = 1.0
    pair_weight: float = 1.0
    ladder_weight: float = 0.5
    damage_weight: float = 0.0
    null_weight: float = 0.5
    sigma: float = 0.1
    reliability_power: float = 1.0
    crossfit: int = 0
    common: tuple[Path, ...] = ()
    reconcile: bool = False
    aspects: int = 2000
    seed: int = 0
    bf16: bool = False
    device: str = "auto"
    keep_checkpoints: bool = False
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            EvidenceError: one is of a wrong type or out of range; the message names it.
        """
        _check(self)

    @property
    def begins_at_student(self) -> bool:
        """Whether training begins at a student of leafiqa, not at weights of a backbone alone."""
        return self.initial != "timm" and Path(self.initial).suffix.lower() not in {".pth", ".pt"}

    @property
    def rates(self) -> tuple[float, float]:
        """Peak learning rates of the backbone and of the head."""
        usual = _STUDENT_RATES if self.begins_at_student else _RATES
        return self.lr or usual[0], self.head_lr or usual[1]

    def fingerprint(self) -> dict[str, str]:
        """Return what decides the run's outcome, as text by field; a checkpoint goes on only under the same."""
        return {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.name not in _NOT_OUTCOME}


def read_config(path: StrPath) -> Config:
    """Read a TOML config, UTF-8 or UTF-16 with a byte order mark; relative paths are relative to the working directory.

    Raises:
        EvidenceError: the file cannot be read or parsed, or has unknown, missing or wrong fields.
    """
    path = as_path(path, "config")
    try:
        text = read_text(path, "config")
        text.encode("utf-8")
        raw = tomllib.loads(text)
    except UnicodeEncodeError as error:
        raise EvidenceError(f"config {path} is not UTF-8: save it as UTF-8") from error
    except InputError as error:
        raise EvidenceError(str(error)) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise EvidenceError(f"config {path} is not valid TOML: {error}") from error
    known = {f.name for f in fields(Config)}
    if unknown := set(raw) - known:
        raise EvidenceError(f"config {path} has unknown fields {sorted(unknown)}; known: {sorted(known)}")
    if missing := {"sources", "output"} - set(raw):
        raise EvidenceError(f"config {path} lacks {sorted(missing)}")
    try:
        return Config(**{**raw, "sources": _sources(raw["sources"])})
    except EvidenceError as error:
        raise EvidenceError(f"config {path}: {error}") from error


def _sources(entries: Any) -> tuple[Source, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise EvidenceError(f"sources must be tables, [[sources]], got {entries!r}")
    known = {f.name for f in fields(Source)}
    found = []
    for entry in entries:
        if unknown := set(entry) - known:
            raise EvidenceError(f"a [[sources]] entry has unknown fields {sorted(unknown)}; known: {sorted(known)}")
        if missing := {"images", "evidence"} - set(entry):
            raise EvidenceError(f"a [[sources]] entry lacks {sorted(missing)}")
        if not isinstance(entry["evidence"], list):
            raise EvidenceError(
                f'evidence must be a list of files, such as ["evidence.jsonl"], got {entry["evidence"]!r}'
            )
        name = Path(entry["images"]).name if isinstance(entry["images"], str) else ""
        found.append(Source(**{"name": name, **entry}))
    return tuple(found)


def _check(config: Config) -> None:
    """Take `str` for paths, and refuse values of a wrong type or out of range, before anything long begins."""
    for name in ("output", "pristine"):
        value = getattr(config, name)
        if isinstance(value, (str, os.PathLike)):
            object.__setattr__(config, name, Path(value))
        elif not (name == "pristine" and value is None):
            raise EvidenceError(f"{name} must be a folder, got {value!r}")
    if isinstance(config.sources, Source):
        object.__setattr__(config, "sources", (config.sources,))
    if not isinstance(config.sources, (list, tuple)) or not all(isinstance(s, Source) for s in config.sources):
        raise EvidenceError(f"sources must be a sequence of Source, got {config.sources!r}")
    object.__setattr__(config, "sources", tuple(config.sources))
    object.__setattr__(config, "common", as_files(config.common, "common"))
    if config.output.exists() and not config.output.is_dir():
        raise EvidenceError(f"output must be a folder, {config.output} is a file")
    for f in fields(Config):
        value = getattr(config, f.name)
        kind = type(f.default)
        if kind is float and type(value) is int:
            object.__setattr__(config, f.name, float(value))
        elif kind in (int, float, bool, str) and type(value) is not kind:
            raise EvidenceError(f"{f.name} must be a {kind.__name__}, got {value!r}")
    if not isinstance(config.card, dict):
        raise EvidenceError(f"card must be a table, [card], got {config.card!r}")
    if unknown := set(config.card) - set(CARD_WORDS):
        raise EvidenceError(f"[card] has unknown fields {sorted(unknown)}; known: {list(CARD_WORDS)}")
    for name, form in CARD_WORDS.items():
        if not isinstance(config.card.get(name, form()), form):
            raise EvidenceError(f"{name} in [card] must be a {form.__name__}, got {config.card[name]!r}")
    if config.pristine is not None and not config.pristine.is_dir():
        raise EvidenceError(f"pristine must be a folder of photographs, {config.pristine} is none")
    if not config.sources:
        raise EvidenceError("there must be at least one [[sources]] entry")
    least = {"area": 32, "look": 32, "crop": 32, "epochs": 1, "batch": 2, "passes": 1, "warmup": 1, "sigma": 1e-3}
    weights = "point_weight pair_weight ladder_weight damage_weight null_weight reliability_power"
    counts = "crossfit experts pairs ladders stored aspects freeze pristine_holdout seed"
    for name in f"{counts} lr head_lr weight_decay {weights}".split():
        least[name] = 0
    for name, low in least.items():
        if not low <= getattr(config, name) < float("inf"):
            raise EvidenceError(f"{name} must be a number from {low} on, got {getattr(config, name)}")
    if not 0 <= config.holdout <= 0.5:
        raise EvidenceError(f"holdout must be a share from 0 to 0.5, got {config.holdout}")
    if not config.begins_at_student and config.initial != "timm" and not is_place(config.initial):
        raise EvidenceError(f"initial must be a name, 'timm' or a place written with a /, got {config.initial!r}")
    if config.reconcile and not config.begins_at_student:
        raise EvidenceError(f"reconcile needs an initial student, got initial = {config.initial!r}")
    if config.crossfit == 1:
        raise EvidenceError("crossfit must be 0 or the number of folds, 2 or more, got 1")
    if config.crop > config.area:
        raise EvidenceError(f"crop {config.crop} must not exceed area {config.area}")
    if not 0 <= config.ema < 1:
        raise EvidenceError(f"ema must be from 0 to below 1, got {config.ema}")
