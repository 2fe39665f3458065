"""A teacher's judgments of images that nobody rated, brought to the human scale, to be learned from.

A few human scores say how the teacher's scale relates to the human one. On images that have both, the human score is
fitted by the evidence's score, the student's own and a ridge-regularised function of the student's features; that fit
then estimates a human score for every judged image. Estimated scores are less certain than given ones and weigh less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit
from torch import Tensor

from leafiqa.calibration.cross_validation import Choice, Labels, choose, held_out_errors
from leafiqa.calibration.features import extract
from leafiqa.calibration.fine_tuning import prepare_images
from leafiqa.calibration.fit import Array
from leafiqa.errors import CalibrationError
from leafiqa.files import sha256_if_readable
from leafiqa.metric import Metric

# Fewer images with both scores than this do not tell how the two scales relate.
JUDGED_LEAST = 10
# The same within cross-validation, where some are held out.
_ESTIMATE_LEAST = 5
# Scores of 0 and 1 have no logit.
_EDGE = 0.01
_MOST_SLOPE = 20.0


@dataclass(frozen=True)
class Judged:
    """Images that a teacher judged and nobody rated, and its scores of the rated ones.

    Attributes:
        of_labelled: `(n,)` evidence's scores in [0, 1] of the labelled images, NaN where it has none.
        scores: `(m,)` evidence's scores of the other images.
        logits: `(m,)` the student's logits of them.
        features: `(m, F)` their standardised features.
        images: `m` images as `leafiqa.calibration.fine_tuning.prepare_images` returns them, to fine-tune on; none where
            that is not wanted.
    """

    of_labelled: Array
    scores: Array
    logits: Array
    features: Array
    images: list[Tensor]

    def part(self, kept: np.ndarray) -> Judged:
        """Return the same images beside some of the labelled ones."""
        return replace(self, of_labelled=self.of_labelled[kept])


def gather(
    metric: Metric,
    evidence: Mapping[Path, float],
    labelled: list[Path],
    advance: Callable[[], None] = lambda: None,
    *,
    held_out: Iterable[Path] = (),
    prepared: bool = True,
) -> tuple[Judged, list[str]]:
    """Look at the judged images that have no label.

    Args:
        metric: the metric to be calibrated.
        evidence: scores in [0, 1] by resolved path.
        labelled: the labelled images.
        advance: called once for each judged image that is done.
        held_out: files that nothing may be learned from, nor from copies of them.
        prepared: whether to keep the images themselves, which fine-tuning learns from.

    Returns:
        The judged images, and a sentence for each that cannot be read or is a copy of a labelled or held-out one.

    Raises:
        CalibrationError: too few images have both a label and evidence.
    """
    places = [path.resolve() for path in labelled]
    if (both := len(set(places) & set(evidence))) < JUDGED_LEAST:
        raise CalibrationError(
            f"evidence is of use from {JUDGED_LEAST} images on that have both a label and evidence, got {both}: "
            "are the evidence's names relative to the folder given?"
        )
    labelled_files = {sha256_if_readable(path) for path in places} - {None}
    held_out_files = {sha256_if_readable(path) for path in held_out} - {None}
    others, problems = [], []
    for path in sorted(set(evidence) - set(places)):
        digest = sha256_if_readable(path)
        if digest in held_out_files:
            problems.append(f"{path.name}: the same file as a held-out image: its evidence is left out")
            advance()
        elif digest in labelled_files:
            # Under another name it would be learned from while its label is held out.
            problems.append(f"{path.name}: the same file as a labelled one: its evidence is left out")
            advance()
        else:
            others.append(path)
    extracted = extract(metric, others, advance)
    kept = [others[i] for i in extracted.index]
    judged = Judged(
        of_labelled=np.array([evidence.get(path, np.nan) for path in places]),
        scores=np.array([evidence[path] for path in kept]),
        logits=extracted.logits,
        features=extracted.features,
        images=prepare_images(metric, kept) if prepared else [],
    )
    return judged, problems + [f"{others[i].name}: {why}: left out" for i, why in extracted.errors]


def estimate_labels(labels: Labels, judged: Judged, rungs: tuple[str, ...], seed: int) -> tuple[Array, float]:
    """Estimate human scores of the judged images.

    Args:
        labels: the labelled images, some of them with evidence.
        judged: the others; `of_labelled` has an entry for each of `labels`.
        rungs: what may be fitted, as for `choose`.
        seed: seeds the cross-validation.

    Returns:
        `(m,)` human scores brought to [0, 1], and what one of them weighs against a label: as much less as their
        variance is larger, a label having that of what the student leaves unexplained.

    Raises:
        CalibrationError: hardly any of the labelled images has evidence.
    """
    both = np.isfinite(judged.of_labelled)
    if both.sum() < _ESTIMATE_LEAST:
        raise CalibrationError(
            f"the labels that also have evidence are of few groups: without some of these, {both.sum()} are left, and "
            f"{_ESTIMATE_LEAST} are needed to tell how the teacher's scale relates to people's. Label images of more "
            "groups that the teacher judged, or leave the column group out"
        )
    part = labels.part(both)
    if len(np.unique(part.groups)) < 2:  # nothing to hold out but single images
        part = replace(part, groups=np.arange(len(part)).astype(str))
    teacher = _logit(judged.of_labelled[both])
    mix = _mix(np.stack([teacher, part.logits], axis=1), part.targets, part.weights)
    mixed = replace(part, logits=mix[0] * teacher + mix[1] * part.logits)
    choice = choose(mixed, rungs, seed)
    off = float(held_out_errors([choice], mixed, seed)[choice].mean())
    own = Choice("scale")
    unexplained = float(held_out_errors([own], part, seed)[own].mean())
    estimated = choice.fit(mixed).predict(mix[0] * _logit(judged.scores) + mix[1] * judged.logits, judged.features)
    return estimated, unexplained / (unexplained + off)


def lend(labels: Labels, judged: Judged, rungs: tuple[str, ...], seed: int) -> Labels:
    """Return the labelled images, then the judged ones with the human scores that they are lent, which weigh less.

    See `estimate_labels`, whose arguments these are.

    Raises:
        CalibrationError: hardly any of the labelled images has evidence.
    """
    estimated, weight = estimate_labels(labels, judged, rungs, seed)
    return Labels(
        np.concatenate([labels.logits, judged.logits]),
        np.concatenate([labels.features, judged.features]),
        np.concatenate([labels.targets, estimated]),
        np.concatenate([labels.weights, np.full(len(estimated), weight)]),
        np.concatenate([labels.groups, [f"judged {number}" for number in range(len(estimated))]]),
    )


def _logit(scores: Array) -> Array:
    return logit(np.clip(scores, _EDGE, 1 - _EDGE))


def _mix(inputs: Array, targets: Array, weights: Array) -> Array:
    """Return non-negative factors `(k,)` on inputs `(n, k)`, with which, and an offset, their sum fits the targets."""
    root = np.sqrt(weights)
    count = inputs.shape[1]
    found = least_squares(
        lambda p: root * (expit(inputs @ p[:-1] + p[-1]) - targets),
        [0.5] * count + [0.0],
        bounds=([0.0] * count + [-np.inf], [_MOST_SLOPE] * count + [np.inf]),
        loss="soft_l1",
        f_scale=0.1,
    )
    return found.x[:-1]
