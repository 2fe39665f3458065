"""Standard errors and map follow a calibration."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import expit

from leafiqa.calibration.doubts import with_doubts
from leafiqa.model.aspects import NINETY
from leafiqa.model.student import Student


def test_intervals_of_a_calibrated_student_hold_nine_in_ten_of_the_labels():
    torch.manual_seed(0)
    base = Student(defects=("blur",)).eval()
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 800)
    features = rng.normal(0, 1, (800, len(base.feature_mean)))
    truth = 2 * logits + 0.5
    targets = expit(truth + rng.normal(0, 0.7, 800))
    calibrated = with_doubts(copy.deepcopy(base), base, logits, features, targets, np.ones(800), expit(truth))
    aspects = calibrated.aspects
    assert float(aspects.stretch) == pytest.approx(2, rel=0.15)
    known = base.aspects
    with torch.no_grad():
        severities = known.severities(torch.from_numpy(features).float())
        none = torch.empty(800, 0)
        errors = known.errors(torch.from_numpy(logits).float(), severities, none) * aspects.stretch * aspects.doubt
    off = np.abs(np.log(targets / (1 - targets)) - truth)
    assert 0.88 <= (off <= NINETY * errors.numpy()).mean() <= 0.92
    plain = Student().eval()
    assert with_doubts(plain, plain, logits, features, targets, np.ones(800), expit(truth)) is plain
