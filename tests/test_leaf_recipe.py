"""The recipe of `leaf`: where readers begin, what is degraded, whose opinion is imitated, what calibrations keep."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import carried, errors_elsewhere, leaf, readers, two_backbones
from leafiqa.calibration.fit import Fit
from leafiqa.distillation.config import read_config
from leafiqa.model.head import Experts
from leafiqa.model.student import Student

BACKBONE = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def first():
    torch.manual_seed(0)
    student = Student(BACKBONE, experts=2)
    torch.nn.init.normal_(student.head.gate.weight, std=0.1)
    return student.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def new(first):
    return leaf.interpolated(first, BACKBONE, None)


def test_every_source_of_the_recipe_has_a_reader_its_share_and_its_damage():
    names = [source.name for source in leaf.all_sources(read_config(leaf.CONFIG)).sources]
    assert set(names) == set(readers.READER) == set(leaf.KEPT) == set(leaf.DAMAGED)
    assert sorted(set(readers.READER.values())) == list(range(len(leaf.BEGINS_AT)))


def test_new_readers_begin_at_the_first_students_and_count_less(first, new):
    features = torch.randn(4, first.feature_mean.numel())
    old = [expert(features) for expert in first.head.experts]
    for number, expert in enumerate(new.head.experts):
        assert torch.equal(expert(features), old[leaf.BEGINS_AT[number]])
    logits, before = new.head.gate(features), first.head.gate(features)
    for number, begun in enumerate(leaf.BEGINS_AT):
        expected = before[:, begun] + (leaf.NEW if number >= 2 else 0)
        assert torch.allclose(logits[:, number], expected)


def test_a_source_is_degraded_as_often_as_asked_whatever_its_size():
    for pictures in (3, 500):
        counts = leaf.spread(pictures, 40, np.random.default_rng(0))
        assert len(counts) == pictures and sum(counts) == 40


def test_material_of_several_sources_is_joined_in_their_order():
    def of(number, count):
        rows = torch.full((count, 2), float(number))
        ones = torch.full((count,), float(number))
        return readers.Material(rows, ones, ones, ones.long(), rows, ones, rows)

    both = leaf.joined([of(0, 2), of(1, 3)])
    assert both.source.tolist() == [0, 0, 1, 1, 1] and both.features.shape == (5, 2)
    assert both.damaged_targets.tolist() == [0, 0, 1, 1, 1]


def test_another_backbone_is_told_from_the_same_one(first, new):
    assert leaf.same_backbone(new, first)
    other = copy.deepcopy(first)
    next(iter(other.backbone.parameters())).add_(0.1)
    assert not leaf.same_backbone(new, other)


def test_readers_imitate_what_counts_beside_them_by_its_share(monkeypatch):
    for name, value in {"RUNS": 1, "LINEAR_RUNS": 1, "EPOCHS": 40, "RATE": 0.01, "IMITATION_STEPS": 300}.items():
        monkeypatch.setattr(readers, name, value)
    monkeypatch.setattr(readers, "READER", {"one": 0, "other": 1})
    torch.manual_seed(0)
    features = torch.randn(256, 6)
    targets = (0.5 + 0.1 * features[:, 0]).clamp(0.1, 0.9)
    source = torch.arange(256) % 2
    material = readers.Material(features, targets, torch.ones(256), source, features[:64], targets[:64], features[:8])
    config = SimpleNamespace(seed=0, sigma=0.1, sources=[SimpleNamespace(name="one"), SimpleNamespace(name="other")])

    def opposite(seen):
        return -3 * seen[:, :1]

    def falls(share):
        monkeypatch.setattr(readers, "BESIDE_SHARE", share)
        torch.manual_seed(0)
        head = Experts(6, 16, 0.0, 2)
        student = SimpleNamespace(head=head, read=head)
        readers.fit_readers(config, student, material, opposite)
        made = head(features).detach()[:, 0]
        return float(torch.corrcoef(torch.stack([made, features[:, 0]]))[0, 1])

    assert falls(1.0) < -0.9 and falls(0.0) > 0.3


def test_a_companion_counts_half_in_what_is_imitated_by_its_own_features_of_the_same_pictures(monkeypatch):
    monkeypatch.setattr(readers, "NOISE", 0.0)
    monkeypatch.setattr(readers, "RATE", 0.01)
    torch.manual_seed(0)
    features = torch.randn(256, 4)
    theirs = features.flip(1).repeat(1, 2)  # another student's features of the same pictures: more, in another order
    none = torch.zeros(256)

    def material(rows):
        return readers.Material(rows, none, none, none.long(), rows[:32], none[:32], rows[:32])

    def own(seen):
        return 2 * seen[:, :1]  # the first feature

    def other(seen):
        return -4 * seen[:, 2:3]  # the second feature, as the companion has it

    head = Experts(4, 16, 0.0, 2)
    readers.imitate(head, own, material(features), readers.Companion(material(theirs).everything(), other), steps=600)
    with torch.no_grad():
        made = head(features).squeeze(1)
    slopes = torch.linalg.lstsq(features, made[:, None]).solution.squeeze(1)
    assert torch.allclose(slopes, torch.tensor([1.0, -2.0, 0.0, 0.0]), atol=0.15)


def test_two_students_side_by_side_have_the_features_of_both(first):
    torch.manual_seed(1)
    other = Student("mobilenetv3_small_050").requires_grad_(False).eval()
    other.feature_mean.normal_()
    both = two_backbones.side_by_side(first, other, (BACKBONE, "mobilenetv3_small_050"))
    pixels = torch.rand(2, 3, 64, 64)
    expected = [one.standardise(one.features(pixels)) for one in (first, other)]
    made = both.standardise(both.features(pixels))
    assert torch.allclose(made, torch.cat(expected, 1), atol=1e-5)
    said = [one.read(features) for one, features in zip((first, other), expected)]
    assert torch.allclose(two_backbones.Both(first, other)(made).squeeze(1), (said[0] + said[1]) / 2, atol=1e-4)


def test_materials_of_two_students_are_put_side_by_side_only_if_of_the_same_pictures():
    def of(width, target, seed):
        damaged = torch.rand(4, generator=torch.Generator().manual_seed(seed))
        rows, ones = torch.full((3, width), target), torch.full((3,), target)
        return readers.Material(rows, ones, ones, ones.long(), torch.ones(4, width), damaged, rows)

    both = two_backbones.both_materials(of(2, 0.2, 0), of(3, 0.6, 0))
    assert both.features.tolist() == [pytest.approx([0.2, 0.2, 0.6, 0.6, 0.6])] * 3 and both.damaged.shape == (4, 5)
    assert both.targets.tolist() == pytest.approx([0.4] * 3) and both.everything().shape == (10, 5)
    with pytest.raises(SystemExit, match="not looked at the same pictures"):
        two_backbones.both_materials(of(2, 0.2, 0), of(3, 0.6, 1))


def test_a_head_of_fewer_readers_imitates(monkeypatch):
    monkeypatch.setattr(readers, "RATE", 0.01)
    monkeypatch.setattr(two_backbones, "STEPS", 500)
    assert set(two_backbones.IMITATOR_READER) == set(readers.READER)
    torch.manual_seed(0)
    features, source = torch.randn(240, 6), torch.arange(240) % 6
    targets = torch.full((240,), 0.5)
    material = readers.Material(features, targets, torch.ones(240), source, features[:60], targets[:60], features[:8])
    config = SimpleNamespace(seed=0, sigma=0.1, sources=[SimpleNamespace(name=name) for name in readers.READER])
    head = two_backbones.imitator(config, material, lambda seen: 2 * seen[:, :1] - seen[:, 1:2])
    assert len(head.experts) == 3 and head.experts[0][0].out_features == two_backbones.IMITATOR_HIDDEN
    made, wanted = head(features).squeeze(1), 2 * features[:, 0] - features[:, 1]
    assert torch.corrcoef(torch.stack([made, wanted]))[0, 1] > 0.9
    assert abs(readers.mean_residual(made, material)) < 1e-3  # all are moved alike in the end


def test_a_part_of_the_material_is_what_was_degraded_from_it_too():
    config = leaf.all_sources(read_config(leaf.CONFIG))
    sizes = [3, 2, 4, 1, 2, 5]
    made_from = leaf.degraded_from(config, sizes)
    assert len(made_from) == 2 * sum(leaf.DAMAGED.values()) and made_from.unique().tolist() == list(range(17))
    assert (made_from >= 12).sum() == 2 * leaf.DAMAGED["snaps"] and made_from.diff().min() >= 0
    rows = torch.arange(17.0)[:, None]
    material = readers.Material(
        rows, rows[:, 0], rows[:, 0], rows[:, 0].long(), rows[made_from], rows[made_from, 0], rows
    )
    keep = torch.arange(17) % 3 != 0
    part = material.part(keep, keep[made_from])
    assert part.features.squeeze(1).tolist() == torch.arange(17)[keep].tolist() and len(part.nulls) == 17
    assert set(part.damaged.squeeze(1).tolist()) == set(part.damaged_targets.tolist()) == set(part.targets.tolist())


def test_errors_elsewhere_are_of_readers_that_did_not_learn_from_the_repository(new, monkeypatch):
    origins = ["", "", *(f"owner/{number // 3}" for number in range(24))]
    count = len(origins)
    rows = torch.arange(float(count))[:, None]
    source = torch.tensor([0, 0] + [1] * 12 + [2] * 12)
    made_from = torch.arange(count).repeat_interleave(2)
    targets = torch.full((count,), 0.5)
    material = readers.Material(rows, targets, targets, source, rows[made_from], targets[made_from], rows)
    learned = []

    def recorded(config, head, known, beside, runs, linear_runs):
        learned.append(set(known.features.squeeze(1).int().tolist()))
        assert learned[-1] == set(known.damaged.squeeze(1).int().tolist())
        return lambda features: torch.full((len(features), 1), float(len(learned))), []

    monkeypatch.setattr(errors_elsewhere, "learn_together", recorded)
    monkeypatch.setattr(errors_elsewhere, "mean_residual", lambda logits, known: 0.25)
    monkeypatch.setattr(errors_elsewhere, "OF_EACH", 7)
    config = SimpleNamespace(seed=0)
    found = errors_elsewhere.errors_elsewhere(config, new, material, origins, made_from, None)
    assert len(learned) == errors_elsewhere.FOLDS and len(found) == 14
    assert all({0, 1} <= known for known in learned)  # pictures of no repository are always learned from
    for logit, features, score in found:
        place = int(features[0])
        known = learned[int(float(logit) - 0.25) - 1]
        assert place >= 2 and score == 0.5
        assert not known & {other for other in range(count) if origins[other] == origins[place]}


def test_what_a_calibration_changed_is_put_onto_all_readers(first, new):
    torch.manual_seed(1)
    after = copy.deepcopy(first)
    for parameter in after.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    fit = Fit(slope=1.5, offset=-0.25)
    found = carried.carried(new, first, after, fit)
    features = torch.randn(4, first.feature_mean.numel())
    for number, expert in enumerate(found.head.experts):
        if number < 2:
            assert torch.equal(expert(features), after.head.experts[number](features))
        else:
            expected = fit.slope * new.head.experts[number](features) + fit.offset
            assert torch.allclose(expert(features), expected, atol=1e-5)
    gate, before, tuned = (student.head.gate(features) for student in (found, new, after))
    for number, begun in enumerate(leaf.BEGINS_AT):
        apart = before[:, number] - before[:, begun]
        assert torch.allclose(gate[:, number], tuned[:, begun] + apart, atol=1e-5)
    moved = next(iter(found.backbone.parameters())) - next(iter(new.backbone.parameters()))
    changed = next(iter(after.backbone.parameters())) - next(iter(first.backbone.parameters()))
    assert torch.allclose(moved, changed, atol=1e-6) and moved.abs().max() > 0
