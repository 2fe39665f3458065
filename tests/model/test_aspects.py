"""What a student says beside its score: shapes, ranges, and that the score does not depend on it."""

import pytest
import torch

from leafiqa.errors import WeightsError
from leafiqa.model.aspects import Aspects
from leafiqa.model.card import parse_card
from leafiqa.model.checkpoint import pack_student, unpack_student
from leafiqa.model.student import Student, pool_stages

FIELDS = {
    "name": "leaf_lite0.x",
    "preprocess": {"area": 384**2, "mean": [0.5] * 3, "std": [0.5] * 3},
    "score": {"range": [0.0, 1.0], "unit": "test"},
    "format": 1,
}
ARCHITECTURE = {"backbone": "tf_efficientnet_lite0", "stages": [1, 2, 3, 4], "hidden": 128}


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    made = Student(defects=("blur", "noise")).eval().requires_grad_(False)
    torch.nn.init.normal_(made.aspects.severity.weight, std=0.1)
    return made


@pytest.mark.parametrize(("size", "grid"), [((384, 384), (24, 24)), ((288, 512), (18, 32)), ((32, 64), (2, 4))])
def test_what_is_seen_has_its_shape_and_range(student, size, grid):
    images = torch.rand(2, 3, *size)
    seen = student.explain(images)
    assert seen.cells.shape == (2, *grid) and seen.severities.shape == (2, 2) and seen.errors.shape == (2,)
    assert seen.severities.min() >= 0 and seen.severities.max() <= 3 and (seen.errors > 0).all()
    torch.testing.assert_close(seen.logits, student(images))
    # Nothing depends on the batch's other pictures.
    alone = student.explain(images[1:])
    for name in ("logits", "errors", "severities", "cells"):
        torch.testing.assert_close(getattr(alone, name)[0], getattr(seen, name)[1], atol=1e-4, rtol=1e-4)


def test_kinds_that_the_head_tells_apart_count_for_the_errors():
    torch.manual_seed(0)
    student = Student(experts=2, defects=("blur",)).eval()
    torch.nn.init.normal_(student.head.gate.weight, std=0.05)
    images = torch.rand(3, 3, 64, 64)
    standard = student.standardise(student.features(images))
    shares = student.shares(standard)
    assert shares.shape == (3, 2) and shares.sum(1).tolist() == pytest.approx([1] * 3)
    before = student.explain(images).errors
    with torch.no_grad():
        student.aspects.deviation.weight[0, -2] += 0.5
    torch.testing.assert_close(student.explain(images).errors, before * (0.5 * shares[:, 0]).exp())


def test_local_features_are_means_and_deviations_within_a_cell():
    aspects = Aspects(("blur",), channels=(1, 1, 1), reductions=(8, 16, 32))
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    local = aspects.local_features([fine, torch.full((1, 1, 2, 2), 7.0), torch.full((1, 1, 1, 1), 9.0)], (32, 32))
    assert local.shape == (1, 4, 2, 2)
    assert local[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]  # of 0, 1, 4, 5 and so on
    assert local[0, 1].flatten().tolist() == pytest.approx([2.0616] * 4, abs=1e-3)
    assert (local[0, 2] == 7).all() and (local[0, 3] == 9).all()


def test_a_calibrations_stretch_moves_errors_and_map_alike(student):
    import copy

    images = torch.rand(1, 3, 96, 96)
    before = student.explain(images)
    steeper = copy.deepcopy(student)
    last = steeper.head[-1]
    with torch.no_grad():
        last.weight.mul_(2)
        last.bias.mul_(2).add_(0.3)
    steeper.aspects.stretch.fill_(2.0)
    steeper.aspects.doubt.fill_(1.5)
    after = steeper.explain(images)
    torch.testing.assert_close(after.logits, 2 * before.logits + 0.3)
    apart = before.cells - before.logits[:, None, None]
    torch.testing.assert_close(after.cells - after.logits[:, None, None], 2 * apart)
    # Errors are read from the logit as it was before the calibration, but for its offset.
    again = steeper.aspects.errors(after.logits / 2, after.severities, torch.empty(1, 0))
    torch.testing.assert_close(after.errors, again * 2 * 1.5)


def test_a_score_is_the_same_with_and_without_aspects(student):
    images = torch.rand(1, 3, 128, 96)
    plain = Student().eval()
    plain.load_state_dict({k: v for k, v in student.state_dict().items() if not k.startswith("aspects.")})
    torch.testing.assert_close(plain(images), student(images))
    with pytest.raises(WeightsError, match="tells a score and nothing else"):
        plain.explain(images)


def test_aspects_are_stored_and_described(student):
    content, card = pack_student(student, {**FIELDS, "architecture": {**ARCHITECTURE, "defects": ["blur", "noise"]}})
    again = unpack_student(content, parse_card(card.to_json(), "card"), "x")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again.explain(images).cells, student.explain(images).cells, atol=0.02, rtol=0.02)
    assert again.aspects.defects == ("blur", "noise")
    for wrong in ([1], ["a", "a"], [""], "blur", ["a\n"]):
        fields = {**FIELDS, "sha256": "0" * 64, "architecture": {**ARCHITECTURE, "defects": wrong}}
        with pytest.raises(WeightsError, match=r"architecture\.defects"):
            import json

            parse_card(json.dumps(fields), "card")


def test_pooled_stages_are_the_features(student):
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(pool_stages(student.stages(images)), student.features(images))
