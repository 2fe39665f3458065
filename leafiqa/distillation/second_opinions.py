"""Second opinions: each image scored by a student that was trained without the teacher's evidence on that image.

A teacher's judgment of an image is right on average and wrong in particular; a student that never saw that judgment
errs differently, so the mean of the two is nearer to what people see than either ("Half teacher, half student",
docs/experiments.md). A student's score of an image that it was trained on would only repeat the teacher's error: hence
the cross-validation folds. The opinions are ordinary evidence, matched to the files by name and sha256 like all other,
and may teach other students too. No human score is involved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from leafiqa.distillation.config import Config, Source
from leafiqa.distillation.data import read_source
from leafiqa.distillation.exporting import export
from leafiqa.distillation.training_loop import epoch_path, train
from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import append_evidence
from leafiqa.evidence.reliability import Target, targets
from leafiqa.files import sha256_if_readable
from leafiqa.labels.splits import deal_names
from leafiqa.metric import load_metric
from leafiqa.scoring.pipeline import score_files
from leafiqa.training.processes import Processes


def opinions_folder(config: Config) -> Path:
    """Return where a run's second opinions are kept: a folder for each combination of config, evidence and files.

    Opinions of a run with another seed, other rates or other evidence are others, and are made anew beside them.
    """
    known = [_known(config, source) for source in config.sources]
    judged = [sorted(of.items(), key=lambda item: item[0]) for of in known]
    files = [
        [(name, sha256_if_readable(source.images / name)) for name in sorted(of)]
        for source, of in zip(config.sources, known)
    ]
    key = hashlib.sha256(repr([config.fingerprint(), judged, files]).encode()).hexdigest()[:16]
    return config.output / "second_opinions" / key


def opinion_path(folder: Path, source: Source, fold: int) -> Path:
    """Return where the second opinions on one fold of one source are kept."""
    return folder / f"{source.name}_{fold}.jsonl"


def collect_second_opinions(
    config: Config, processes: Processes, log: Callable[[str], None], progress: Callable[[int, int], None]
) -> Config:
    """Train a student for each cross-validation fold on all the others, and let it score its fold.

    What is finished already is not done again, and what was interrupted goes on.

    Args:
        config: a run with `crossfit` of at least 2.
        processes: those that share the run.
        log: takes lines for the reader.
        progress: called with the step reached and the number of steps, of one training after the other.

    Returns:
        The config of the run proper: the same, with the second opinions among its evidence.

    Raises:
        EvidenceError: there are no scores to cross-fit, or the evidence, images or config cannot be used.
    """
    names = [source.name for source in config.sources]
    if len(set(names)) < len(names):
        raise EvidenceError(f"crossfit needs sources of different names, got {names}")
    folder = opinions_folder(config)
    processes.wait()
    for fold in range(config.crossfit):
        if all(opinion_path(folder, source, fold).exists() for source in config.sources):
            continue
        log(f"second opinions: training {fold + 1} of {config.crossfit}, without the images it will score")
        part = replace(config, output=folder / f"fold{fold}", aspects=0)
        train(part, processes, log, progress, left_out=fold)
        if processes.rank == 0:
            export(part, epoch_path(part, part.epochs), part.output, overwrite=True)
            for source in config.sources:
                _score(part, source, fold, opinion_path(folder, source, fold))
            if not config.keep_checkpoints:
                for file in (part.output / "checkpoint.pt", epoch_path(part, part.epochs)):
                    file.unlink(missing_ok=True)
        processes.wait()
    sources = tuple(
        replace(source, evidence=(*source.evidence, *(opinion_path(folder, source, f) for f in range(config.crossfit))))
        for source in config.sources
    )
    return replace(config, sources=sources)


def _known(config: Config, source: Source) -> dict[str, Target]:
    """Return the teacher's scores of the images that are learned from, under the names that they have now."""
    return targets(read_source(config, source).evidence)


def _score(config: Config, source: Source, fold: int, path: Path) -> None:
    """Write the scores of a fold's images by the student that did not see them, all or none."""
    known = _known(config, source)
    if len(known) < config.crossfit:
        raise EvidenceError(
            f"source {source.name!r} has {len(known)} images with scores, too few for crossfit = {config.crossfit}"
        )
    chosen = sorted(deal_names(known, config.crossfit, config.seed)[fold])
    metric = load_metric(weights=config.output, device=config.device)
    # As much as one judgment by the teacher of its usual reliability.
    confidence = round(float(np.mean([target.reliability for target in known.values()])), 4)
    records = [
        {
            "kind": "point",
            "image": name,
            "score": round(row.score, 5),
            "scale": [0, 1],
            "confidence": confidence,
            "sha256": sha256_if_readable(source.images / name),
            "teacher": f"{metric.metric_name} {metric.card.short_hash}, trained without this image",
        }
        for name, row in zip(chosen, score_files(metric, [str(source.images / name) for name in chosen]))
        if row.score is not None  # training left unreadable images out as well, and has said so
    ]
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    append_evidence(temporary, records)
    os.replace(temporary, path)
