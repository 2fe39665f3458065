"""The loop of a distillation: load, train, write checkpoints and the log.

Killed at any moment, the same command goes on from the last checkpoint and ends as an undisturbed run ends.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leafiqa.distillation.checks import check_evidence
from leafiqa.distillation.config import Config
from leafiqa.distillation.data import load
from leafiqa.distillation.trainer import Trainer
from leafiqa.errors import EvidenceError
from leafiqa.model.student import Student
from leafiqa.training.optimisation import own_random_numbers
from leafiqa.training.processes import Processes

_CHECKPOINT_SECONDS = 120
_LOG_STEPS = 20
_HEARTBEAT_SECONDS = 15


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def epoch_path(config: Config, epoch: int) -> Path:
    """Return where the averaged student after an epoch is kept."""
    return config.output / f"epoch{epoch}.pt"


class Heartbeat:
    """Passes a line on now and then, so that something long does not look as if it hung."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._told = log, time.monotonic()

    def __call__(self, line: str) -> None:
        """Say a line, unless one was said a short while ago."""
        if time.monotonic() - self._told > _HEARTBEAT_SECONDS:
            self._told = time.monotonic()
            self._log(line)


def read_checkpoint(config: Config) -> dict[str, Any] | None:
    """Return the state to go on from, None at a fresh start.

    Raises:
        EvidenceError: the checkpoint is of another config.
    """
    path = config.output / "checkpoint.pt"
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != config.fingerprint():
        changed = sorted(name for name, value in config.fingerprint().items() if state["config"].get(name) != value)
        raise EvidenceError(
            f"{path} is of a run with another config ({', '.join(changed)} differ); put those back to go on with it, "
            "or choose another output"
        )
    return state


def train(
    config: Config,
    processes: Processes,
    log: Callable[[str], None],
    progress: Callable[[int, int], None],
    left_out: int | None = None,
) -> Student:
    """Run, or go on with, a distillation and return the averaged student in eval mode.

    Each process reads all images and computes a share of each step; the first one writes the files.

    Args:
        config: what to do.
        processes: those that share the run; they see one file system.
        log: takes lines for the reader.
        progress: called with the step reached and the number of steps.
        left_out: number of the fold, of `config.crossfit`, whose images are left out; None leaves none out.

    Raises:
        EvidenceError: the evidence, images or config cannot be used.
        TrainingError: a gradient became NaN or infinite.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    state = read_checkpoint(config)
    processes.wait()  # until all have read it, before the first one writes the next
    with own_random_numbers(config.seed, processes.device):
        return _train(config, processes, log, progress, left_out, state)


def _train(
    config: Config,
    processes: Processes,
    log: Callable[[str], None],
    progress: Callable[[int, int], None],
    left_out: int | None,
    state: dict[str, Any] | None,
) -> Student:
    began = time.monotonic()
    loading = Heartbeat(log)

    def loaded(done: int, total: int) -> None:
        loading(f"loading images: {done} of {total}")

    data = load(config, left_out, loaded)
    log(
        f"{len(data.images)} images, {int(data.targets.isfinite().sum())} of them with scores, {len(data.pairs)} "
        f"compared pairs, {len(data.pristine)} pristine photographs; loaded in {time.monotonic() - began:.0f} s"
    )
    for kind, problems in (("images that cannot be used", data.unreadable), ("lines of evidence", data.skipped)):
        if problems:
            log(f"left out {len(problems)} {kind}, such as {problems[0]}")
    for doubt in check_evidence(data, config):
        log(doubt)
    if state is not None and state["data"] != data.digest:
        raise EvidenceError(
            f"{config.output / 'checkpoint.pt'} is of a run on other evidence or images: some were added, changed or "
            "lost since. Put them back to go on with it, or choose another output to train on what there is now"
        )
    run = Trainer(config, data, processes, state)
    if run.step:
        log(f"going on from step {run.step} of {run.total}")
    curves, checkpoint = config.output / "losses.csv", config.output / "checkpoint.pt"
    writes = processes.rank == 0
    if writes:
        _forget_after(curves, run.step)
    saved = time.monotonic()
    progress(run.step, run.total)
    while run.step < run.total:
        run.advance()
        progress(run.step, run.total)
        if not writes:
            continue
        if run.step % _LOG_STEPS == 0 or run.step == run.total:
            losses = {name: round(value, 6) for name, value in run.recent.items()}
            _append(curves, ["step", *run.loss_names], {"step": run.step, **losses})
        if run.step % run.steps_per_epoch == 0:
            epoch = run.step // run.steps_per_epoch
            save_atomically(run.optimisation.average.state_dict(), epoch_path(config, epoch))
            if not config.keep_checkpoints:
                epoch_path(config, epoch - 1).unlink(missing_ok=True)
        if time.monotonic() - saved > _CHECKPOINT_SECONDS or run.step == run.total:
            save_atomically({"config": config.fingerprint(), **run.state()}, checkpoint)
            saved = time.monotonic()
    processes.wait()
    return run.optimisation.average.requires_grad_(False)


def _append(path: Path, columns: list[str], row: dict[str, float]) -> None:
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _forget_after(path: Path, step: int) -> None:
    """Drop rows of steps that a killed run had taken after its last checkpoint: they are taken again."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    if not lines:
        return  # killed between opening and writing
    head, *rows = lines
    kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) <= step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(line + "\n" for line in [head, *kept]))
    temporary.replace(path)
