"""Pictures and targets of a distillation run, resized once and held in memory as uint8."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leafiqa.distillation.config import Config, Source
from leafiqa.errors import EvidenceError, ImageError, InputError
from leafiqa.evidence.files import Evidence, restrict
from leafiqa.evidence.linking import read_on_common_scale
from leafiqa.evidence.matching import match_to_folder
from leafiqa.evidence.reliability import preferences, targets
from leafiqa.images.decoding import decode
from leafiqa.images.find import find_images
from leafiqa.images.loading import load_ahead
from leafiqa.labels.splits import deal_names
from leafiqa.model.preprocess import Preprocess
from leafiqa.tables import read_table
from leafiqa.training.degradations.nothing import null_image

_NULLS = 300
# Images held out of a source to measure agreement on, at most; and from how many images on any are.
_HELD_OUT_MOST = 200
_HELD_OUT_FROM = 50


@dataclass
class TrainingData:
    """Everything a run trains on.

    Attributes:
        images: `N` images with evidence, `(3, h, w)` uint8 each, of the area of `Config.stored`.
        targets: `(N,)` the teacher's scores in [0, 1], NaN for images that it only compared.
        reliabilities: `(N,)` of the scores, in [0, 1].
        source: `(N,)` index of the source of each image.
        pairs: `(P, 2)` indices of images that the teacher compared.
        preferences: `(P,)` probability that the first of each pair is the better.
        pair_reliabilities: `(P,)` of the preferences, in [0, 1].
        pristine: undistorted photographs without evidence, `(3, h, w)` uint8 each.
        nulls: pictures of nothing, `(3, h, w)` uint8 each.
        unreadable: names of images that could not be used, with the reason.
        skipped: lines of evidence that could not be used, with the reason.
        digest: of the names, judgments and pixels: tells whether a checkpoint is of the same evidence and images.
    """

    images: list[Tensor] = field(default_factory=list)
    targets: Tensor = field(default_factory=lambda: torch.empty(0))
    reliabilities: Tensor = field(default_factory=lambda: torch.empty(0))
    source: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    pairs: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.long))
    preferences: Tensor = field(default_factory=lambda: torch.empty(0))
    pair_reliabilities: Tensor = field(default_factory=lambda: torch.empty(0))
    pristine: list[Tensor] = field(default_factory=list)
    nulls: list[Tensor] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    digest: str = ""


@dataclass(frozen=True)
class SourceEvidence:
    """A source's evidence on the files as they are now.

    Attributes:
        evidence: what is learned from.
        held_out: the teacher's scores in [0, 1] of images that are not learned from, by name.
        remarks: a sentence for each file that was replaced since it was judged, and one for those that were moved.
    """

    evidence: Evidence
    held_out: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_splits(source: Source) -> dict[str, str]:
    """Return the split of each image that the source's table names; nothing without a table.

    Raises:
        EvidenceError: the table cannot be read, or lacks the columns image and split.
    """
    if source.table is None:
        return {}
    try:
        table = read_table(source.table)
        image, split = table.column("image"), table.column("split")
    except InputError as error:
        raise EvidenceError(f"source {source.name!r}: {error}") from error
    if image is None or split is None or not table.rows:
        raise EvidenceError(
            f"source {source.name!r}: table {source.table} must have rows with columns image and split, "
            f"it has {table.columns if table.rows else 'no rows'}"
        )
    return {source.table_prefix + name: row[split].strip() for row in table if (name := row[image].strip())}


def read_source(config: Config, source: Source, left_out: int | None = None) -> SourceEvidence:
    """Read a source's evidence, on its train images that are not held out.

    Files that were moved since they were judged are found by their content, and judgments of files that were replaced
    are left out, before anything is split.

    Args:
        config: the run.
        source: the source.
        left_out: number of the cross-validation fold, of `config.crossfit`, that is left out too; None leaves none out.

    Raises:
        EvidenceError: nothing usable is left.
    """
    matched = match_to_folder(read_on_common_scale(source.evidence, config.common), source.images)
    evidence = matched.evidence
    keep = set(evidence.images)
    others: set[str] = set()
    if source.table is not None:
        splits = read_splits(source)
        before = {now: then for then, now in matched.moved.items()}
        of = {name: splits.get(name, splits.get(before.get(name, ""), "")) for name in keep}
        others = {name for name, split in of.items() if split and split != "train"}
        keep = {name for name, split in of.items() if split == "train"}
    scored = set(targets(restrict(evidence, keep)))
    if source.table is not None:
        held_out = others & set(targets(restrict(evidence, others)))
    elif config.holdout and len(scored) >= _HELD_OUT_FROM:
        held_out = _draw(scored, round(config.holdout * len(scored)), config.seed)
    else:
        held_out = set()
    held_out = _draw(held_out, _HELD_OUT_MOST, config.seed)
    known = targets(restrict(evidence, held_out))
    keep, scored = keep - held_out, scored - held_out
    if left_out is not None:
        if len(scored) < config.crossfit:
            raise EvidenceError(
                f"source {source.name!r} has {len(scored)} images with scores, too few for crossfit = {config.crossfit}"
            )
        keep = keep - deal_names(scored, config.crossfit, config.seed)[left_out]
    kept = restrict(evidence, keep)
    if not kept.images:
        why = "; ".join([*matched.remarks[:3], *(f"{where}: {why}" for where, why in evidence.skipped[:3])])
        raise EvidenceError(
            f"source {source.name!r}: no usable evidence on its train images; do names in evidence and table read "
            f"alike?{f' ({why})' if why else ''}"
        )
    return SourceEvidence(kept, {name: target.score for name, target in known.items()}, matched.remarks)


def _draw(names: set[str], count: int, seed: int) -> set[str]:
    """Return so many of some names, the same for the same seed; all where there are no more."""
    ordered = sorted(names)
    return {ordered[i] for i in np.random.default_rng([seed, 7]).permutation(len(ordered))[:count]}


def pristine_paths(folder: Path, holdout: int, held_out: bool) -> list[Path]:
    """Return the pristine photographs used for training, or those held out for evaluation."""
    paths = [Path(path) for path in find_images(folder, recursive=True)]
    return [path for i, path in enumerate(sorted(paths)) if bool(holdout and i % holdout == 0) == held_out]


def resized(pixels: np.ndarray, look: Preprocess) -> Tensor:
    """Resize `(H, W, 3)` pixels as a student looks at them, to `(3, h, w)` uint8."""
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    return (look.resize(tensor)[0] * 255).round().to(torch.uint8)


def load(
    config: Config, left_out: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """Read evidence and images.

    Args:
        config: the run.
        left_out: number of the cross-validation fold, of `config.crossfit`, whose images are left out; None leaves none
            out.
        progress: called with how many pictures are loaded, and how many there are.

    Raises:
        EvidenceError: a source has no usable evidence or no readable image.
    """
    look = Preprocess(area=(config.stored or config.area) ** 2)
    rng = np.random.default_rng(config.seed)
    judged = hashlib.sha256()
    data = TrainingData()
    scores: list[float] = []
    reliabilities: list[float] = []
    sources: list[int] = []
    compared: list[tuple[int, int, float, float]] = []
    of_sources = [read_source(config, source, left_out) for source in config.sources]
    undistorted: list[Path] = []
    if config.pristine is not None and config.ladders:
        undistorted = pristine_paths(config.pristine, config.pristine_holdout, held_out=False)
    total = sum(len(of.evidence.images) for of in of_sources) + len(undistorted)

    def read(path: Path) -> Tensor | str:
        try:
            return resized(decode(path).pixels, look)
        except ImageError as error:
            return str(error)

    done = 0
    for number, (source, of) in enumerate(zip(config.sources, of_sources)):
        evidence = of.evidence
        data.unreadable += of.remarks
        data.skipped += [f"{where}: {why}" for where, why in evidence.skipped]
        data.skipped += [f"{name}: its last line is cut off" for name in evidence.torn]
        known = targets(evidence)
        index: dict[str, int] = {}
        wanted = sorted(evidence.images if config.pairs else known)
        if not wanted:
            raise EvidenceError(
                f"source {source.name!r} holds comparisons only, and the config has pairs = 0: set pairs = 8"
            )
        for name, picture in zip(wanted, load_ahead(read, (source.images / name for name in wanted))):
            done += 1
            progress(done, total)
            if isinstance(picture, str):
                data.unreadable.append(f"{name}: {picture}")
                continue
            index[name] = len(data.images)
            data.images.append(picture)
            scores.append(known[name].score if name in known else float("nan"))
            reliabilities.append(known[name].reliability if name in known else 0.0)
            sources.append(number)
        if not index:
            raise EvidenceError(
                f"source {source.name!r}: no image with evidence could be read: {data.unreadable[:3]}. Their names "
                f"are relative to `images`, which is {source.images}"
            )
        decided = preferences(evidence) if config.pairs else []
        decided = [pair for pair in decided if pair.first in index and pair.second in index]
        compared += [(index[p.first], index[p.second], p.preference, p.reliability) for p in decided]
        judged.update(repr([[(name, known.get(name)) for name in index], decided]).encode())
    for path, picture in zip(undistorted, load_ahead(read, undistorted)):
        done += 1
        progress(done, total)
        if isinstance(picture, str):
            data.unreadable.append(f"{path.name}: {picture}")
        else:
            data.pristine.append(picture)
    data.nulls = [resized(null_image(512, rng), look) for _ in range(_NULLS)]
    for picture in (*data.images, *data.pristine, *data.nulls):
        judged.update(picture.numpy().tobytes())
    data.targets, data.reliabilities = torch.tensor(scores), torch.tensor(reliabilities)
    data.source = torch.tensor(sources)
    data.pairs = torch.tensor([pair[:2] for pair in compared], dtype=torch.long).reshape(-1, 2)
    data.preferences = torch.tensor([pair[2] for pair in compared])
    data.pair_reliabilities = torch.tensor([pair[3] for pair in compared])
    data.digest = judged.hexdigest()
    return data
