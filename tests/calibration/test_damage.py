"""What fine-tuning lost of the order of damaged images is brought back, and the images stay where they are."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logit

import leafiqa
from leafiqa.calibration import damage
from leafiqa.calibration.damage import keep_order_of_damage, looks_taken
from leafiqa.calibration.fine_tuning import predict
from leafiqa.calibration.fit import Fit
from leafiqa.evaluation.measures import spearman
from leafiqa.images.decoding import decode
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade
from leafiqa.training.degradations.nothing import null_image

PICTURES = [decode(path).pixels for path in sorted((Path(leafiqa.__file__).parent / "cli" / "pictures").glob("*.jpg"))]


def cuts(count, seed):
    """Random parts of real pictures, 128x128, as the student looks at them."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        pixels = PICTURES[number % len(PICTURES)]
        top, left = (int(rng.integers(side - 128)) for side in pixels.shape[:2])
        found.append(torch.from_numpy(pixels[top : top + 128, left : left + 128].copy()).permute(2, 0, 1))
    return found


def logits(student, images):
    return logit(predict(student, images))


@pytest.fixture(scope="module")
def spoilt(metric):
    """A student with a residual that likes noise: what it sees of noisy pictures and not of others counts as good."""
    student = copy.deepcopy(metric.student)
    images = cuts(40, seed=1)
    noisy = [_noisy(image, 3) for image in images]
    with torch.no_grad():
        both = [
            student.standardise(student.features(torch.stack(some).float() / 255)).mean(0) for some in (images, noisy)
        ]
        away = both[1] - both[0]
        dropped = float(np.mean(logits(student, images) - logits(student, noisy)))
        student.residual = torch.nn.Linear(len(away), 1, bias=False)
        student.residual.weight.copy_(2 * dropped * away[None] / away.square().sum())
    return student.requires_grad_(False).eval()


def _noisy(image, level):
    return torch.from_numpy(degrade(image.permute(1, 2, 0).numpy(), "noise", level, 5)).permute(2, 0, 1)


def test_order_comes_back_and_images_stay(metric, spoilt):
    shown, others = cuts(120, seed=2), cuts(30, seed=3)
    noisy = [_noisy(image, 4) for image in others]
    lost = logits(spoilt, others) - logits(spoilt, noisy)
    assert np.median(lost) < 0  # noise makes them better
    fit = Fit(1.0, 0.0)
    student = keep_order_of_damage(copy.deepcopy(spoilt), metric.student, fit, shown)
    known = logits(metric.student, others) - logits(metric.student, noisy)
    back = logits(student, others) - logits(student, noisy)
    assert np.median(back) > np.median(lost) + 0.7 * (np.median(known) - np.median(lost)) and np.median(back) > 0
    moved = logits(student, others) - logits(spoilt, others)
    assert np.abs(moved).mean() < 0.1 * np.abs(back - lost).mean()
    assert spearman(logits(student, others), logits(spoilt, others)) > 0.9
    # The same again, and nothing but the student's own residual has changed.
    counts = []
    again = keep_order_of_damage(copy.deepcopy(spoilt), metric.student, fit, shown, advance=counts.append)
    assert sum(counts) == looks_taken(len(shown)) and len(counts) > 5
    torch.testing.assert_close(again.residual.weight, student.residual.weight, atol=1e-6, rtol=1e-5)
    other = keep_order_of_damage(copy.deepcopy(spoilt), metric.student, fit, shown, seed=1)
    assert not torch.allclose(other.residual.weight, student.residual.weight, atol=1e-4)
    changed = [
        name for name, value in student.state_dict().items() if not torch.equal(value, spoilt.state_dict()[name])
    ]
    assert changed == ["residual.weight"] and not student.residual.weight.requires_grad


def test_nothing_sinks_back(metric):
    student = copy.deepcopy(metric.student)
    for expert in student.head.experts:
        expert[-1].bias.data.add_(2.0)  # everything is better, nothing too
    rng = np.random.default_rng(9)
    empty = [torch.from_numpy(null_image(96, rng).copy()).permute(2, 0, 1) for _ in range(20)]
    high = logits(student, empty)
    changed = keep_order_of_damage(copy.deepcopy(student), metric.student, Fit(1.0, 0.0), cuts(60, seed=4))
    assert changed.residual is not None  # it had none
    assert np.median(logits(changed, empty) - high) < -0.3


def test_a_student_that_lost_nothing_is_left_nearly_alone(metric):
    images = cuts(60, seed=5)
    student = keep_order_of_damage(copy.deepcopy(metric.student), metric.student, Fit(1.0, 0.0), images)
    moved = np.abs(logits(student, images) - logits(metric.student, images))
    assert moved.mean() < 0.03 and moved.max() < 0.2


def test_every_degradation_and_both_kinds_of_pairs_are_shown(metric, monkeypatch):
    seen, levels = set(), []

    def notes(pixels, kind, level, seed):
        seen.add(kind)
        levels.append(level)
        return pixels

    monkeypatch.setattr(damage, "degrade", notes)
    keep_order_of_damage(copy.deepcopy(metric.student), metric.student, Fit(1.0, 0.0), cuts(60, seed=6))
    assert seen == set(DEGRADATIONS) and set(levels) == {1, 2, 3, 4, 5}
    assert 60 < len(levels) < 120  # some pairs hold the image as it is
