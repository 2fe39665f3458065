"""How far off readers are on pictures of repositories that they did not learn from: the errors that `leaf` is to state.

A student is nearer to its teacher on `val` of the sources that it learned from than on pictures of any other origin. So
its readers learn several times, each time without a part of the repositories of `benchmarks.varied_pictures`, and are
asked about these. Their errors count beside those on held-out pictures, as many of each kind as of every other source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.readers import Material, learn_together, mean_residual
from benchmarks.varied_pictures import read_table
from leafiqa.distillation.aspects import HeldOut
from leafiqa.distillation.config import Config
from leafiqa.distillation.data import SourceEvidence
from leafiqa.evidence.reliability import targets
from leafiqa.model.head import Experts
from leafiqa.model.student import Student

FOLDS, RUNS, LINEAR_RUNS = 4, 2, 1
# As many as `leafiqa distill` holds out of a source at most.
OF_EACH = 200


def origins_of(sources: Sequence[SourceEvidence]) -> list[str]:
    """Return the repository of each judged picture, in the material's order; nothing where it is of no varied one."""
    known = {row["image"]: row["repository"] for row in read_table()}
    return [known.get(name, "") for source in sources for name in sorted(targets(source.evidence))]


def folds_of(origins: Sequence[str], seed: int) -> Tensor:
    """Return the fold of each picture, `(n,)`; those of one repository are in the same, those of none in none (-1)."""
    names = sorted(set(origins) - {""})
    order = np.random.default_rng([seed, 9]).permutation(len(names))
    fold = {names[place]: number % FOLDS for number, place in enumerate(order)}
    return torch.tensor([fold.get(origin, -1) for origin in origins])


def errors_elsewhere(
    config: Config,
    student: Student,
    material: Material,
    origins: Sequence[str],
    degraded_from: Tensor,
    beside: nn.Module | None,
) -> list[HeldOut]:
    """Return what readers make of pictures of repositories that they did not learn from.

    Args:
        config: the run.
        student: the student whose readers they begin at; it does not change.
        material: what they learn from, but for the repositories left out.
        origins: the repository of each picture of the material.
        degraded_from: of which picture each damaged one was made.
        beside: another head that counts in the mean; it must not have learned from any of the repositories.
    """
    head = student.head
    if not isinstance(head, Experts):
        raise SystemExit("the student must have several readers and a gate")
    folds = folds_of(origins, config.seed)
    logits = torch.full((len(origins),), float("nan"))
    for fold in range(FOLDS):
        left = folds == fold
        known = material.part(~left, ~left[degraded_from])
        together, _ = learn_together(config, head, known, beside, RUNS, LINEAR_RUNS)
        with torch.no_grad():
            shift = mean_residual(together(known.features).squeeze(1), known)
            logits[left] = together(material.features[left]).squeeze(1) + shift
    rng = np.random.default_rng([config.seed, 10])
    chosen: list[int] = []
    for source in material.source[folds >= 0].unique():
        places = torch.nonzero((material.source == source) & (folds >= 0)).squeeze(1).numpy()
        chosen += sorted(rng.permutation(places)[:OF_EACH].tolist())
    return [HeldOut(logits[place], material.features[place], material.targets[place]) for place in chosen]
