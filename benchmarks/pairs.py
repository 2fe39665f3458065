"""Chosen pairs against random ones at equal budget: `python -m benchmarks.pairs --json benchmarks/results/pairs.json`.

Simulated: images of known quality and a teacher whose answers are noisy, with and without a prediction to begin
with. Recorded: for each contact sheet of ../shared/teacher (or LEAFIQA_TEACHER) its ranking answers the questions, and
the order found from a few of its pairs is compared with the whole ranking. The answers come in three rounds.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from benchmarks.common import TEACHER
from leafiqa.evidence.bradley_terry import order
from leafiqa.evidence.reliability import Preference
from leafiqa.teachers.pairs import choose_pairs

ROUNDS = 3


def asked(
    names: list[str],
    budget: int,
    answer: Callable[[str, str], float],
    chosen: bool,
    seed: int,
    prior: dict[str, float] | None = None,
) -> dict[str, float]:
    """Return the scores found by asking about so many pairs."""
    rng = np.random.default_rng(seed)
    remarks: list[Preference] = []
    known = prior
    extracted: set[frozenset[str]] = set()
    for number in range(ROUNDS):
        count = budget * (number + 1) // ROUNDS - len(remarks)
        pairs: list[tuple[str, str]] = []
        if chosen:
            std = 2.0 / (number + 1)
            pairs = choose_pairs(
                names, count, known=known, known_std=std, asked=map(tuple, extracted), seed=seed + number
            )
        while len(pairs) < count and not chosen:
            a, b = (str(name) for name in rng.choice(names, 2, replace=False))
            if frozenset((a, b)) not in extracted:
                extracted.add(frozenset((a, b)))
                pairs.append((a, b))
        extracted |= {frozenset(pair) for pair in pairs}
        for a, b in pairs:
            p = answer(a, b)
            remarks.append(Preference(a, b, p, abs(2 * p - 1)))
        known = order(names, remarks, prior=prior)
    return known or {}


def simulated(count: int, budget: int, noise: float | None, draws: int) -> dict:
    """Return the mean SRCC with the true order, chosen and random, and the interval of the difference."""
    names = [f"i{i}" for i in range(count)]
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        truth = dict(zip(names, rng.normal(0, 3, count)))
        prior = None if noise is None else {n: float(t + rng.normal(0, 3 * noise)) for n, t in truth.items()}
        for chosen in found:
            answers = np.random.default_rng(seed + 1000)

            def answer(a: str, b: str, truth: dict = truth, answers: np.random.Generator = answers) -> float:
                return 1 / (1 + math.exp(-(truth[a] - truth[b]) + answers.normal(0, 0.7)))

            scores = asked(names, budget, answer, chosen, seed, prior)
            found[chosen].append(float(spearmanr([scores[n] for n in names], list(truth.values())).statistic))
    return {"images": count, "pairs": budget, "prediction": noise is not None, **compared(found)}


def recorded(dataset: str, budget: int) -> dict:
    """Return the mean Kendall tau with the sheets' rankings, chosen and random."""
    found: dict[bool, list[float]] = {True: [], False: []}
    lines = map(json.loads, (TEACHER / f"{dataset}.jsonl").read_text().splitlines())
    for seed, record in enumerate(r for r in lines if r["kind"] == "ranking" and len(r["images"]) == 9):
        place = {name: i for i, name in enumerate(record["images"])}
        names = sorted(place)
        for chosen in found:
            scores = asked(names, budget, lambda a, b, p=place: 0.95 if p[a] < p[b] else 0.05, chosen, seed)
            tau = kendalltau([scores[n] for n in names], [-place[n] for n in names]).statistic
            found[chosen].append(0.0 if math.isnan(tau) else float(tau))
    return {"dataset": dataset, "sheets": len(found[True]), "of_pairs": 36, "pairs": budget, **compared(found)}


def compared(found: dict[bool, list[float]]) -> dict:
    """Return means and the paired difference with its 95 % interval."""
    gain = np.array(found[True]) - np.array(found[False])
    half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    return {
        "chosen": round(float(np.mean(found[True])), 4),
        "random": round(float(np.mean(found[False])), 4),
        "gain": round(float(gain.mean()), 4),
        "gain_interval": [round(float(gain.mean() - half), 4), round(float(gain.mean() + half), 4)],
        "draws": len(gain),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = [
        *(simulated(200, budget, noise, 12) for noise in (None, 0.7) for budget in (200, 400, 800)),
        *(recorded(dataset, budget) for dataset in ("agiqa3k", "biq2021") for budget in (9, 12, 18)),
    ]
    for result in results:
        print(result)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
