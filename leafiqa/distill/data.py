"""Pictures and targets of a distillation run, resized once and held in memory as uint8."""

from __future__ import annotations

import csv
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leafiqa.distill.config import Config, Source
from leafiqa.distill.degradations import DEGRADATIONS, LEVELS, ladder, null_image
from leafiqa.distill.folds import fold_names
from leafiqa.errors import EvidenceError, ImageError
from leafiqa.evaluate.table import find_column
from leafiqa.evidence.files import Evidence, read_evidence
from leafiqa.evidence.present import fit_to_folder
from leafiqa.evidence.reliability import preferences, targets
from leafiqa.images.decode import decode
from leafiqa.model.resize import resize

# Of the images that the teacher likes, how many also get a severity ladder, and from which score on.
_LADDERS_PER_SOURCE = 250
_GOOD_SCORE = 0.65
_NULLS = 300


@dataclass
class TrainingData:
    """Everything a run trains on.

    Attributes:
        images: `(N, 3, S, S)` uint8, images with evidence.
        targets: `(N,)` the teacher's scores in [0, 1], NaN for images that it only compared.
        reliabilities: `(N,)` of the scores, in [0, 1].
        source: `(N,)` index of the source of each image.
        pairs: `(P, 2)` indices of images that the teacher compared.
        preferences: `(P,)` probability that the first of each pair is the better.
        pair_reliabilities: `(P,)` of the preferences, in [0, 1].
        ladders: `(L, 6, 3, S, S)` uint8, a picture and its degradations, mildest first.
        nulls: `(M, 3, S, S)` uint8, pictures of nothing.
        unreadable: names of images that could not be used, with the reason.
        skipped: lines of evidence that could not be used, with the reason.
        digest: of the names, judgments and pixels: tells whether a checkpoint is of the same evidence and images.
    """

    images: Tensor
    targets: Tensor
    reliabilities: Tensor
    source: Tensor
    pairs: Tensor
    preferences: Tensor
    pair_reliabilities: Tensor
    ladders: Tensor
    nulls: Tensor
    unreadable: list[str]
    skipped: list[str]
    digest: str


def train_names(source: Source) -> set[str] | None:
    """Return the names that the source's table puts in the `train` split, None without a table."""
    if source.table is None:
        return None
    try:
        with source.table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvidenceError(f"source {source.name!r}: cannot read table {source.table}: {error}") from error
    columns = [name for name in rows[0] if name] if rows else []
    image, split = find_column(columns, ("image",)), find_column(columns, ("split",))
    if image is None or split is None:
        raise EvidenceError(
            f"source {source.name!r}: table {source.table} must have rows with columns image and split, "
            f"it has {columns or 'no rows'}"
        )
    cells = [((row[image] or "").strip(), (row[split] or "").strip()) for row in rows]
    return {source.table_prefix + name for name, part in cells if name and part == "train"}


def square(pixels: np.ndarray, side: int) -> Tensor:
    """Resize `(H, W, 3)` pixels to a `(3, side, side)` uint8 tensor."""
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    return (resize(tensor, side, side)[0] * 255).round().to(torch.uint8)


def pristine_paths(folder: Path, holdout: int, held_out: bool) -> list[Path]:
    """Return the pristine photographs used for training, or those held out for evaluation."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    return [path for i, path in enumerate(paths) if bool(holdout and i % holdout == 0) == held_out]


def read_source(config: Config, source: Source, left_out: int | None) -> tuple[Evidence, list[str]]:
    """Read a source's evidence on its train images, without that on one of the config's folds if so asked.

    Returns:
        The evidence, and a sentence for each image whose file was replaced since it was judged, or moved.

    Raises:
        EvidenceError: nothing usable is left.
    """
    keep = train_names(source)
    evidence = read_evidence(list(source.evidence), keep)
    if left_out is None:
        return fit_to_folder(evidence, source.images)
    scored = set(targets(evidence))
    if len(scored) < config.crossfit:
        raise EvidenceError(
            f"source {source.name!r} has {len(scored)} images with scores, too few for crossfit = {config.crossfit}"
        )
    keep = evidence.images - fold_names(scored, config.crossfit, config.seed)[left_out]
    return fit_to_folder(read_evidence(list(source.evidence), keep), source.images)


def load(config: Config, left_out: int | None = None) -> TrainingData:
    """Read evidence and images, and make the ladders.

    Args:
        config: the run.
        left_out: number of the fold, of `config.crossfit`, whose images are left out; None leaves none out.

    Raises:
        EvidenceError: a source has no usable evidence or no readable image.
    """
    side = config.area
    images: list[Tensor] = []
    scores: list[float] = []
    reliabilities: list[float] = []
    sources: list[int] = []
    compared: list[tuple[int, int, float, float]] = []
    unreadable: list[str] = []
    skipped: list[str] = []
    ladder_jobs: list[tuple[Path, str, int]] = []
    rng = np.random.default_rng(config.seed)
    names = list(DEGRADATIONS)

    judged = hashlib.sha256()

    def read(path: Path) -> Tensor | str:
        try:
            return square(decode(path).pixels, side)
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        for number, source in enumerate(config.sources):
            evidence, stale = read_source(config, source, left_out)
            unreadable += stale
            skipped += [f"{where}: {why}" for where, why in evidence.skipped]
            skipped += [f"{name}: its last line is cut off" for name in evidence.torn]
            known = targets(evidence)
            index: dict[str, int] = {}
            wanted = sorted(evidence.images if config.pairs else known)
            if not evidence.images:
                raise EvidenceError(f"source {source.name!r}: every judged file was replaced since: {stale[:3]}")
            if not wanted:
                raise EvidenceError(
                    f"source {source.name!r} holds comparisons only, and the config has pairs = 0: set pairs = 8"
                )
            places = [source.images / name for name in wanted]
            for name, picture in zip(wanted, pool.map(read, places)):
                if isinstance(picture, str):
                    unreadable.append(f"{name}: {picture}")
                    continue
                index[name] = len(images)
                images.append(picture)
                scores.append(known[name].score if name in known else float("nan"))
                reliabilities.append(known[name].reliability if name in known else 0.0)
                sources.append(number)
            if not index:
                raise EvidenceError(
                    f"source {source.name!r}: no image with evidence could be read: {unreadable[:3]}. Their names "
                    f"are relative to `images`, which is {source.images}"
                )
            decided = preferences(evidence) if config.pairs else []
            decided = [pair for pair in decided if pair.first in index and pair.second in index]
            compared += [(index[p.first], index[p.second], p.preference, p.reliability) for p in decided]
            judged.update(repr([[(name, known.get(name)) for name in index], decided]).encode())
            good = [name for name, place in index.items() if scores[place] >= _GOOD_SCORE]
            chosen = rng.permutation(len(good))[:_LADDERS_PER_SOURCE]
            ladder_jobs += [
                (source.images / good[i], names[j % len(names)], config.seed + j) for j, i in enumerate(chosen)
            ]
        if config.pristine is not None:
            for j, path in enumerate(pristine_paths(config.pristine, config.pristine_holdout, held_out=False)):
                ladder_jobs += [(path, name, config.seed + j) for name in names]

        def make(job: tuple[Path, str, int]) -> Tensor | str:
            path, name, seed = job
            try:
                pixels: np.ndarray = decode(path).pixels
            except ImageError as error:
                return f"{path.name}: {error}"
            if pixels.dtype != np.uint8:  # deeper than eight bits: floats in [0, 1]
                pixels = (pixels * 255).round().astype(np.uint8)
            return torch.stack([square(step, side) for step in ladder(pixels, name, seed)])

        made = list(pool.map(make, ladder_jobs))
    ladders = [one for one in made if not isinstance(one, str)]
    unreadable += sorted({one for one in made if isinstance(one, str)})
    nulls = [square(null_image(512, rng), side) for _ in range(_NULLS)]
    for picture in (*images, *ladders, *nulls):
        judged.update(picture.numpy().tobytes())
    return TrainingData(
        images=torch.stack(images),
        targets=torch.tensor(scores),
        reliabilities=torch.tensor(reliabilities),
        source=torch.tensor(sources),
        pairs=torch.tensor([pair[:2] for pair in compared], dtype=torch.long).reshape(-1, 2),
        preferences=torch.tensor([pair[2] for pair in compared]),
        pair_reliabilities=torch.tensor([pair[3] for pair in compared]),
        ladders=torch.stack(ladders) if ladders else torch.zeros(0, LEVELS + 1, 3, side, side, dtype=torch.uint8),
        nulls=torch.stack(nulls),
        unreadable=unreadable,
        skipped=skipped,
        digest=judged.hexdigest(),
    )
