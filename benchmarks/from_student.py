"""Fast or gentle distillation from a student that knows something already.

    python -m benchmarks.from_student FOLDER --initial STUDENT... [--json OUT.json]

The newcomer's 200 photographs of BIQ2021's train part (benchmarks/newcomer.py) are distilled into each initial student
at several learning rates, two seeds each; SRCC with MOS on both sets' `val`, before and after, tells what was learned
and what was forgotten. `leaf` has seen these photographs before; for one that has not, train
`python -m benchmarks.ablation FOLDER --only generated` first. What exists in FOLDER is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.accuracy import agreement
from benchmarks.common import need_data, student
from benchmarks.newcomer import prepare
from leafiqa.distillation.config import read_config
from leafiqa.distillation.run import distil

# Of the usual learning rates from a backbone.
FACTORS = (1.0, 0.3, 0.1)
SEEDS = (0, 1)


def measure(place: str) -> dict[str, float]:
    """Return SRCC with MOS on each set's `val`."""
    metric = student(place)
    return {name: agreement(metric, name)["srcc"] for name in ("agiqa3k", "biq2021")}


def main() -> None:
    """Distil, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--initial", nargs="+", default=["leaf"], help="student that training begins at")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    initials = [str(Path(name).resolve()) if Path(name).exists() else name for name in arguments.initial]
    json_path = arguments.json and arguments.json.resolve()
    if not (arguments.folder / "mine.toml").exists():
        prepare(arguments.folder)
    os.chdir(arguments.folder)  # the newcomer's config names files relative to it
    base = read_config(Path("mine.toml"))
    lr, head_lr = replace(base, initial="timm").rates
    results = []
    for initial in initials:
        name = Path(initial).stem
        rows = [{"factor": 0.0, "seed": None, **measure(initial)}]
        for factor in FACTORS:
            rates = {"lr": lr * factor, "head_lr": head_lr * factor}
            for seed in SEEDS:
                output = Path(f"{name}_{factor}_{seed}")
                made = output / "leaf_lite0.mine.safetensors"
                if not made.exists():
                    distil(replace(base, initial=initial, seed=seed, output=output, **rates))
                rows.append({"factor": factor, "seed": seed, **measure(str(made))})
                print(name, rows[-1], flush=True)
        results.append({"initial": name, "rows": rows})
    if json_path:
        json_path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
