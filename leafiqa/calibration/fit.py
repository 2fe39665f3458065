"""Fit a calibration: from a student's logit and features to the human scale.

Both rungs predict `low + (high - low) * sigmoid(slope * logit + offset + features @ residual)`: monotone in the
student's own logit, never outside the scale, differentiable everywhere. `scale` fits slope and offset alone, robustly;
`head` adds the residual, pulled towards zero by ridge regularisation, that is, towards the student's own prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from scipy.special import expit

Array = NDArray[np.float64]
# A slope outside this would turn the student into a constant or a step.
_SLOPES = (0.05, 20.0)
# Residuals beyond this part of the scale count linearly, not squared.
_ROBUST = 0.1


@dataclass(frozen=True)
class Fit:
    """A fitted calibration.

    Attributes:
        slope: factor on the student's logit, positive.
        offset: added to it.
        residual: `(F,)` weights on standardised features; None for the `scale` rung.
    """

    slope: float
    offset: float
    residual: Array | None = None

    def order(self, logits: Array, features: Array, slope: float) -> Array:
        """Return what predictions rise with, `(n,)`, but for the offset, and with another slope than the fit's own.

        So that what several fits say of different images can be put in one order.
        """
        return slope * logits if self.residual is None else slope * logits + features @ self.residual

    def predict(self, logits: Array, features: Array) -> Array:
        """Return predictions in [0, 1], `(n,)`, of logits `(n,)` and standardised features `(n, F)`."""
        total = self.slope * logits + self.offset
        return expit(total if self.residual is None else total + features @ self.residual)


def fit_scale(logits: Array, targets: Array, weights: Array) -> Fit:
    """Fit slope and offset by weighted least squares with a soft-L1 loss.

    Args:
        logits: `(n,)` the student's logits.
        targets: `(n,)` MOS brought to [0, 1].
        weights: `(n,)` with mean one; larger for more trustworthy labels.
    """
    root = np.sqrt(weights)
    clipped = targets.clip(0.02, 0.98)
    start_slope = np.std(np.log(clipped / (1 - clipped))) / max(float(np.std(logits)), 1e-6)
    start = [float(np.clip(start_slope, 0.1, 10.0)), 0.0]
    start[1] = float(np.mean(np.log(clipped / (1 - clipped))) - start[0] * np.mean(logits))
    found = least_squares(
        lambda p: root * (expit(p[0] * logits + p[1]) - targets),
        start,
        bounds=([_SLOPES[0], -np.inf], [_SLOPES[1], np.inf]),
        loss="soft_l1",
        f_scale=_ROBUST,
    )
    return Fit(float(found.x[0]), float(found.x[1]))


@dataclass(frozen=True)
class Span:
    """Features in the space that they span: the best residual lies in it, so fewer numbers are solved for.

    Attributes:
        rows: `(n, k)` coordinates of each image, `k` at most the smaller of `n` and `F`.
        back: `(k, F)` from coordinates of a residual to weights on the features.
    """

    rows: Array
    back: Array


def span(features: Array) -> Span:
    """Return the span of standardised features `(n, F)`, by the smaller of their two products with themselves."""
    wide = features.shape[0] <= features.shape[1]
    squares, vectors = np.linalg.eigh(features @ features.T if wide else features.T @ features)
    kept = squares > 1e-12 * squares[-1]
    vectors, singular = vectors[:, kept], np.sqrt(squares[kept])
    back = (features.T @ vectors / singular).T if wide else vectors.T
    return Span(vectors * singular if wide else features @ vectors, back)


def fit_head(logits: Array, spanned: Span, targets: Array, weights: Array, ridge: float, start: Fit) -> Fit:
    """Fit slope, offset and a ridge-regularised residual on the features, beginning at a `scale` fit.

    Args:
        logits: `(n,)` the student's logits.
        spanned: the span of the images' standardised features.
        targets: `(n,)` MOS brought to [0, 1].
        weights: `(n,)` with mean one.
        ridge: strength of the pull of the residual towards zero, for each feature, against the sum of the images'
            losses: neither the number of images nor that of features asks for another.
        start: the `scale` fit.
    """
    rows, n, width = spanned.rows, len(targets), spanned.rows.shape[1]
    pull = ridge * spanned.back.shape[1]

    def objective(parameters: Array) -> tuple[float, Array]:
        slope, offset, inner = parameters[0], parameters[1], parameters[2:]
        predicted = expit(slope * logits + offset + rows @ inner)
        error = predicted - targets
        # The same soft-L1 as for the scale: 2 d^2 (sqrt(1 + (e/d)^2) - 1).
        bend = np.sqrt(1 + (error / _ROBUST) ** 2)
        loss = float((weights * 2 * _ROBUST**2 * (bend - 1)).sum())
        # The slope is held near the scale fit's, lest it wander off while the residual takes over.
        value = loss + pull * float(inner @ inner) + 0.01 * n * (slope / start.slope - 1) ** 2
        inward = weights * 2 * error / bend * predicted * (1 - predicted)
        gradient = np.empty_like(parameters)
        gradient[0] = inward @ logits + 0.02 * n * (slope / start.slope - 1) / start.slope
        gradient[1] = inward.sum()
        gradient[2:] = rows.T @ inward + 2 * pull * inner
        return value, gradient

    first = np.concatenate([[start.slope, start.offset], np.zeros(width)])
    bounds = [_SLOPES, (None, None), *[(None, None)] * width]
    found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    return Fit(float(found.x[0]), float(found.x[1]), spanned.back.T @ found.x[2:])
