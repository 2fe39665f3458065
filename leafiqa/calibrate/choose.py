"""Choose a rung of calibration by group-aware cross-validation, with a bias to the simpler one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leafiqa.calibrate.fit import Array, Fit, fit_head, fit_scale

RIDGES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
_FOLDS = 5
# A residual on hundreds of features wants more labels than this to be considered at all.
_HEAD_LEAST = 20


@dataclass(frozen=True)
class Choice:
    """A rung with its regularisation.

    Attributes:
        rung: "scale" or "head".
        ridge: strength of the pull of the head's residual towards zero; None for the scale.
    """

    rung: str
    ridge: float | None = None

    def fit(self, logits: Array, features: Array, targets: Array, weights: Array) -> Fit:
        """Fit this rung."""
        scale = fit_scale(logits, targets, weights)
        if self.ridge is None:
            return scale
        return fit_head(logits, features, targets, weights, self.ridge, scale)


def folds(groups: NDArray[np.str_], count: int, seed: int) -> NDArray[np.intp]:
    """Deal images to folds, all of a group to one, the folds as equal in size as that allows.

    Args:
        groups: `(n,)` names; images of one name stay together.
        count: number of folds; fewer are made where there are fewer groups.
        seed: seeds the dealing.

    Returns:
        `(n,)` the fold of each image.
    """
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count = min(count, len(names))
    filled = np.zeros(count)
    fold_of = np.empty(len(names), dtype=np.intp)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    # Large groups first, each to the emptiest fold.
    for name in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[name] = np.argmin(filled)
        filled[fold_of[name]] += sizes[name]
    return fold_of[member]


def held_out(
    choice: Choice, logits: Array, features: Array, targets: Array, weights: Array, fold: NDArray[np.intp]
) -> Array:
    """Return each image's prediction by a fit on the other folds."""
    predictions = np.empty(len(targets))
    for number in np.unique(fold):
        out = fold == number
        fit = choice.fit(logits[~out], features[~out], targets[~out], weights[~out])
        predictions[out] = fit.predict(logits[out], features[out])
    return predictions


def candidates(n: int, rungs: tuple[str, ...]) -> list[Choice]:
    """Return the choices to consider for `n` labels, simplest first."""
    found = [Choice("scale")] if "scale" in rungs or n < _HEAD_LEAST else []
    if "head" in rungs and n >= _HEAD_LEAST:
        found += [Choice("head", ridge) for ridge in RIDGES]
    return found


def choose(
    logits: Array,
    features: Array,
    targets: Array,
    weights: Array,
    groups: NDArray[np.str_],
    rungs: tuple[str, ...] = ("scale", "head"),
    seed: int = 0,
) -> Choice:
    """Choose the rung that predicts held-out labels best, a complex one only if it is better beyond doubt.

    The head with the smallest held-out squared error is taken over the scale if its error is smaller by more than
    one standard error of the paired differences between images.
    """
    fold = folds(groups, _FOLDS, seed)
    errors: dict[Choice, Array] = {}
    for choice in candidates(len(targets), rungs):
        predicted = held_out(choice, logits, features, targets, weights, fold)
        errors[choice] = weights * (predicted - targets) ** 2
    best = min(errors, key=lambda choice: errors[choice].mean())
    simplest = next(iter(errors))
    if best.rung != simplest.rung:
        gain = errors[simplest] - errors[best]
        if gain.mean() <= gain.std(ddof=1) / np.sqrt(len(gain)):
            return simplest
    return best


def expected(
    logits: Array,
    features: Array,
    targets: Array,
    weights: Array,
    groups: NDArray[np.str_],
    rungs: tuple[str, ...] = ("scale", "head"),
    seed: int = 0,
) -> Array:
    """Return a held-out prediction of each image by the whole procedure, the choice of rung included.

    The choice is made anew within each outer fold, on its training part only, so that comparing these predictions
    with the labels says what accuracy to expect on other images like these.
    """
    fold = folds(groups, _FOLDS, seed + 1)
    predictions = np.empty(len(targets))
    for number in np.unique(fold):
        out = fold == number
        kept = (logits[~out], features[~out], targets[~out], weights[~out] / weights[~out].mean())
        choice = choose(*kept, groups[~out], rungs, seed)
        predictions[out] = choice.fit(*kept).predict(logits[out], features[out])
    return predictions
