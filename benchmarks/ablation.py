"""Train one short run for each variant of the recipe.

    python -m benchmarks.ablation FOLDER [--seeds 0 1] [--only NAME...]

Then measure them all: `python -m benchmarks.budgets --student FOLDER/*/leaf_lite0.*.safetensors ...`. A variant whose
student exists is not trained again, and a killed run goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from leafiqa.distillation.config import Config, read_config
from leafiqa.distillation.run import distil

VARIANTS: dict[str, dict[str, Any]] = {
    "both": {},
    "point": {"pair_weight": 0.0},
    "pair": {"point_weight": 0.0},
    "unweighted": {"reliability_power": 0.0},
    "crossfit": {"crossfit": 2},
    "experts": {"experts": 2},
    "no_ladders": {"ladders": 0},
}
# Students of one source alone: the other set's images are of a kind that they have not seen.
ALONE = {"generated": 0, "photos": 1}


def run(config: Config) -> None:
    """Train and export one student, unless it exists."""
    name = config.card["name"]
    if (config.output / f"{name}.safetensors").exists():
        return
    print(name, flush=True)
    distil(config)


def main() -> None:
    """Train the variants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="*", choices=[*VARIANTS, *ALONE], default=list(VARIANTS))
    arguments = parser.parse_args()
    base = read_config(Path(__file__).with_name("distill_ablation.toml"))
    for seed in arguments.seeds:
        for variant in arguments.only:
            tag = f"{variant}_{seed}"
            card = {"name": f"leaf_lite0.{tag}"}
            changes = VARIANTS[variant] if variant in VARIANTS else {"sources": (base.sources[ALONE[variant]],)}
            run(replace(base, **changes, seed=seed, output=arguments.folder / tag, card=card))


if __name__ == "__main__":
    main()
