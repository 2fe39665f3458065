"""Standard errors and map follow a calibration."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from leafiqa.calibration.doubts import with_doubts
from leafiqa.calibration.fit import Fit
from leafiqa.calibration.merging import with_fit
from leafiqa.model.aspects import NINETY
from leafiqa.model.student import Student


def _covered(calibrated, features, targets, truth):
    """Return the share of labels within the intervals that the student itself tells."""
    aspects = calibrated.aspects
    with torch.no_grad():
        standard = torch.from_numpy(features).float()
        logits, severities = calibrated.read(standard), aspects.severities(standard)
        errors = aspects.errors(logits / aspects.stretch, severities, calibrated.shares(standard))
        errors = errors * aspects.stretch * aspects.doubt
    off = np.abs(np.log(targets / (1 - targets)) - truth)
    return float((off <= NINETY * errors.numpy()).mean())


def _labelled(base, features, rng):
    with torch.no_grad():
        logits = base.read(torch.from_numpy(features).float()).double().numpy()
    truth = 2 * logits + 0.5
    return logits, truth, expit(truth + rng.normal(0, 0.7, len(features)))


def test_intervals_of_a_calibrated_student_hold_nine_in_ten_of_the_labels():
    torch.manual_seed(0)
    base = Student(defects=("blur",)).eval()
    rng = np.random.default_rng(0)
    features = 2 * rng.normal(0, 1, (800, len(base.feature_mean)))
    logits, truth, targets = _labelled(base, features, rng)
    calibrated = with_fit(base, Fit(slope=2.0, offset=0.5))
    calibrated = with_doubts(calibrated, base, logits, features, targets, np.ones(800), expit(truth))
    assert float(calibrated.aspects.stretch) == pytest.approx(2, rel=0.15)
    assert 0.88 <= _covered(calibrated, features, targets, truth) <= 0.92
    plain = Student().eval()
    assert with_doubts(plain, plain, logits, features, targets, np.ones(800), expit(truth)) is plain


def test_intervals_hold_by_what_a_fine_tuned_student_sees_itself():
    torch.manual_seed(0)
    base = Student(experts=2, defects=("blur",)).eval()
    rng = np.random.default_rng(0)
    features = 2 * rng.normal(0, 1, (800, len(base.feature_mean)))
    logits, truth, targets = _labelled(base, features, rng)
    with torch.no_grad():
        base.aspects.deviation.weight.zero_()
        base.aspects.deviation.weight[0, -1] = 2.0  # of the second kind errors are seven times as large
    calibrated = with_fit(base, Fit(slope=2.0, offset=0.5))
    with torch.no_grad():
        calibrated.head.gate.bias.copy_(torch.tensor([4.0, -4.0]))  # which fine-tuning has made certain of the first
    calibrated = with_doubts(calibrated, base, logits, features, targets, np.ones(800), expit(truth))
    assert 0.88 <= _covered(calibrated, features, targets, truth) <= 0.92
