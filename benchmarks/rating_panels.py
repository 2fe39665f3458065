"""Small panels, careless raters: does the rater model beat the mean: `python -m benchmarks.rating_panels --json FILE`.

Simulated ratings of pictures whose true quality is that of AGIQA-3K's MOS (200 of them, brought to 1 to 5): each rater
has a bias (standard deviation .3) and an inconsistency (.5 to .9), and answers in whole levels; careless raters answer
at random. Compared by SRCC with the truth, over many draws: the plain mean, BT.500's rejection of raters before the
mean, SUREAL's maximum likelihood where it is installed, and leafiqa's model. Also how often a careless rater, and an
honest one, is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import types
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import DATA, need_data
from leafiqa.rating.answers import Answers
from leafiqa.rating.panel import as_answers, summarise

PICTURES, DRAWS = 200, 40
# Raters, careless ones among them, share of the pictures that each rates.
PANELS = ((3, 0, 1.0), (3, 1, 1.0), (5, 0, 1.0), (5, 1, 1.0), (15, 2, 0.3), (24, 4, 1.0))


def truth(rng: np.random.Generator) -> np.ndarray:
    """Return the true qualities of some pictures, on the scale 1 to 5."""
    with (DATA / "agiqa3k" / "mos.csv").open(newline="", encoding="utf-8") as file:
        mos = np.array([float(row["mos"]) for row in csv.DictReader(file)])
    return 1 + 4 * rng.choice(mos, PICTURES, replace=False) / 5


def ratings(rng: np.random.Generator, quality: np.ndarray, raters: int, careless: int, share: float) -> np.ndarray:
    """Return `(raters, pictures)` whole levels 1 to 5, NaN where a rater did not see a picture; careless ones last."""
    bias, noise = rng.normal(0, 0.3, raters), rng.uniform(0.5, 0.9, raters)
    found = quality[None] + bias[:, None] + noise[:, None] * rng.normal(size=(raters, len(quality)))
    found = np.clip(np.round(found), 1, 5)
    for number in range(raters - careless, raters):
        found[number] = rng.integers(1, 6, len(quality))
    found[rng.random(found.shape) > share] = np.nan
    return found


def bt500(scores: np.ndarray) -> np.ndarray:
    """Return the mean after BT.500's rejection of raters (kurtosis, then 2 or sqrt(20) standard deviations)."""
    mean, deviation = np.nanmean(scores, 0), np.nanstd(scores, 0, ddof=1)
    centred = scores - mean
    moments = np.nanmean(centred**4, 0) / np.maximum(np.nanmean(centred**2, 0), 1e-9) ** 2
    limit = np.where((moments >= 2) & (moments <= 4), 2.0, 20**0.5) * deviation
    high, low = (centred >= limit).sum(1), (centred <= -limit).sum(1)
    total = np.isfinite(scores).sum(1)
    rejected = ((high + low) / total > 0.05) & (np.abs(high - low) / np.maximum(high + low, 1) < 0.3)
    kept = np.nanmean(scores[~rejected], 0) if not rejected.all() else mean
    return np.where(np.isfinite(kept), kept, mean)


def sureal(scores: np.ndarray) -> np.ndarray | None:
    """Return SUREAL's maximum likelihood estimate, None where it is not installed."""
    try:
        from sureal.dataset_reader import RawDatasetReader
        from sureal.subjective_model import MaximumLikelihoodEstimationModel as Model
    except ImportError:
        return None

    # What SUREAL reads of a dataset, which it otherwise takes from a Python file.
    dataset = types.SimpleNamespace(
        dataset_name="panel",
        ref_videos=[{"content_id": 0, "path": "r", "content_name": "r"}],
        dis_videos=[
            {
                "content_id": 0,
                "asset_id": place,
                "path": str(place),
                "os": {str(r): float(s) for r, s in enumerate(column) if np.isfinite(s)},
            }
            for place, column in enumerate(scores.T)
        ],
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every step
        found = Model(RawDatasetReader(dataset)).run_modeling()
    return np.array(found["quality_scores"])


def main() -> None:
    """Simulate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--draws", type=int, default=DRAWS)
    arguments = parser.parse_args()
    need_data()
    warnings.simplefilter("ignore")  # means of nothing, where all raters of a picture were rejected
    rows = []
    for raters, careless, share in PANELS:
        found: dict[str, list[float]] = {}
        reported = honest = 0
        for draw in range(arguments.draws):
            rng = np.random.default_rng([raters, careless, draw])
            quality = truth(rng)
            scores = ratings(rng, quality, raters, careless, share)
            seen = np.isfinite(scores).any(0)
            scores, quality = scores[:, seen], quality[seen]
            answers = [
                (f"r{r}", f"/{i:04}", float(scores[r, i])) for i in range(scores.shape[1]) for r in range(raters)
                if np.isfinite(scores[r, i])
            ]  # fmt: skip
            panel = summarise(Answers(as_answers(answers)))
            by_name = {picture.image: picture.mos for picture in panel.pictures}
            estimates = {
                "mean": np.nanmean(scores, 0),
                "BT.500": bt500(scores),
                "SUREAL": sureal(scores),
                "leafiqa": np.array([by_name[f"/{i:04}"] for i in range(scores.shape[1])]),
            }
            for name, values in estimates.items():
                if values is not None:
                    found.setdefault(name, []).append(float(spearmanr(values, quality).statistic))
            doubted = {of.name for of in panel.raters if of.remarks}
            bad = {f"r{number}" for number in range(raters - careless, raters)}
            reported += len(doubted & bad)
            honest += len(doubted - bad)
        gain = np.array(found["leafiqa"]) - np.array(found["mean"])
        row = {
            "raters": raters,
            "careless": careless,
            "share": share,
            "draws": arguments.draws,
            **{name: float(np.mean(values)) for name, values in found.items()},
            "gain over the mean": float(gain.mean()),
            "gain's standard error": float(gain.std(ddof=1) / len(gain) ** 0.5),
            "careless reported": reported / max(1, careless * arguments.draws),
            "honest reported": honest / ((raters - careless) * arguments.draws),
        }
        rows.append(row)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
