"""The network that a CPU scores with computes what the student computes."""

import copy
import pickle

import pytest
import torch
from timm.layers.padding import pad_same
from torch import nn

import leafiqa
from leafiqa.model import fused_network as module
from leafiqa.model.fused_network import FusedConvolution, ScoringNetwork, convolutions_before, fuse
from leafiqa.model.student import Student


def images(seed=0, size=96):
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(seed))


def shaken(backbone):
    """A student with statistics and weights of batch normalisation as training leaves them."""
    torch.manual_seed(0)
    student = Student(backbone, stages=(1, 2, 3)).eval()
    for norm in student.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, 0, 0.2)
    return student


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "efficientnet_b0"])
def test_fused_network_computes_the_same(backbone, onednn):
    student = shaken(backbone)
    fused = fuse(student, onednn)
    count = sum(isinstance(one, FusedConvolution) for one in fused.modules())
    assert count == len(convolutions_before(student.backbone, images())) > 10
    assert not any(isinstance(one, nn.BatchNorm2d) and one.running_mean is not None for one in fused.backbone.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(images()), student(images()), atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(fused(images(1, 64)), student(images(1, 64)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("onednn", [True, False])
def test_padding_of_any_size_is_tensorflows_and_even_sides_are_not_copied(onednn, monkeypatch):
    student = shaken("tf_efficientnet_lite0")
    fused = fuse(student, onednn)
    sizes = [(97, 97), (97, 64), (64, 33), (1, 1), (50, 6), (96, 160)]
    with torch.no_grad():
        for size in sizes:
            pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
            torch.testing.assert_close(fused(pixels), student(pixels), atol=2e-5, rtol=1e-5)
        pixels = torch.rand(1, 3, 96, 160)
        copied = []

        def pad(features, *rest):
            copied.append(features.shape[1])
            return pad_same(features, *rest)

        monkeypatch.setattr("timm.layers.padding.pad_same", pad)
        fused(pixels)
        assert copied == [3]  # the picture, not its features
        fused(torch.rand(1, 3, 97, 160))  # one side odd, one even
        assert len(copied) > 2


def test_activations_are_computed_in_the_kernel(metric):
    fused = fuse(metric.student)
    kernels = [one.kernel for one in fused.modules() if isinstance(one, FusedConvolution)]
    assert ("hardtanh", [0.0, 6.0]) in kernels and ("none", []) in kernels and None not in kernels


def test_scores_come_from_the_fused_network_and_losses_do_not(picture, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "_fused", lambda student, onednn: asked.append(onednn) or student)
    leafiqa.create_metric("leaf", device="cpu")(picture)
    assert asked == [True]
    pixels = torch.rand(1, 3, 64, 64, requires_grad=True)
    leafiqa.create_metric("leaf", device="cpu", as_loss=True)(pixels).backward()
    assert pixels.grad.abs().sum() > 0 and asked == [True]


def test_changed_weights_change_the_score(picture):
    own = leafiqa.create_metric("leaf", device="cpu")
    before = own(picture)
    with torch.no_grad():
        for parameter in own.student.head.parameters():
            parameter.mul_(0.5)
    after = own(picture)
    assert (after - before).abs() > 1e-3
    with torch.no_grad():
        expected = own.student(own.preprocess.resize(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])).sigmoid()
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


def test_copies_and_pickles_start_without_one(picture):
    own = leafiqa.create_metric("leaf", device="cpu")
    expected = own(picture)
    assert own._network._made is not None
    for twin in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert twin._network._made is None
        assert torch.equal(twin(picture), expected)


def test_what_cannot_be_fused_is_scored_by_the_student_itself(metric, monkeypatch):
    with torch.no_grad():
        expected = metric.student(images()).sigmoid()
        fused = ScoringNetwork().of(metric.student, images())
        assert fused is not metric.student and not torch.equal(fused(images()).sigmoid(), expected)
        half = copy.deepcopy(metric.student).to(torch.bfloat16)
        assert ScoringNetwork().of(half, images()) is half
        monkeypatch.setattr(module, "_TOLERANCE", -1.0)  # no copy agrees well enough
        plain = ScoringNetwork().of(metric.student, images())
        assert plain is metric.student
    assert ScoringNetwork().of(metric.student, images()) is metric.student  # gradients are wanted


def test_without_onednns_operator_the_plain_one_is_taken(metric, monkeypatch):
    monkeypatch.setattr(module, "_ACTIVATIONS", {nn.ReLU6: ("no such activation", []), nn.Identity: ("none", [])})
    made = []
    original = module._fused
    monkeypatch.setattr(module, "_fused", lambda student, onednn: made.append(onednn) or original(student, onednn))
    with torch.no_grad():
        found = ScoringNetwork().of(metric.student, images())(images()).sigmoid()
        torch.testing.assert_close(found, metric.student(images()).sigmoid(), atol=1e-5, rtol=0)
    assert made == [True, False]


def test_a_network_that_is_trained_is_not_fused(picture):
    own = leafiqa.create_metric("leaf", device="cpu", inert=False)
    own(picture)
    assert own._network is None and own.engine.startswith("torch")
