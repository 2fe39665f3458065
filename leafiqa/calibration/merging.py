"""Merge a calibration into a student's weights."""

from __future__ import annotations

import copy

import torch

from leafiqa.calibration.fit import Fit
from leafiqa.model.head import last_layers
from leafiqa.model.student import Student


def with_fit(student: Student, fit: Fit) -> Student:
    """Return a copy of a student whose weights hold the calibration, so that nothing comes after its sigmoid."""
    calibrated = copy.deepcopy(student).float()
    with torch.no_grad():
        for last in last_layers(calibrated.head):
            last.weight.mul_(fit.slope)
            last.bias.mul_(fit.slope).add_(fit.offset)
        if calibrated.residual is not None:
            calibrated.residual.weight.mul_(fit.slope)
        if fit.residual is not None:
            if calibrated.residual is None:
                calibrated.residual = torch.nn.Linear(len(fit.residual), 1, bias=False)
                torch.nn.init.zeros_(calibrated.residual.weight)
            weight = torch.from_numpy(fit.residual).float().to(calibrated.feature_mean.device)
            calibrated.residual.to(weight.device).weight.add_(weight)
    return calibrated.requires_grad_(False).eval()
