"""Scores of pictures made on the spot, so that no later change moves the default student unnoticed."""

import numpy as np
import pytest
import torch

import leafiqa


def pictures():
    """Six pictures of arithmetic alone: the same on every machine and with every library version."""
    y, x = np.mgrid[0:240, 0:320]
    waves = np.stack([np.sin(x / 9 + y / 31), np.sin(y / 14), np.cos((x + 2 * y) / 23)], axis=-1)
    rings = np.sin(np.hypot(x - 150, y - 110) / 6)[..., None] * np.array([1.0, 0.6, 0.3])
    grain = ((x * 7919 + y * 104729 + x * y * 31) % 251 / 250 - 0.5)[..., None]
    blocks = ((x // 16 + y // 16) % 5 / 4)[..., None] * np.array([0.9, 0.7, 0.5])
    ramp = np.stack([x / 319, y / 239, (x + y) / 558], axis=-1)
    found = {
        "waves": 0.5 + 0.4 * waves,
        "rings": 0.5 + 0.4 * rings,
        "grainy waves": 0.5 + 0.3 * waves + 0.4 * grain,
        "blocks": blocks + 0.05 * grain,
        "ramp": ramp,
        "dark": 0.1 * (0.5 + 0.4 * waves),
    }
    return {name: np.round(255 * values.clip(0, 1)).astype(np.uint8) for name, values in found.items()}


GOLDEN = {
    "waves": 0.071595,
    "waves, three side by side": 0.077425,
    "rings": 0.368765,
    "rings, three side by side": 0.467454,
    "grainy waves": 0.274048,
    "grainy waves, three side by side": 0.081350,
    "blocks": 0.609808,
    "blocks, three side by side": 0.753374,
    "ramp": 0.027665,
    "ramp, three side by side": 0.039791,
    "dark": 0.020087,
    "dark, three side by side": 0.030706,
}


@pytest.mark.parametrize("name", list(pictures()))
def test_scores_of_the_default_student(metric, name):
    picture = pictures()[name]
    assert metric(picture).item() == pytest.approx(GOLDEN[name], abs=1e-4)
    wide = torch.from_numpy(np.tile(picture, (1, 3, 1)).copy()).permute(2, 0, 1)[None]
    assert metric(wide).item() == pytest.approx(GOLDEN[f"{name}, three side by side"], abs=1e-4)


def test_they_are_of_the_default_student(metric):
    assert leafiqa.model_card("leaf").short_hash == metric.card.short_hash == "947a0b981fa8"
