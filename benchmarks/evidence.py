"""What the teacher's evidence and its reliability are worth, measured against human scores on `val` only.

    python -m benchmarks.evidence --json benchmarks/results/evidence.json

For each set: the correlation of the teacher's scores with MOS; by decile of reliability the error of its scores, how
often its decisions between two images agree with MOS, and the same for the pairs out of its rankings. Needs
../shared/data and ../shared/teacher (or LEAFIQA_DATA, LEAFIQA_TEACHER).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from scipy.stats import norm, spearmanr

from benchmarks.common import DATA, TEACHER, need_data
from leafiqa.evaluation.measures import agreement
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.reliability import SIGMA, preferences, targets

_DECILES = 10


def by_decile(reliability: np.ndarray, value: np.ndarray) -> list[dict]:
    """Return the mean of a value in each tenth of the cases, least reliable first; ties in reliability by chance."""
    order = np.lexsort((np.random.default_rng(0).random(len(value)), reliability))
    return [
        {
            "n": len(part),
            "reliability": round(float(reliability[part].mean()), 3),
            "mean": round(float(value[part].mean()), 3),
        }
        for part in np.array_split(order, _DECILES)
    ]


def measure(dataset: str) -> dict:
    """Return the figures of one set."""
    with (DATA / dataset / "mos.csv").open(newline="", encoding="utf-8") as file:
        mos = {f"{dataset}/{r['image']}": float(r["mos"]) for r in csv.DictReader(file) if r["split"] == "val"}
    evidence = read_evidence([TEACHER / f"{dataset}.jsonl"], keep=set(mos))
    known = targets(evidence)
    names = sorted(known)
    score, reliability = (np.array([getattr(known[n], field) for n in names]) for field in ("score", "reliability"))
    human = np.array([mos[name] for name in names])
    whole = agreement(score, human)
    error = np.abs(human - np.polyval(np.polyfit(score, human, 1), score)) / human.std()

    first, second = np.triu_indices(len(names), 1)
    gap, truth = score[first] - score[second], human[first] - human[second]
    decided = (gap != 0) & (truth != 0)
    right = (np.sign(gap) == np.sign(truth))[decided].astype(float)
    trust = (reliability[first] * reliability[second])[decided]
    decisive = np.abs(2 * norm.cdf(gap / (np.sqrt(2) * SIGMA)) - 1)[decided]
    near = np.abs(gap[decided]) <= SIGMA

    remarks = preferences(evidence)
    ranked = np.array([mos[p.first] - mos[p.second] for p in remarks])
    agrees = (np.sign([p.preference - 0.5 for p in remarks]) == np.sign(ranked)).astype(float)
    # Rankings against the scores given in the same view, in the direction of the ranking.
    within = {(point.view, point.image): point.score for points in evidence.points.values() for point in points}
    both = [p for p in evidence.pairs if (p.view, p.first) in within and (p.view, p.second) in within]
    steps = [within[p.view, p.first] - within[p.view, p.second] for p in both]
    return {
        "dataset": dataset,
        "n": len(names),
        "srcc": round(whole.srcc, 4),
        "srcc_interval": [round(end, 4) for end in whole.srcc_interval],
        "plcc": round(whole.plcc, 4),
        "plcc_interval": [round(end, 4) for end in whole.plcc_interval],
        "point_error_in_mos_sd": by_decile(reliability, error),
        "point_error_trend_srcc": round(float(spearmanr(reliability, error).statistic), 3),
        "decisions": int(decided.sum()),
        "decision_accuracy": round(float(right.mean()), 3),
        "decision_accuracy_by_stated_confidence": by_decile(trust, right),
        "near_decisions": int(near.sum()),
        "near_decision_accuracy_by_stated_confidence": by_decile(trust[near], right[near]),
        "decision_accuracy_by_confidence_and_decisiveness": by_decile(trust * decisive, right),
        "ranked_pairs": len(remarks),
        "ranked_pairs_with_scores": len(steps),
        "ranked_pairs_against_scores": sum(step < 0 for step in steps),
        "ranked_pairs_of_equal_scores": sum(step == 0 for step in steps),
        "ranked_pair_accuracy_by_reliability": by_decile(np.array([p.reliability for p in remarks]), agrees),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    need_data(TEACHER)
    results = [measure(dataset) for dataset in ("agiqa3k", "biq2021")]
    for result in results:
        print(f"{result['dataset']} val, n={result['n']}: SRCC {result['srcc']} PLCC {result['plcc']}")
        for name, value in result.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                print(f"  {name}: {' '.join(format(tenth['mean'], '.3f') for tenth in value)}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
