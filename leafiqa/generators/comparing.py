"""Compare generators on their scores: each one's summary, each pair's difference and verdict, a ranking."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from leafiqa.generators.best_of import best_of_curve
from leafiqa.generators.paired_statistics import holm, mean_interval, noise_floor, sign_flip_p
from leafiqa.generators.ranking import groups_alike, rank_ranges, standings
from leafiqa.generators.samples import Sample
from leafiqa.generators.verdicts import Verdict, judge

Array = NDArray[np.float64]
# What does not matter where the caller does not say: this share of the spread of all pictures' scores.
_MARGIN_SHARE = 0.1


@dataclass(frozen=True)
class GeneratorSummary:
    """One generator by one metric.

    Attributes:
        name: the generator's name.
        prompts: prompts with a score.
        images: pictures with a score.
        failed: pictures without one.
        mean: of the prompts' means; NaN where there is no score.
        interval: its 95 % interval over prompts.
        median: of the pictures.
        worst: 5 % of the pictures score below this.
        below: share of pictures below the threshold; None without one.
        noise: 95 % of the differences between two runs of this very generator, with other seeds over the same prompts,
            are smaller; NaN without several pictures a prompt.
        best_of: mean over prompts of the expected best of 1, 2, ... pictures.
    """

    name: str
    prompts: int
    images: int
    failed: int
    mean: float
    interval: tuple[float, float]
    median: float
    worst: float
    below: float | None
    noise: float
    best_of: list[float]


@dataclass(frozen=True)
class PromptDifference:
    """One prompt in two generators: the means of its pictures' scores."""

    unit: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.first - self.second


@dataclass(frozen=True)
class PairResult:
    """Two generators on the prompts that both have.

    Attributes:
        first: one generator, the one that stands higher.
        second: the other.
        prompts: how many prompts both have.
        difference: mean over prompts of first minus second.
        interval: its 95 % interval, not corrected for the number of pairs.
        won: share of prompts in which the first scores higher, ties counted half.
        effect: the difference in standard deviations of the differences over prompts.
        correlation: of the two generators' scores over prompts: what pairing has gained.
        p: two-sided, by sign flips.
        corrected_p: for the number of pairs (Holm).
        verdict: what it comes to.
        prompt_differences: each prompt, those where the first lost most first.
    """

    first: str
    second: str
    prompts: int
    difference: float
    interval: tuple[float, float]
    won: float
    effect: float
    correlation: float
    p: float
    corrected_p: float
    verdict: Verdict
    prompt_differences: list[PromptDifference] = field(repr=False)

    @property
    def better(self) -> str | None:
        """Which of the two is significantly better, None if neither is shown to be."""
        return {"better": self.first, "worse": self.second}.get(self.verdict.decision)

    def seen_from(self, name: str) -> tuple[float, tuple[float, float]]:
        """Return difference and interval with this generator first."""
        low, high = self.interval
        return (self.difference, (low, high)) if name == self.first else (-self.difference, (-high, -low))


@dataclass(frozen=True)
class MetricResult:
    """All generators by one metric.

    Attributes:
        metric: its name.
        weights: sha256 of its weights, or the first digits; empty where it has none of leafiqa's.
        margin: the largest difference that does not matter, in units of the score.
        generators: summaries, highest standing first (by mean paired differences, which with the same prompts is the
            order of the means); those without any score last.
        pairs: each two generators that have scores, in that order.
        ranks: best and worst rank that each may have, by what is significant.
        groups: the largest sets of generators of which no two can be told apart.
    """

    metric: str
    weights: str
    margin: float
    generators: list[GeneratorSummary]
    pairs: list[PairResult]
    ranks: dict[str, tuple[int, int]]
    groups: list[list[str]]

    def pair(self, first: str, second: str) -> PairResult | None:
        """Return the comparison of two generators, in whichever order; None if there is none."""
        return next((pair for pair in self.pairs if {pair.first, pair.second} == {first, second}), None)


def compare_scores(
    metric: str,
    samples: Sequence[Sample],
    scores: Array,
    *,
    weights: str = "",
    below: float | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> MetricResult:
    """Compare generators by one metric's scores.

    Args:
        metric: its name.
        samples: the pictures.
        scores: `(n,)`, higher is better, NaN where there is none.
        weights: sha256 of the metric's weights.
        below: threshold of which the share of pictures below is told.
        margin: the largest difference that does not matter; None takes a tenth of the standard deviation of all scores.
        seed: seeds bootstrap and sign flips.
    """
    by_unit: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    failed: dict[str, int] = defaultdict(int)
    names = list(dict.fromkeys(sample.generator for sample in samples))
    for sample, score in zip(samples, scores.tolist()):
        if math.isfinite(score):
            by_unit[sample.generator][sample.unit].append(score)
        else:
            failed[sample.generator] += 1
    finite = scores[np.isfinite(scores)]
    if margin is None:
        margin = _MARGIN_SHARE * float(finite.std()) if len(finite) else 0.0
    scored = [name for name in names if by_unit[name]]
    summaries = {name: _summary(name, by_unit[name], failed[name], below, seed) for name in names}
    means = {name: {unit: float(np.mean(of)) for unit, of in by_unit[name].items()} for name in scored}
    shared = {pair: _shared(means[pair[0]], means[pair[1]]) for pair in combinations(scored, 2)}
    mean_of = {
        pair: float(np.mean([a - b for _, a, b in units])) if units else math.nan for pair, units in shared.items()
    }
    standing = standings(scored, mean_of)
    order = sorted(scored, key=lambda name: (math.isnan(standing[name]), -standing[name]))
    pairs = _pairs(order, shared, margin, seed)
    beats = {(p.better, p.second if p.better == p.first else p.first) for p in pairs if p.better is not None}
    left = [name for name in names if name not in scored]
    return MetricResult(
        metric=metric,
        weights=weights,
        margin=margin,
        generators=[summaries[name] for name in [*order, *left]],
        pairs=pairs,
        ranks=rank_ranges(order, beats),
        groups=groups_alike(order, beats),
    )


def _shared(first: Mapping[str, float], second: Mapping[str, float]) -> list[tuple[str, float, float]]:
    return [(unit, value, second[unit]) for unit, value in first.items() if unit in second]


def _summary(
    name: str, units: Mapping[str, Sequence[float]], failed: int, below: float | None, seed: int
) -> GeneratorSummary:
    of_prompts = [np.array(of, dtype=np.float64) for of in units.values()]
    if not of_prompts:
        nan = math.nan
        share = None if below is None else nan
        return GeneratorSummary(name, 0, 0, failed, nan, (nan, nan), nan, nan, share, nan, [])
    scores = np.concatenate(of_prompts)
    means = np.array([of.mean() for of in of_prompts])
    several = [of for of in of_prompts if len(of) > 1]
    return GeneratorSummary(
        name=name,
        prompts=len(of_prompts),
        images=len(scores),
        failed=failed,
        mean=float(means.mean()),
        interval=mean_interval(means, seed),
        median=float(np.median(scores)),
        worst=float(np.percentile(scores, 5)),
        below=None if below is None else float(np.mean(scores < below)),
        noise=noise_floor(np.array([of.var(ddof=1) for of in several]), np.array([len(of) for of in several])),
        best_of=best_of_curve(of_prompts),
    )


def _pairs(
    order: Sequence[str],
    shared: Mapping[tuple[str, str], list[tuple[str, float, float]]],
    margin: float,
    seed: int,
) -> list[PairResult]:
    """Compare each two generators, the one that stands higher first."""
    prepared = []
    for first, second in combinations(order, 2):
        units = shared.get((first, second))
        if units is None:
            units = [(unit, b, a) for unit, a, b in shared[(second, first)]]
        a, b = (np.array([unit[column] for unit in units], dtype=np.float64) for column in (1, 2))
        p = sign_flip_p(a - b, seed) if len(units) > 1 else math.nan
        prepared.append((first, second, units, a, b, p))
    tested = sum(math.isfinite(p) for *_, p in prepared)
    results = []
    for (first, second, units, a, b, p), corrected in zip(prepared, holm([p for *_, p in prepared])):
        differences = a - b
        n = len(differences)
        mean = float(differences.mean()) if n else math.nan
        deviation = float(differences.std(ddof=1)) if n > 1 else 0.0 if n else math.nan
        ends = mean_interval(differences, seed)
        verdict = judge(
            first, second,
            n=n, difference=mean, interval=ends, deviation=deviation, p=corrected, margin=margin, pairs=max(1, tested),
        )  # fmt: skip
        each = [PromptDifference(unit, one, two) for unit, one, two in units]
        results.append(
            PairResult(
                first=first,
                second=second,
                prompts=n,
                difference=mean,
                interval=ends,
                won=float(np.mean((differences > 0) + (differences == 0) / 2)) if n else math.nan,
                effect=mean / deviation if n > 1 and deviation > 0 else math.nan,
                correlation=_correlation(a, b),
                p=p,
                corrected_p=corrected,
                verdict=verdict,
                prompt_differences=sorted(each, key=lambda one: one.difference),
            )
        )
    return results


def _correlation(a: Array, b: Array) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])
