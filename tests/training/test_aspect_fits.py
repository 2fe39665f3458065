"""Aspects are learned: planted severities, planted errors, planted places."""

import numpy as np
import pytest
import torch

from leafiqa.model.aspects import NINETY, Aspects
from leafiqa.training.aspect_fits import (
    LocalFit,
    cell_weights,
    doubt_of,
    fit_deviation,
    fit_severities,
    same_deviation,
)


@pytest.fixture
def aspects():
    torch.manual_seed(0)
    return Aspects(("blur", "noise"), channels=(2, 3), reductions=(8, 16))


def test_severities_are_learned_where_they_are_known(aspects):
    generator = torch.Generator().manual_seed(1)
    standard = torch.randn(600, 10, generator=generator)
    truth = torch.stack([(1.5 + standard[:, 0]).clamp(0, 3), (1.5 - standard[:, 3]).clamp(0, 3)], dim=1)
    known = truth.clone()
    known[::2, 1] = float("nan")
    fit_severities(aspects, standard, known)
    with torch.no_grad():
        found = aspects.severities(standard)
    assert found.shape == (600, 2) and 0 <= found.min() and found.max() <= 3
    for defect in range(2):
        assert np.corrcoef(found[:, defect], truth[:, defect])[0, 1] > 0.95
        assert (found[:, defect] - truth[:, defect]).abs().mean() < 0.3
    # A defect that was never seen stays at nothing.
    known[:, 0] = 0.0
    fit_severities(aspects, standard, known)
    with torch.no_grad():
        assert aspects.severities(standard)[:, 0].max() < 0.05


def test_intervals_hold_nine_in_ten_and_widen_where_errors_do(aspects):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2000, generator=generator)
    severities = 3 * torch.rand(2000, 2, generator=generator)
    spread = 0.2 + 0.3 * severities[:, 0]
    targets = (logits + spread * torch.randn(2000, generator=generator)).sigmoid()
    half = slice(0, 1000), slice(1000, 2000)
    none = torch.empty(1000, 0)
    fit_deviation(aspects, logits[half[0]], severities[half[0]], none, targets[half[0]])
    with torch.no_grad():
        errors = aspects.errors(logits[half[1]], severities[half[1]], none)
    off = (targets[half[1]].logit() - logits[half[1]]).abs()
    assert 0.87 <= (off <= NINETY * errors).float().mean() <= 0.93
    assert np.corrcoef(errors, spread[half[1]])[0, 1] > 0.9
    same_deviation(aspects, logits, targets)
    with torch.no_grad():
        errors = aspects.errors(logits, severities, torch.empty(2000, 0))
    assert errors.std() < 1e-6
    assert 0.88 <= ((targets.logit() - logits).abs() <= NINETY * errors).float().mean() <= 0.92


def test_doubt_scales_errors_to_nine_in_ten():
    off = torch.linspace(-1, 1, 999)
    assert doubt_of(off, torch.full((999,), 0.1)) == pytest.approx(0.9 / NINETY / 0.1, rel=0.01)


def test_the_map_learns_places():
    torch.manual_seed(0)
    aspects = Aspects(("blur",), channels=(4,), reductions=(16,))
    generator = torch.Generator().manual_seed(3)
    fit = LocalFit(aspects, 150, generator)
    later = []
    for step in range(150):
        share = torch.zeros(12, 12)
        top, left = torch.randint(0, 8, (2,), generator=generator).tolist()
        share[top : top + 4, left : left + 4] = 1
        local = torch.randn(4, 12, 12, generator=generator)
        local[1] += 2 * share
        fit.see(local, -1.5 * share, cell_weights(share))
        later += [aspects.local[0].weight.detach().clone()] * (step >= 75)
    fit.finish()
    assert torch.allclose(aspects.local[0].weight, torch.stack(later).mean(0), atol=1e-6)
    assert (aspects.local[0].weight - later[-1]).abs().max() > 1e-4
    with torch.no_grad():
        found = aspects.local(local[None])[0, 0]
    assert found[share > 0].mean() < -1.1 and found[share == 0].mean().abs() < 0.25


def test_a_map_of_which_little_was_seen_keeps_what_it_learned():
    torch.manual_seed(0)
    aspects = Aspects(("blur",), channels=(4,), reductions=(16,))
    fit = LocalFit(aspects, 10, torch.Generator().manual_seed(3))
    fit.see(torch.randn(4, 6, 6), torch.zeros(6, 6), torch.ones(6, 6) / 36)
    learned = aspects.local[0].weight.detach().clone()
    fit.finish()
    assert torch.equal(aspects.local[0].weight, learned)


def test_both_kinds_of_cells_weigh_alike_and_mixed_ones_nothing():
    weights = cell_weights(torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    assert weights.tolist() == [[1.0, 0.0, 0.25], [0.25, 0.25, 0.25]]
