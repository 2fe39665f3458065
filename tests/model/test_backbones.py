"""Several backbones that look at the same pixels."""

import dataclasses
import json

import pytest
import torch
from torch import nn

import leafiqa
from leafiqa.model import differences
from leafiqa.model.backbones import Backbones, build
from leafiqa.model.card import read_card
from leafiqa.model.checkpoint import load_student, pack_student, save_student, write_student
from leafiqa.model.fused_network import FusedConvolution, convolutions_before, fused_copy
from leafiqa.model.registry import bundled
from leafiqa.model.student import Student
from leafiqa.onnx.stored_graphs import architecture_key
from leafiqa.training.optimisation import count_blocks, freeze
from tests.conftest import make_picture

NAMES = ("resnet10t", "mobilenetv3_small_050")
STAGES = (1, 2, 3)


def images(seed=0):
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pair():
    """A student of two backbones, with statistics as training leaves them."""
    torch.manual_seed(0)
    student = Student(NAMES, STAGES, 16, experts=2, defects=("blur", "noise")).eval().requires_grad_(False)
    for norm in student.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
    student.feature_std.fill_(3)
    return student


def fields(**changes):
    return {
        "name": "pair.mine",
        "architecture": {
            "backbone": list(NAMES),
            "stages": list(STAGES),
            "hidden": 16,
            "experts": 2,
            "defects": ["blur", "noise"],
        },
        "preprocess": bundled("leaf")[1].preprocess,
        "score": {"range": [0, 1]},
        **changes,
    }


def test_features_are_those_of_each_backbone_in_turn(pair):
    each = [Student(name, STAGES).eval().requires_grad_(False) for name in NAMES]
    for one, backbone in zip(each, pair.backbone):
        one.backbone.load_state_dict(backbone.state_dict())
    expected = torch.cat([one.features(images()) for one in each], 1)
    assert torch.equal(pair.features(images()), expected)
    channels = [count for one in each for count in one.backbone.feature_info.channels()]
    assert pair.backbone.feature_info.channels() == channels and expected.shape[1] == 2 * sum(channels)
    assert pair.backbone.feature_info.reduction() == [4, 8, 16, 4, 8, 16]
    seen = pair.explain(images())
    assert seen.cells.shape == (2, 4, 6) and torch.equal(seen.logits, pair(images()))


def test_the_fused_copy_fuses_all_of_them(pair):
    fused = fused_copy(pair)
    count = sum(isinstance(one, FusedConvolution) for one in fused.backbone[1].modules())
    assert count == len(convolutions_before(pair.backbone[1], images())) > 10
    assert torch.allclose(fused(images(1)), pair(images(1)), atol=1e-4)


def test_written_and_read(pair, tmp_path):
    save_student(pair, tmp_path, fields())
    metric = leafiqa.create_metric(weights=tmp_path / "pair.mine.safetensors", device="cpu")
    assert isinstance(metric.student.backbone, Backbones)
    for name, value in pair.state_dict().items():
        assert torch.allclose(metric.student.state_dict()[name].float(), value.float(), rtol=1e-3, atol=1e-6), name
    half = leafiqa.create_metric(weights=tmp_path / "pair.mine.safetensors", device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in half.student.backbone.parameters()} == {torch.bfloat16}
    features = metric.student.features(images())
    assert torch.allclose(half.student.features(images()).float(), features, rtol=0.1, atol=0.1 * features.std().item())


def test_exported_scores_the_same(pair, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    save_student(pair, tmp_path, fields())
    place = tmp_path / "pair.mine.safetensors"
    picture = make_picture(60, 90)
    expected = leafiqa.create_metric(weights=place, device="cpu")(picture).item()
    assert leafiqa.create_metric(weights=place, backend="onnx")(picture)[0] == pytest.approx(expected, abs=1e-4)


def beside_leaf(leaf, card):
    """Return a student of leaf's backbone, and of another after it, and what goes onto its card."""
    names = [card.architecture["backbone"], NAMES[1]]
    torch.manual_seed(1)
    student = Student(tuple(names), (1, 2, 3, 4), 16).eval().requires_grad_(False)
    student.backbone[0].load_state_dict(leaf.backbone.state_dict())
    return student, fields(architecture={"backbone": names, "stages": [1, 2, 3, 4], "hidden": 16})


@pytest.fixture
def stored_beside_leaf(tmp_path):
    file, card = bundled("leaf")
    student, told = beside_leaf(load_student(file, card), card)
    return student, write_student(*pack_student(student, told, base=card), tmp_path)


def test_of_a_base_among_its_backbones_nothing_is_stored(stored_beside_leaf):
    student, file = stored_beside_leaf
    card = read_card(file.with_suffix(".json"))
    assert card.base == {"name": "leaf_lite0.general", "sha256": bundled("leaf")[1].sha256, "backbone": 0}
    assert file.stat().st_size < 2_000_000 < 6_000_000 < bundled("leaf")[0].stat().st_size
    again = load_student(file, card)
    for name, value in student.state_dict().items():
        stored = value if name.startswith("backbone.0.") or not value.is_floating_point() else value.half().float()
        assert torch.equal(again.state_dict()[name], stored), name


def test_a_calibration_of_it_can_be_stored_as_a_difference_again(stored_beside_leaf, monkeypatch):
    _, file = stored_beside_leaf
    for part in (bundled("leaf")[0], bundled("leaf")[0].with_suffix(".json")):
        (file.parent / part.name).write_bytes(part.read_bytes())
    monkeypatch.setattr(differences, "weights_folder", lambda: file.parent)
    card = read_card(file.with_suffix(".json"))
    student = load_student(file, card).requires_grad_(False)
    student.head[-1].bias += 0.5
    told = {name: getattr(card, name) for name in card.__dataclass_fields__ if name != "sha256"}
    content, further = pack_student(student, {**told, "name": "pair.further"}, base=card)
    assert len(content) < 1000 and further.base == {"name": card.name, "sha256": card.sha256}
    again = load_student(write_student(content, further, file.parent), further)
    assert torch.allclose(again(images()), student(images()), atol=1e-3)


@pytest.mark.parametrize("wrong", [2, -1, "0", [0], True, 1.0])
def test_a_base_that_is_none_of_its_backbones(stored_beside_leaf, wrong):
    _, file = stored_beside_leaf
    text = json.loads(file.with_suffix(".json").read_text())
    text["base"]["backbone"] = wrong
    file.with_suffix(".json").write_text(json.dumps(text))
    with pytest.raises(leafiqa.WeightsError, match=r"base\.backbone must be the place of one of"):
        leafiqa.create_metric(weights=file, device="cpu")


def test_no_base_of_another_backbone(pair):
    with pytest.raises(leafiqa.WeightsError, match=r"leaf_lite0\.general is a tf_efficientnet_lite0, which is none of"):
        pack_student(pair, fields(), base=bundled("leaf")[1])


@pytest.mark.parametrize("names", [[], ["resnet10t"], ["resnet10t", 3]])
def test_cards_of_no_backbones(pair, tmp_path, names):
    save_student(pair, tmp_path, fields())
    place = tmp_path / "pair.mine.json"
    text = json.loads(place.read_text())
    text["architecture"]["backbone"] = names
    place.write_text(json.dumps(text))
    with pytest.raises(leafiqa.WeightsError, match=r"architecture\.backbone is not what it should be"):
        leafiqa.create_metric(weights=place, device="cpu")


def test_backbones_that_timm_does_not_know():
    for names in ("no_such_net", ("resnet10t", "no_such_net"), ("resnet10t", "hf-hub:timm/resnet10t.c3_in1k")):
        with pytest.raises(leafiqa.WeightsError, match="knows no backbone"):
            build(names, STAGES)


def test_blocks_are_kept_beside_each_other():
    names = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
    student = Student(names, (1, 2), 16)
    assert count_blocks(student) == count_blocks(Student(names[0], (1, 2), 16)) > 3
    freeze(student, 2)
    for backbone in student.backbone:
        learns = [any(p.requires_grad for p in block.parameters()) for block in backbone.blocks]
        assert learns == [False, False] + [True] * (len(learns) - 2)
        assert not any(p.requires_grad for p in backbone.conv_stem.parameters())


def test_a_backbone_that_is_not_built_of_blocks_learns_whole_and_the_other_keeps_its_own():
    student = Student(("densenet121", "mobilenetv3_small_050"), (1, 2), 16)
    assert count_blocks(student) == len(student.backbone[1].blocks) > 2
    freeze(student, 2)
    assert all(p.requires_grad for p in student.backbone[0].parameters())
    assert not any(p.requires_grad for p in student.backbone[1].blocks[1].parameters())


def test_graphs_of_many_backbones_have_names_that_a_disk_can_hold(pair, tmp_path):
    card = save_student(pair, tmp_path, fields())
    many, more = (
        dataclasses.replace(card, architecture={**card.architecture, "backbone": ["tf_efficientnet_lite0"] * count})
        for count in (20, 21)
    )
    assert len(architecture_key(many)) < 200 and architecture_key(many) != architecture_key(more)
