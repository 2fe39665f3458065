"""pyiqa creates leafiqa's students by name. With pyiqa itself where it is installed, else with tables like its own."""

import sys
import types

import pytest
import torch

import leafiqa


@pytest.fixture
def tables(monkeypatch):
    """Stand-ins for the two modules of pyiqa's that are written to; the real ones where they are installed."""
    try:
        import pyiqa  # noqa: F401
    except ImportError:

        class Registry(dict):
            def register(self, kind):
                if kind.__name__ in self:
                    raise KeyError(f"{kind.__name__} is registered already")
                self[kind.__name__] = kind
                return kind

        for name in ("pyiqa", "pyiqa.utils"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        configs, registry = types.ModuleType("configs"), types.ModuleType("registry")
        configs.DEFAULT_CONFIGS = {"leaf_lite2.general": {"metric_opts": {"type": "theirs"}}}
        registry.ARCH_REGISTRY = Registry()
        monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", configs)
        monkeypatch.setitem(sys.modules, "pyiqa.utils.registry", registry)
    monkeypatch.delitem(sys.modules, "leafiqa.integrations.pyiqa", raising=False)
    import leafiqa.integrations.pyiqa as module

    yield module
    sys.modules.pop("leafiqa.integrations.pyiqa", None)


def test_names_are_in_pyiqas_tables_and_the_network_scores(tables, metric, picture):
    named = tables.register()  # once more changes nothing
    assert {"leaf", "leaf_lite0.generated-10"} <= set(named)
    config = tables.DEFAULT_CONFIGS["leaf_lite0.generated-10"]
    assert config["score_range"] == "0, 5" and config["metric_mode"] == "NR" and not config["lower_better"]
    options = dict(tables.DEFAULT_CONFIGS["leaf"]["metric_opts"])
    network = tables.ARCH_REGISTRY.get(options.pop("type"))(**options)
    batch = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.set_grad_enabled(False):
        found = network(batch)
    assert found.shape == (1, 1) and found.item() == pytest.approx(metric(picture).item(), abs=1e-5)
    batch.requires_grad_()
    network(batch).mean().backward()
    assert batch.grad.abs().sum() > 0


def test_names_that_pyiqa_has_are_left_alone(tables):
    if tables.DEFAULT_CONFIGS["leaf_lite2.general"]["metric_opts"]["type"] == "theirs":
        assert "leaf_lite2.general" not in tables.register()


def test_with_pyiqa_itself(tables, metric, tmp_path, picture):
    pyiqa = pytest.importorskip("pyiqa")
    if not hasattr(pyiqa, "create_metric"):
        pytest.skip("pyiqa is not installed")
    from PIL import Image

    Image.fromarray(picture).save(tmp_path / "a.png")
    made = pyiqa.create_metric("leaf", device="cpu")
    assert made(str(tmp_path / "a.png")).item() == pytest.approx(metric(picture).item(), abs=1e-4)
    assert "leaf" in pyiqa.list_models("NR", filter="leaf*") and not made.lower_better
    pixels = torch.rand(2, 3, 64, 64, requires_grad=True)
    loss = pyiqa.create_metric("leaf", as_loss=True, device="cpu")(pixels)
    loss.backward()
    assert loss.item() == pytest.approx(metric(pixels.detach()).mean().item(), abs=1e-5)
    assert pixels.grad.abs().sum() > 0


def test_missing_packages_are_named(monkeypatch):
    for name, package in (("pyiqa", "pyiqa"), ("torchmetrics", "torchmetrics"), ("ray", r"'leafiqa\[ray\]'")):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"leafiqa.integrations.{name}", raising=False)
        with pytest.raises(leafiqa.InputError, match=f"pip install {package}"):
            __import__(f"leafiqa.integrations.{name}")
        sys.modules.pop(f"leafiqa.integrations.{name}", None)
