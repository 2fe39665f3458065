"""The whole of a distillation: checks, second opinions where asked for, training, the student and its agreement."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leafiqa.distillation.config import Config
from leafiqa.distillation.curves import plot_curves
from leafiqa.distillation.data import read_source
from leafiqa.distillation.exporting import export, student_name
from leafiqa.distillation.second_opinions import collect_second_opinions
from leafiqa.distillation.start import begin
from leafiqa.distillation.training_loop import Heartbeat, epoch_path, train
from leafiqa.evaluation.measures import Agreement, agreement
from leafiqa.files import locked, sha256_if_readable, write_whole
from leafiqa.metric import Metric, load_metric
from leafiqa.model.card import Card, read_card
from leafiqa.model.checkpoint import check_free, load_student
from leafiqa.model.places import resolve_text
from leafiqa.scoring.pipeline import score_files
from leafiqa.training.optimisation import freeze, own_random_numbers
from leafiqa.training.processes import Processes, connect

_FINISHED = "finished.json"


@dataclass
class Distillation:
    """A distilled student.

    Attributes:
        card: its card.
        path: its `.safetensors` file.
        before: for each source with held-out images, how well the student that training began at agrees with the
            teacher on them; empty where it began at no student.
        after: the same of the distilled student.
    """

    card: Card
    path: Path
    before: dict[str, Agreement] = field(default_factory=dict)
    after: dict[str, Agreement] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """The student as a metric, loaded from its file."""
        return load_metric(weights=self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return name, file, hash and agreement, ready for JSON."""
        return {
            "name": self.card.name,
            "path": str(self.path),
            "sha256": self.card.sha256,
            "before": {name: asdict(of) for name, of in self.before.items()},
            "after": {name: asdict(of) for name, of in self.after.items()},
        }

    def __str__(self) -> str:
        lines = [f"{self.card.name}, weights {self.card.short_hash}: {self.path}"]
        for name, of in self.after.items():
            lines.append(f"agreement with the teacher on held-out images of {name}")
            if name in self.before:
                lines.append(f"  before  {self.before[name]}")
            lines.append(f"  after   {of}")
        if not self.after:
            lines.append("no images were held out, so how well it agrees with the teacher is not known")
        return "\n".join(lines)


def distil(
    config: Config,
    processes: Processes | None = None,
    log: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda step, total: None,
    *,
    overwrite: bool = False,
) -> Distillation | None:
    """Distil a student from a teacher's evidence and write it into `config.output`.

    Killed at any moment, the same call goes on from the last checkpoint and ends as an undisturbed run ends. Finished,
    it returns what there is without loading any image.

    Args:
        config: what to do, as `leafiqa.distillation.config.read_config` reads it or made in Python.
        processes: those that share the run; None means those that accelerate or torchrun started, else this one alone.
        log: takes lines for the reader.
        progress: called with the step reached and the number of steps, of one training after the other.
        overwrite: whether a student of that name in `config.output` that is not this run's may be replaced.

    Returns:
        The student; None in all processes but the first, which writes the files.

    Raises:
        EvidenceError: the evidence, images or config cannot be used, or a checkpoint is of another run.
        TrainingError: the training cannot be done as asked, or failed.
        WeightsError: the student that training is to begin at cannot be found or read.
        OutputError: there is another student of that name in `config.output`, or another process trains into it.
    """
    name = student_name(config)
    processes = connect(config.device) if processes is None else processes
    if (done := _finished(config, name)) is not None:
        log("finished already, on this evidence and config")
        return done if processes.rank == 0 else None
    held = contextlib.nullcontext() if processes.rank else locked(config.output)
    # Also building a network, which is then filled, draws random numbers.
    with held, own_random_numbers(config.seed, processes.device):
        return _distil(config, name, processes, log, progress, overwrite)


def _distil(
    config: Config,
    name: str,
    processes: Processes,
    log: Callable[[str], None],
    progress: Callable[[int, int], None],
    overwrite: bool,
) -> Distillation | None:
    # What is wrong with the config shows before hours are spent on loading and training.
    freeze(begin(config).student, config.freeze)
    if not (config.output / "checkpoint.pt").exists():  # else it is this run's own, or training says that it is not
        check_free(config.output, name, overwrite)
    sources = [read_source(config, source) for source in config.sources]
    processes.wait()
    proper = collect_second_opinions(config, processes, log, progress) if config.crossfit else config
    train(proper, processes, log, progress)
    if processes.rank:
        return None
    state = epoch_path(config, config.epochs)
    card = export(config, state, config.output, overwrite=True, log=log, progress=progress)
    if not plot_curves(config.output / "losses.csv", config.output / "losses.png"):
        log("losses.png is not drawn: it takes matplotlib (pip install matplotlib) and more than 20 steps")
    held_out = {
        source.name: {source.images / image: score for image, score in of.held_out.items()}
        for source, of in zip(config.sources, sources)
    }
    result = Distillation(card, config.output / f"{card.name}.safetensors")
    result.after = _agreements(result.metric.to(processes.device), held_out, log)
    if config.begins_at_student:
        result.before = _agreements(_initial(config).to(processes.device), held_out, log)
    _finish(config, result)
    return result


def _initial(config: Config) -> Metric:
    file, card = resolve_text(config.initial)
    return Metric(load_student(file, card), card)


def _agreements(
    metric: Metric, held_out: dict[str, dict[Path, float]], log: Callable[[str], None]
) -> dict[str, Agreement]:
    """Return a metric's agreement with the teacher's scores of images that were not learned from."""
    found = {}
    measuring = Heartbeat(log)
    for name, teacher in held_out.items():
        scores, teachers = [], []
        for number, (row, score) in enumerate(zip(score_files(metric, map(str, teacher)), teacher.values()), 1):
            measuring(f"measuring on held-out images: {number} of {len(teacher)}")
            if row.score is not None:
                scores.append(row.score)
                teachers.append(score)
        if len(scores) >= 3:
            found[name] = agreement(np.array(scores), np.array(teachers))
    return found


def _inputs(config: Config) -> dict[str, str | None]:
    """Return what tells that evidence and tables are as they were."""
    of_sources = [file for source in config.sources for file in (*source.evidence, source.table)]
    files = [file for file in (*of_sources, *config.common) if file is not None]
    return {str(file): sha256_if_readable(file) for file in files}


def _finish(config: Config, result: Distillation) -> None:
    """Note that the run is finished, and remove what only going on with it takes."""
    marker = {"config": config.fingerprint(), "inputs": _inputs(config), **result.to_dict()}
    write_whole(config.output / _FINISHED, json.dumps(marker, indent=2) + "\n")
    if not config.keep_checkpoints:
        for file in (config.output / "checkpoint.pt", epoch_path(config, config.epochs)):
            file.unlink(missing_ok=True)


def _finished(config: Config, name: str) -> Distillation | None:
    """Return the result of this very run, None if it is not finished."""
    marker, path = config.output / _FINISHED, config.output / f"{name}.safetensors"
    if not marker.is_file() or not path.is_file():
        return None
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = known.get("config") == config.fingerprint() and known.get("inputs") == _inputs(config)
    if not same or known.get("sha256") != sha256_if_readable(path):
        return None
    sides = [{source: _agreement(of) for source, of in known[side].items()} for side in ("before", "after")]
    return Distillation(read_card(path.with_suffix(".json")), path, *sides)


def _agreement(fields: dict[str, Any]) -> Agreement:
    """Return an agreement out of JSON, where intervals are lists."""
    values: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in fields.items()}
    return Agreement(**values)
