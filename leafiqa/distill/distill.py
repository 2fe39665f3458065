"""The whole of a distillation: second opinions where asked for, training, the student on disk, its curves."""

from __future__ import annotations

from collections.abc import Callable

from leafiqa.distill.config import Config
from leafiqa.distill.crossfit import crossfit
from leafiqa.distill.curves import plot_curves
from leafiqa.distill.export import export, student_name
from leafiqa.distill.processes import Processes, connect
from leafiqa.distill.train import train
from leafiqa.model.card import Card


def distill(
    config: Config,
    processes: Processes | None = None,
    log: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> Card | None:
    """Distil a student from a teacher's evidence and write it into `config.output`.

    Killed at any moment, the same call goes on from the last checkpoint and ends as an undisturbed run ends.

    Args:
        config: what to do, as `leafiqa.distill.config.read_config` reads it or made in Python.
        processes: those that share the run; None means those that accelerate has started, else this one alone.
        log: takes lines for the reader.
        progress: called with the step reached and the number of steps, of one training after the other.

    Returns:
        The card of the student, `config.output / f"{card.name}.safetensors"`; None in all processes but the first,
        which writes the files.

    Raises:
        EvidenceError: the evidence, images or config cannot be used, or a checkpoint is of another run.
        WeightsError: the student that training is to begin at cannot be found or read.

    Example:
        >>> from leafiqa.distill.config import Config, Source
        >>> photos = Source("photos", Path("photos"), (Path("evidence.jsonl"),))
        >>> card = distill(Config(sources=(photos,), output=Path("mine"), epochs=2))
        >>> metric = leafiqa.create_metric(weights=f"mine/{card.name}.safetensors")
    """
    student_name(config)  # a wrong one is found before hours are spent
    processes = connect(config.device) if processes is None else processes
    proper = crossfit(config, processes, log, progress) if config.crossfit else config
    train(proper, processes, log, progress)
    if processes.rank:
        return None
    card = export(config, config.output / f"epoch{config.epochs}.pt", config.output)
    if not plot_curves(config.output / "losses.csv", config.output / "losses.png"):
        log("losses.png is not drawn: it takes matplotlib (pip install 'leafiqa[plot]') and more than 20 steps")
    return card
