"""Fine-tuning as a rung of calibration: what it learns from, and whether it is worth it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from leafiqa.calibration.cross_validation import HeldOut, Labels, choose, clearly_better
from leafiqa.calibration.damage import keep_order_of_damage, looks_taken
from leafiqa.calibration.fine_tuning import JUDGED_PACE, LABELS_PACE, fine_tune, predict
from leafiqa.calibration.fit import Fit, fit_scale
from leafiqa.calibration.lent_head import LENT_HEAD
from leafiqa.calibration.merging import with_fit
from leafiqa.calibration.teacher_labels import Judged, lend
from leafiqa.labels.splits import deal_folds
from leafiqa.model.student import Student
from leafiqa.training.averaging import average_states, between

_FULL_FOLDS = 3
# How much of the way from the beginning is gone in the end: on `val` nearly as good as any more of it for the kind of
# picture that was learned, or better where labels were few, and much better for the others.
_PART = 0.25
# Scores of 0 and 1 have no logit.
_EDGE = 1e-6


@dataclass(frozen=True)
class Material:
    """What fine-tuning learns from.

    Attributes:
        student: where it begins.
        labels: the labelled images.
        images: the same as `prepare_images` returns them.
        judged: images that a teacher judged and nobody rated, None for none.
        rungs: what may be fitted before.
        seed: seeds all of it.
        runs: trainings, in different order, whose weights are averaged.
        lent: whether what it begins at is fitted to the lent scores, too.
    """

    student: Student
    labels: Labels
    images: list[torch.Tensor]
    judged: Judged | None
    rungs: tuple[str, ...]
    seed: int
    runs: int = 1
    lent: bool = False

    def part(self, kept: NDArray[np.bool_]) -> Material:
        """Return what is left with some of the labels; the images of the others are not learned from at all.

        It is for cross-validation, where one training has to do.
        """
        judged = None if self.judged is None else self.judged.part(kept)
        images = [self.images[i] for i in np.flatnonzero(kept)]
        return replace(self, labels=self.labels.part(kept), images=images, judged=judged, runs=1)

    def steps(self, labelled: int, runs: int = 1) -> int:
        """Return how many images trainings on that many labels take, and what follows them, repeats counted."""
        images, pace = labelled, LABELS_PACE
        if self.judged is not None:
            images, pace = labelled + len(self.judged.images), JUDGED_PACE
        return runs * pace.epochs * images + looks_taken(images)

    def tune(self, advance: Callable[[int], None] = lambda count: None) -> tuple[Student, Fit]:
        """Return the fine-tuned student, and the simpler fit that it began at."""
        labels, learned = self.labels, self.labels
        images, pace = self.images, LABELS_PACE
        if self.judged is not None:
            learned = lend(labels, self.judged, self.rungs, self.seed)
            images, pace = images + self.judged.images, JUDGED_PACE
        fit = LENT_HEAD.fit(learned) if self.lent else choose(labels, self.rungs, self.seed).fit(labels)
        start = with_fit(self.student, fit)
        tuned = [
            fine_tune(start, images, learned.targets, learned.weights, self.seed + run, advance, pace)
            for run in range(self.runs)
        ]
        state = average_states([student.state_dict() for student in tuned])
        tuned[0].load_state_dict(between(start.state_dict(), state, _PART))
        return keep_order_of_damage(tuned[0], self.student, fit, images, self.seed, advance), fit


def try_full(material: Material, tuning: Callable[[int, int], None]) -> tuple[Student | None, HeldOut]:
    """Return the fine-tuned student, None if it is not clearly better, and what is held out of what is chosen."""
    labels = material.labels
    fold = deal_folds(labels.groups, _FULL_FOLDS, material.seed + 2)
    held_out = {"simple": np.empty(len(labels)), "full": np.empty(len(labels))}
    order = np.empty(len(labels))
    slope = fit_scale(labels.logits, labels.targets, labels.weights).slope
    # The training of each fold, and once more on all labels.
    total = sum(material.steps(int((fold != number).sum())) for number in np.unique(fold))
    total += material.steps(len(labels), material.runs)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tuning(done, total)

    for number in np.unique(fold):
        out = fold == number
        student, fit = material.part(~out).tune(advance)
        held_out["simple"][out] = fit.predict(labels.logits[out], labels.features[out])
        order[out] = fit.order(labels.logits[out], labels.features[out], slope)
        held_out["full"][out] = predict(student, [material.images[i] for i in np.flatnonzero(out)])
    errors = {name: labels.errors(values) for name, values in held_out.items()}
    if not clearly_better(errors["full"], errors["simple"], labels.groups):
        return None, HeldOut(held_out["simple"], order)
    edged = np.clip(held_out["full"], _EDGE, 1 - _EDGE)
    return material.tune(advance)[0], HeldOut(held_out["full"], np.log(edged / (1 - edged)))
