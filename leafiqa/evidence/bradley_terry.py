"""One score for each image out of comparisons alone: Bradley and Terry's model (Biometrika, 1952), with a prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from leafiqa.evidence.reliability import Preference


def order(
    names: Sequence[str],
    preferences: Sequence[Preference],
    *,
    prior: Mapping[str, float] | None = None,
    prior_std: float = 2.0,
) -> dict[str, float]:
    """Return the scores that explain preferences best, in logits.

    `sigmoid(a - b)` is the probability that a is better. The scores are the maximum of the posterior: each preference
    counts with its reliability, and each score is drawn towards its prior, which holds together what no comparison
    connects.

    Args:
        names: images to score.
        preferences: comparisons; those with an image that is not among the names are left out.
        prior: what is believed of the images beforehand, in logits; images without get the prior's mean, or 0.
        prior_std: standard deviation of that belief.
    """
    place = {name: i for i, name in enumerate(names)}
    used = [p for p in preferences if p.first in place and p.second in place]
    first = np.array([place[p.first] for p in used], dtype=np.intp)
    second = np.array([place[p.second] for p in used], dtype=np.intp)
    wanted = np.array([p.preference for p in used])
    # A preference near one half says that two images are alike, which is worth knowing here: what counts is how far it
    # can be trusted, not how decided it is.
    weight = np.array([min(1.0, p.reliability / max(abs(2 * p.preference - 1), 0.05)) for p in used])
    known = dict(prior or {})
    middle = float(np.mean(list(known.values()))) if known else 0.0
    centre = np.array([known.get(name, middle) for name in names])

    def objective(scores: np.ndarray) -> tuple[float, np.ndarray]:
        gap = scores[first] - scores[second]
        # Cross-entropy of sigmoid(gap) against the preference, without overflow.
        loss = weight * (np.logaddexp(0, gap) - wanted * gap)
        slope = weight * (expit(gap) - wanted)
        away = (scores - centre) / prior_std
        gradient = away / prior_std
        np.add.at(gradient, first, slope)
        np.subtract.at(gradient, second, slope)
        return float(loss.sum() + 0.5 * (away**2).sum()), gradient

    found = minimize(objective, centre, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return dict(zip(names, found.x.tolist()))
