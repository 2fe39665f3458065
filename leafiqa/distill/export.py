"""From a run's averaged weights to a student on disk: `python -m leafiqa.distill.export CONFIG.toml STATE.pt OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import leafiqa
from leafiqa.distill.config import Config, read_config
from leafiqa.model.card import Card
from leafiqa.model.checkpoint import save_student
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student


def export(config: Config, state: Path, folder: Path) -> Card:
    """Write `NAME.safetensors` and `NAME.json` from a state dict that `train` saved.

    Args:
        config: the run's config; its `[card]` table gives the card's words, `name` among them.
        state: an `epochN.pt` of the run.
        folder: where to write.

    Returns:
        The card; its `accuracy` is empty until it is measured on the file written here.
    """
    student = Student(config.backbone)
    student.load_state_dict(torch.load(state, map_location="cpu", weights_only=True))
    training = {
        **config.card.get("training", {}),
        "recipe": "LEAF-style joint point-wise and pair-wise distillation, weighted by stated confidence",
        "epochs": int(state.stem.removeprefix("epoch")),
        **{
            name: getattr(config, name)
            for name in "area look crop batch ladders freeze lr head_lr weight_decay ema pair_weight ladder_weight "
            "null_weight sigma reliability_power seed".split()
        },
    }
    fields = {
        **config.card,
        "training": training,
        "architecture": {"backbone": config.backbone, "stages": [1, 2, 3, 4], "hidden": 128},
        "preprocess": Preprocess(area=config.look**2).to_dict(),
        "score": {
            "range": [0.0, 1.0],
            "unit": "the full width of the teacher's 0 to 100 scale; not calibrated to human opinion scores",
        },
        "leafiqa_version": leafiqa.__version__,
    }
    return save_student(student, folder, fields)


if __name__ == "__main__":
    card = export(read_config(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
    print(card.name, card.sha256)
