"""Do people confirm what `leafiqa compare` says of generators: `python -m benchmarks.generators --json FILE`.

AGIQA-3K (val and train, 2,385 pictures of 240 prompts with human scores): six generators, of which two come in
settings; the ten settings are compared pair by pair on `leaf`'s scores and, in the same way, on the human scores. A
verdict "better" is confirmed where the human scores of the same prompts say so, contradicted where they say the
opposite significantly, open where they cannot tell. Also for random subsets of prompts, as a small evaluation has them.
`leaf` has never seen a human score; it learned from its teacher's judgments of the `train` part's pictures.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import leafiqa
from benchmarks.common import DATA, need_data
from leafiqa.generators.comparing import MetricResult, compare_scores

SUBSETS = (20, 50, 100)
DRAWS = 40


def listed(by: str, split: str | None) -> list[dict[str, str]]:
    """Return rows of image, generator, prompt and MOS: by "generator", or by "setting" (a generator's variants)."""
    folder = DATA / "agiqa3k"
    rows = []
    with (folder / "mos.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if split in (None, row["split"]):
                setting = Path(row["image"]).stem.rsplit("_", 1)[0]
                name = row["generator"] if by == "generator" else setting
                image = str((folder / row["image"]).resolve())
                rows.append({"image": image, "generator": name, "prompt": row["prompt"], "mos": row["mos"]})
    return rows


def verdicts(judged: MetricResult, human: MetricResult) -> Counter[str]:
    """Count what people say of each of a metric's verdicts."""
    found: Counter[str] = Counter()
    for pair in judged.pairs:
        other = human.pair(pair.first, pair.second)
        if other is None:
            continue
        if pair.verdict.decision not in ("better", "worse"):
            found[f"{pair.verdict.decision}; people: {'differ' if decided(other) else 'undecided'}"] += 1
            continue
        better = pair.first if pair.verdict.decision == "better" else pair.second
        people = decided(other)
        found["confirmed" if people == better else "open" if people is None else "contradicted"] += 1
    return found


def decided(pair) -> str | None:  # type: ignore[no-untyped-def]
    """Return which of a pair is significantly better, None if neither is shown to be."""
    return {"better": pair.first, "worse": pair.second}.get(pair.verdict.decision)


def compared(by: str, split: str | None) -> dict:
    """Compare all generators, or settings, on all prompts and on random subsets of them."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pictures.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["image", "generator", "prompt", "mos"])
            writer.writeheader()
            writer.writerows(listed(by, split))
        found = leafiqa.compare(table, "leaf", columns=["mos"], device="cpu")
    judged, human = found.metrics
    means = {of.name: of.mean for of in human.generators}
    names = [of.name for of in judged.generators]
    tau = kendalltau([of.mean for of in judged.generators], [means[name] for name in names]).statistic
    row: dict = {
        "by": by,
        "split": split or "train and val",
        "images": len(found.samples.samples),
        "prompts": len(found.prompts()),
        "generators": len(names),
        "tau": float(tau),
        "leaf": names,
        "people": [of.name for of in human.generators],
        "all prompts": dict(verdicts(judged, human)),
    }
    samples, scores = found.samples.samples, found.scored.scores
    units = np.array([sample.unit for sample in samples])
    prompts = np.unique(units)
    for size in SUBSETS:
        if size >= len(prompts):
            continue
        total: Counter[str] = Counter()
        taus = []
        for draw in range(DRAWS):
            rng = np.random.default_rng([size, draw])
            kept = np.flatnonzero(np.isin(units, rng.choice(prompts, size, replace=False)))
            some = [samples[place] for place in kept]
            by_leaf = compare_scores("leaf", some, scores[judged.metric][kept])
            by_people = compare_scores("mos", some, scores["mos"][kept])
            # People on all prompts: what is true of these generators, not only of this draw.
            total.update(verdicts(by_leaf, human))
            known = {of.name: of.mean for of in by_people.generators}
            taus.append(
                kendalltau(
                    [of.mean for of in by_leaf.generators], [known[of.name] for of in by_leaf.generators]
                ).statistic
            )
        row[f"{size} prompts"] = {**total, "draws": DRAWS, "mean tau": float(np.mean(taus))}
    return row


def share(counts: dict[str, int]) -> str:
    """Return the shares of verdicts "better" that people confirm, leave open and contradict."""
    of = {name: counts.get(name, 0) for name in ("confirmed", "open", "contradicted")}
    total = sum(of.values())
    told = ", ".join(f"{name} {100 * count / max(1, total):.1f} %" for name, count in of.items())
    return f"{total} verdicts of better: {told}"


def main() -> None:
    """Compare and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    need_data()
    rows = [compared("generator", None), compared("setting", None), compared("setting", "val")]
    for row in rows:
        print(f"{row['generators']} by {row['by']}, {row['split']}: {row['prompts']} prompts, tau {row['tau']:.3f}")
        print("  leaf:  ", ", ".join(row["leaf"]))
        print("  people:", ", ".join(row["people"]))
        for name, counts in row.items():
            if name.endswith("prompts") and isinstance(counts, dict):
                print(f"  {name}: {share(counts)}; all: {counts}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
