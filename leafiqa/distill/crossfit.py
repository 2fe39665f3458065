"""Second opinions: each image scored by a student that was trained without the teacher's evidence on that image.

A teacher's judgment of an image is right on average and wrong in particular; a student that never saw that judgment
errs differently, so the mean of the two is nearer to what people see than either ("Half teacher, half student",
docs/recipe.md). A student's score of an image that it was trained on would only repeat the teacher's error: hence the
folds. The opinions are ordinary evidence, by name, and may teach other students too. No human score is involved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from leafiqa.distill.config import Config, Source
from leafiqa.distill.data import train_names
from leafiqa.distill.export import export
from leafiqa.distill.folds import fold_names
from leafiqa.distill.processes import Processes
from leafiqa.distill.train import train
from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import append_evidence, read_evidence
from leafiqa.evidence.reliability import Target, targets


def opinion_path(config: Config, source: int, fold: int) -> Path:
    """Return where the second opinions on one fold of one source are kept."""
    return config.output / "crossfit" / f"{config.sources[source].name}_{fold}.jsonl"


def crossfit(
    config: Config, processes: Processes, log: Callable[[str], None], progress: Callable[[int, int], None]
) -> Config:
    """Train a student for each fold on all the others, and let it score its fold.

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
    for fold in range(config.crossfit):
        if all(_is_done(source, opinion_path(config, i, fold)) for i, source in enumerate(config.sources)):
            continue
        log(f"second opinions: training {fold + 1} of {config.crossfit}, without the images it will score")
        part = replace(config, output=config.output / "crossfit" / f"fold{fold}")
        train(part, processes, log, progress, left_out=fold)
        if processes.rank == 0:
            export(part, part.output / f"epoch{part.epochs}.pt", part.output)
            for number, source in enumerate(config.sources):
                _score(part, source, fold, opinion_path(config, number, fold))
        processes.wait()
    sources = tuple(
        replace(source, evidence=(*source.evidence, *(opinion_path(config, i, f) for f in range(config.crossfit))))
        for i, source in enumerate(config.sources)
    )
    return replace(config, sources=sources)


def _known(source: Source) -> dict[str, Target]:
    return targets(read_evidence(list(source.evidence), train_names(source)))


def _digest(known: dict[str, Target]) -> str:
    """Return what tells the evidence that opinions were formed by from other evidence."""
    return hashlib.sha256(repr(sorted(known.items(), key=lambda item: item[0])).encode()).hexdigest()[:16]


def _is_done(source: Source, path: Path) -> bool:
    """Tell whether a fold has its second opinions.

    Raises:
        EvidenceError: it has, of other evidence than there is now.
    """
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    if first and json.loads(first).get("evidence") != _digest(_known(source)):
        raise EvidenceError(
            f"{path} holds second opinions by other evidence than there is now: put that back to go on, or choose "
            "another output"
        )
    return True


def _score(config: Config, source: Source, fold: int, path: Path) -> None:
    """Write the scores of a fold's images by the student that did not see them, all or none."""
    import leafiqa
    from leafiqa.folder.pipeline import score_files

    known = _known(source)
    chosen = sorted(fold_names(known, config.crossfit, config.seed)[fold])
    metric = leafiqa.create_metric(weights=config.output, device=config.device)
    # As much as one judgment by the teacher of its usual reliability.
    confidence = round(float(np.mean([target.reliability for target in known.values()])), 4)
    records = [
        {
            "kind": "point",
            "image": name,
            "score": round(row.score, 5),
            "scale": [0, 1],
            "confidence": confidence,
            "teacher": f"{metric.metric_name} {metric.card.short_hash}, trained without this image",
            "evidence": _digest(known),
        }
        for name, row in zip(chosen, score_files(metric, [str(source.images / name) for name in chosen]))
        if row.score is not None  # training left unreadable images out as well, and has said so
    ]
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    append_evidence(temporary, records)
    os.replace(temporary, path)
