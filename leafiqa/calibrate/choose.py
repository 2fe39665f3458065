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
        data = (labels.logits, labels.targets, labels.weights)
        scale = fit_scale(*data)
        if self.ridge is None:
            return scale
        return fit_head(labels.logits, labels.features, labels.targets, labels.weights, self.ridge, scale)


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


def held_out(choice: Choice, labels: Labels, fold: NDArray[np.intp]) -> Array:
    """Return each image's prediction by a fit on the other folds."""
    predictions = np.empty(len(labels))
    for number in np.unique(fold):
        out = fold == number
        predictions[out] = choice.fit(labels.part(~out)).predict(labels.logits[out], labels.features[out])
    return predictions


def candidates(n: int, rungs: tuple[str, ...]) -> list[Choice]:
    """Return the choices to consider for `n` labels, simplest first."""
    found = [Choice("scale")] if "scale" in rungs or n < _HEAD_LEAST else []
    if "head" in rungs and n >= _HEAD_LEAST:
        found += [Choice("head", ridge) for ridge in RIDGES]
    return found


def clearly_better(errors: Array, than: Array) -> bool:
    """Tell whether the mean error is smaller by more than one standard error of the paired differences."""
    gain = than - errors
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def choose(labels: Labels, rungs: tuple[str, ...] = ("scale", "head"), seed: int = 0) -> Choice:
    """Choose the rung that predicts held-out labels best, a complex one only if it is better beyond doubt.

    The head with the smallest held-out squared error is taken over the scale if its error is smaller by more than
    one standard error of the paired differences between images.
    """
    fold = folds(labels.groups, _FOLDS, seed)
    errors: dict[Choice, Array] = {}
    for choice in candidates(len(labels), rungs):
        errors[choice] = labels.weights * (held_out(choice, labels, fold) - labels.targets) ** 2
    best = min(errors, key=lambda choice: errors[choice].mean())
    simplest = next(iter(errors))
    if best.rung != simplest.rung and not clearly_better(errors[best], errors[simplest]):
        return simplest
    return best


def expected(labels: Labels, rungs: tuple[str, ...] = ("scale", "head"), seed: int = 0) -> Array:
    """Return a held-out prediction of each image by the whole procedure, the choice of rung included.

    The choice is made anew within each outer fold, on its training part only, so that comparing these predictions
    with the labels says what accuracy to expect on other images like these.
    """
    fold = folds(labels.groups, _FOLDS, seed + 1)
    predictions = np.empty(len(labels))
    for number in np.unique(fold):
        out = fold == number
        kept = labels.part(~out)
        fit = choose(kept, rungs, seed).fit(kept)
        predictions[out] = fit.predict(labels.logits[out], labels.features[out])
    return predictions
