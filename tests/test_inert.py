"""A metric inside somebody's module: nothing done to the module reaches it, but for a move to another device."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import leafiqa
from tests.conftest import make_picture


class Model(nn.Module):
    def __init__(self, metric):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.metric = metric


@pytest.fixture
def model(metric):
    return Model(copy.deepcopy(metric))


@pytest.fixture(scope="module")
def batch():
    return torch.stack([torch.from_numpy(make_picture(seed=i).copy()).permute(2, 0, 1) for i in range(2)])


def convert(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def update_statistics(model):
    torch.optim.swa_utils.update_bn([(torch.rand(2, 3, 9, 9),)], Wrapped(model))
    return model


class Wrapped(nn.Module):
    """Runs the network and the metric on a batch, as `update_bn` calls it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.net(images).mean() + self.model.metric(images).mean()


def train_everything(model):
    model.train().requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    loss = model.net(torch.rand(2, 3, 9, 9)).square().mean()
    loss.backward()
    optimizer.step()
    return model


def fill(model):
    return model.apply(lambda module: [nn.init.constant_(p, 3.0) for p in module.parameters(recurse=False)] and None)


@pytest.mark.parametrize(
    "done",
    [
        convert,
        update_statistics,
        train_everything,
        fill,
        lambda model: model.half(),
        lambda model: model.double(),
        lambda model: model.to(torch.bfloat16),
        lambda model: copy.deepcopy(model),
        lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}),
    ],
    ids=["SyncBatchNorm", "update_bn", "training", "apply", "half", "double", "bfloat16", "deepcopy", "quantised"],
)
def test_scores_stay_whatever_is_done_to_the_module(model, metric, batch, done):
    expected = metric(batch)
    assert torch.equal(done(model).metric(batch), expected)


def test_it_has_no_part_in_parameters_state_and_modules(model, metric):
    without = Model(nn.Identity())
    assert set(model.state_dict()) == set(without.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in without.named_parameters()]
    assert sum(1 for _ in model.modules()) == sum(1 for _ in without.modules())
    assert not list(metric.parameters()) and not list(metric.buffers()) and not list(metric.children())


def test_checkpoints_from_before_load(model):
    """When a metric was an ordinary child, its 300 entries stood in the checkpoints of whatever held it."""
    old = Model(leafiqa.create_metric("leaf", device="cpu", inert=False))
    state = old.state_dict()
    assert sum(name.startswith("metric.student.") for name in state) > 250
    before = {name: value.clone() for name, value in model.metric.student.state_dict().items()}
    state = {name: value + 1 for name, value in state.items()}
    model.load_state_dict(state)
    assert all(torch.equal(before[name], value) for name, value in model.metric.student.state_dict().items())


def test_it_can_be_an_ordinary_child(batch, metric):
    metric_inside = leafiqa.create_metric("leaf", device="cpu", inert=False, as_loss=True)
    model = Model(metric_inside).requires_grad_(True).train()
    assert any(name.startswith("metric.student.") for name, _ in model.named_parameters())
    model.metric(batch).backward()
    assert model.metric.student.head.gate.weight.grad.abs().sum() > 0
    model.half()
    assert next(model.metric.student.parameters()).dtype == torch.float16


def test_it_moves_with_its_module(model, monkeypatch):
    """What `.to()` and `.cuda()` do to a module's tensors tells the metric where to go; the network goes there."""
    moved = []
    monkeypatch.setattr(model.metric.student, "to", moved.append)
    model._apply(lambda tensor: tensor if tensor.numel() else SimpleNamespace(device=torch.device("cuda", 1)))
    assert moved == [torch.device("cuda", 1)]
    model.to(torch.float16)
    assert moved[1:] == [torch.device("cpu")]


@pytest.mark.cuda
def test_it_moves_to_cuda_with_its_module(model, batch, metric):
    model.to("cuda")
    assert model.metric.device.type == "cuda"
    torch.testing.assert_close(model.metric(batch.cuda()).cpu(), metric(batch), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_it_is_still_traceable(metric, batch):
    traced = torch.jit.trace(metric, batch.float() / 255, check_trace=False)
    other = batch.flip(-1).float() / 255
    torch.testing.assert_close(traced(other), metric(other), atol=1e-5, rtol=0)
    with torch.no_grad():
        graph = torch.export.export(metric, (batch.float() / 255,), strict=False)
    torch.testing.assert_close(graph.module()(other), metric(other), atol=1e-5, rtol=0)


def test_compiled_for_several_sizes(metric):
    """Each further size took a quarter of an hour; now the student alone is compiled, resizing is left as it is."""
    import time

    compiled = torch.compile(metric, backend="aot_eager")
    began = time.monotonic()
    for height, width in ((64, 96), (70, 130), (512, 300)):
        pixels = torch.from_numpy(make_picture(height, width).copy()).permute(2, 0, 1)[None].float() / 255
        torch.testing.assert_close(compiled(pixels), metric(pixels), atol=1e-5, rtol=0)
    assert time.monotonic() - began < 90


@pytest.mark.parametrize("overshoot", [0.05, 0.2])
def test_a_loss_clamps_slight_overshoot(loss_metric, overshoot):
    inside = torch.rand(1, 3, 40, 40)
    beyond = inside.clone()
    beyond[..., :5] = 1 + overshoot
    beyond[..., 5:9] = -overshoot
    beyond.requires_grad_()
    loss = loss_metric(beyond)
    # Without a gradient another way of computing is taken, which agrees to rounding.
    torch.testing.assert_close(loss.detach(), loss_metric(beyond.detach().clamp(0, 1)), atol=1e-5, rtol=0)
    loss.backward()
    assert beyond.grad[..., :9].abs().sum() > 0  # and what is beyond can come back
    with pytest.raises(leafiqa.InputError, match=r"\[0, 1\]"):
        loss_metric(torch.full((1, 3, 8, 8), -0.5))


def test_grey_tensors_are_scored(metric):
    grey = torch.rand(2, 1, 40, 50)
    assert torch.equal(metric(grey), metric(grey.expand(-1, 3, -1, -1)))
    assert torch.equal(metric(grey[0]), metric(grey[:1]))


def test_calls_as_pyiqas_callers_write_them(picture):
    loss = leafiqa.create_metric("leaf", True, "cpu")
    assert loss.as_loss and loss.device.type == "cpu"
    assert "leaf" in leafiqa.list_models("NR") and leafiqa.list_models("FR") == []


def test_a_name_is_never_a_place(tmp_path, monkeypatch, metric, picture):
    """A folder called `leaf` beside the user, with another student in it, is not looked at."""
    import json
    import shutil

    from leafiqa.model.places import resolve

    file, card = resolve("leaf_lite0.photo-10")
    (tmp_path / "leaf").mkdir()
    shutil.copy(file, tmp_path / "leaf" / "planted.v1.safetensors")
    fields = json.loads(card.to_json())
    (tmp_path / "leaf" / "planted.v1.json").write_text(json.dumps({**fields, "name": "planted.v1"}))
    monkeypatch.chdir(tmp_path)
    assert torch.equal(leafiqa.create_metric("leaf", device="cpu")(picture), metric(picture))
    assert leafiqa.create_metric(weights="leaf", device="cpu").metric_name == "planted.v1"
    (tmp_path / "mine").mkdir()
    with pytest.raises(leafiqa.UnknownModelError, match="is no name: give it as weights"):
        leafiqa.create_metric("mine")
    from tests.conftest import invoke

    for place in ("./leaf", "leaf/planted.v1.safetensors", "hf-hub:owner/repo"):
        assert "is no name" in invoke("score", "x.png", "--metric", place).stderr
    assert "leaf_lite0.general" in invoke("info", "leaf").stdout.splitlines()[0]
    assert invoke("info", "--weights", "leaf").stdout.splitlines()[0] == "planted.v1"
    from leafiqa.model.places import resolve_text

    assert resolve_text("leaf")[1].name == "leaf_lite0.general" and resolve_text("./leaf")[1].name == "planted.v1"
    (tmp_path / "leaf_lite0.general").mkdir()
    with pytest.raises(leafiqa.WeightsError, match="exactly one"):
        leafiqa.create_metric(weights="leaf_lite0.general")
    with pytest.raises(leafiqa.WeightsError, match="name of a bundled model"):
        leafiqa.create_metric(weights="leaf_lite0.photo-10")
