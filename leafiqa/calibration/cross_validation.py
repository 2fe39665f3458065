"""Choose a rung of calibration by group-aware cross-validation, with a bias to the simpler one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leafiqa.calibration.fit import Array, Fit, Span, fit_head, fit_scale, span
from leafiqa.evaluation.measures import Agreement, agreement
from leafiqa.labels.splits import deal_folds

# A student is a prior belief about its features, and how strong that is does not depend on how many labels come after
# it: on both sets of `benchmarks/budgets.py`, for students at home on them and not, the best ridge lay in this range
# whatever the number of labels.
RIDGES = (0.3, 0.15, 0.075, 0.04, 0.02)
# Cross-validation picks weak ridges by accident where labels are few: a ridge half as strong is offered from twice as
# many labels on.
_RIDGE_TIMES_LABELS = 7.5
_FOLDS = 5
# From as many labels as this on a residual on hundreds of features is considered at all.
HEAD_LEAST = 25
# How many standard errors smaller the head's held-out error must be than the scale's. As strong ridges keep the head
# near the scale anyhow, more of a bias than this only wastes labels.
_HEAD_BIAS = 0.5


@dataclass(frozen=True)
class Labels:
    """Labelled images as a frozen student sees them.

    Attributes:
        logits: `(n,)` the student's logits.
        features: `(n, F)` standardised features.
        targets: `(n,)` MOS brought to [0, 1].
        weights: `(n,)` with mean one; larger for more trustworthy labels.
        groups: `(n,)` names; images of one name stay on one side of any split.
    """

    logits: Array
    features: Array
    targets: Array
    weights: Array
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.targets)

    def errors(self, predictions: Array) -> Array:
        """Return each image's weighted squared error, `(n,)`."""
        errors: Array = self.weights * (predictions - self.targets) ** 2
        return errors

    def part(self, kept: NDArray[np.bool_]) -> Labels:
        """Return some of the images, weights again with mean one."""
        weights = self.weights[kept] / self.weights[kept].mean()
        return Labels(self.logits[kept], self.features[kept], self.targets[kept], weights, self.groups[kept])


@dataclass(frozen=True)
class Choice:
    """A rung with its regularisation.

    Attributes:
        rung: "scale", "head" or "full".
        ridge: strength of the pull of the head's residual towards zero; None for the scale.
    """

    rung: str
    ridge: float | None = None

    def fit(self, labels: Labels) -> Fit:
        """Fit the scale, or the head; of `full` it is what fine-tuning begins at."""
        return next(fits([self], labels))


def fits(choices: Iterable[Choice], labels: Labels) -> Iterator[Fit]:
    """Yield the fit of each choice to the same labels; what they have in common is computed once."""
    scale = fit_scale(labels.logits, labels.targets, labels.weights)
    spanned: Span | None = None
    for choice in choices:
        if choice.ridge is None:
            yield scale
        else:
            spanned = span(labels.features) if spanned is None else spanned
            yield fit_head(labels.logits, spanned, labels.targets, labels.weights, choice.ridge, scale)


def held_out(choices: list[Choice], labels: Labels, fold: NDArray[np.intp]) -> dict[Choice, Array]:
    """Return for each choice each image's prediction by a fit on the other folds."""
    predictions = {choice: np.empty(len(labels)) for choice in choices}
    for number in np.unique(fold):
        out = fold == number
        for choice, fit in zip(choices, fits(choices, labels.part(~out))):
            predictions[choice][out] = fit.predict(labels.logits[out], labels.features[out])
    return predictions


def held_out_errors(choices: list[Choice], labels: Labels, seed: int) -> dict[Choice, Array]:
    """Return for each choice each image's weighted squared error, by a fit on other groups."""
    predicted = held_out(choices, labels, deal_folds(labels.groups, _FOLDS, seed))
    return {choice: labels.errors(values) for choice, values in predicted.items()}


def candidates(n: int, rungs: tuple[str, ...]) -> list[Choice]:
    """Return the choices to consider for `n` labels, simplest first.

    Where the head alone is allowed, its strongest ridge is always considered: held-out parts of few labels must
    measure the head too, not something else.
    """
    found = [Choice("scale")] if "scale" in rungs else []
    if "head" in rungs and (n >= HEAD_LEAST or not found):
        ridges = [ridge for ridge in RIDGES if ridge * n >= _RIDGE_TIMES_LABELS]
        found += [Choice("head", ridge) for ridge in ridges or RIDGES[:1]]
    return found


def clearly_better(errors: Array, than: Array, groups: NDArray[np.str_], by: float = 1.0) -> bool:
    """Tell whether the mean error is smaller by more than `by` standard errors of the paired differences.

    Images of one group err alike, so that the standard error is that of sums over groups (cluster-robust).

    Args:
        errors: `(n,)` each image's error.
        than: `(n,)` the error that it is compared with.
        groups: `(n,)` names of the images' groups.
        by: how many standard errors.
    """
    gain = than - errors
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, gain - gain.mean())
    count = len(sums)
    if count < 2:
        return False
    error = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(gain)
    return bool(gain.mean() > by * error)


def choose(labels: Labels, rungs: tuple[str, ...] = ("scale", "head"), seed: int = 0) -> Choice:
    """Choose the rung that predicts held-out labels best, a complex one only if it is better beyond accident.

    The head with the smallest held-out squared error is taken over the scale if its error is smaller by more than
    half a standard error of the paired differences between groups of images.
    """
    errors = held_out_errors(candidates(len(labels), rungs), labels, seed)
    best = min(errors, key=lambda choice: errors[choice].mean())
    simplest = next(iter(errors))
    if best.rung != simplest.rung and not clearly_better(errors[best], errors[simplest], labels.groups, _HEAD_BIAS):
        return simplest
    return best


@dataclass(frozen=True)
class HeldOut:
    """What the whole procedure, the choice of rung included, makes of images that it did not learn from.

    Attributes:
        predictions: `(n,)` in [0, 1], each by a fit on other groups.
        order: `(n,)` the same with one slope and no offset for all folds. Folds' fits differ a little in slope and
            offset, against the images that they leave out, so that predictions pooled over folds are in worse order
            than those of any fit.
    """

    predictions: Array
    order: Array


def expected(labels: Labels, rungs: tuple[str, ...] = ("scale", "head"), seed: int = 0) -> HeldOut:
    """Return held-out predictions of each image by the whole procedure, the choice of rung included.

    The choice is made anew within each outer fold, on its training part only, so that comparing these predictions
    with the labels says what accuracy to expect on other images like these.
    """

    def fitted(kept: NDArray[np.bool_]) -> Fit:
        part = labels.part(kept)
        return choose(part, rungs, seed).fit(part)

    return held_out_by(fitted, labels, seed)


def held_out_by(fitted: Callable[[NDArray[np.bool_]], Fit], labels: Labels, seed: int) -> HeldOut:
    """Return what a procedure makes of each image, fitted to images of other groups.

    Args:
        fitted: returns the procedure's fit to some of the labels.
        labels: the labelled images.
        seed: deals the folds, the same for every procedure.
    """
    fold = deal_folds(labels.groups, _FOLDS, seed + 1)
    predictions, order = np.empty(len(labels)), np.empty(len(labels))
    slope = fit_scale(labels.logits, labels.targets, labels.weights).slope
    for number in np.unique(fold):
        out = fold == number
        fit = fitted(~out)
        predictions[out] = fit.predict(labels.logits[out], labels.features[out])
        order[out] = fit.order(labels.logits[out], labels.features[out], slope)
    return HeldOut(predictions, order)


def held_out_agreement(
    held_out: HeldOut,
    labels: Labels,
    score_range: tuple[float, float],
    *,
    seed: int = 0,
    weights: Array | None = None,
) -> Agreement:
    """Return how well held-out predictions agree with the labels, on the human scale.

    Correlations are of the order, brought to the scale by one slope and offset for all images; RMSE is of the
    predictions themselves.

    Args:
        held_out: the predictions.
        labels: the labels, whose groups the intervals are drawn over.
        score_range: ends of the human scale.
        seed: seeds the intervals.
        weights: `(n,)` how many images each stands for; None means that all count alike.
    """
    low, high = score_range
    mos = low + (high - low) * labels.targets
    groups = labels.groups.tolist()
    common = fit_scale(held_out.order, labels.targets, labels.weights).predict(held_out.order, labels.features)
    ordered, predicted = (
        agreement(low + (high - low) * values, mos, seed=seed, groups=groups, weights=weights)
        for values in (common, held_out.predictions)
    )
    return replace(
        ordered, rmse=predicted.rmse, rmse_interval=predicted.rmse_interval, rmse_mapped=predicted.rmse_mapped
    )
