"""One ONNX file is the whole metric: pixels of any size in, the same scores out."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import leafiqa
from leafiqa.errors import InputError, OutputError
from tests.browser import browser, opened, whole_shot  # noqa: F401
from tests.conftest import invoke, make_picture

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return leafiqa.export(tmp_path_factory.mktemp("export") / "leaf.onnx")


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])


def score(session, pixels):
    return session.run(["score"], {"image": pixels})[0]


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (96, 128), (512, 512), (7, 900), (900, 7), (1080, 1920), (3000, 4000)]
)
def test_any_size_scores_as_in_torch(session, metric, size):
    pixels = make_picture(*size)
    found = score(session, pixels[None])
    assert found.shape == (1,) and found.dtype == np.float32
    assert found[0] == pytest.approx(metric(pixels).item(), abs=TOLERANCE)


def test_batches_and_order(session, metric):
    pictures = np.stack([make_picture(80, 112, seed) for seed in range(5)])
    np.testing.assert_allclose(score(session, pictures), metric(list(pictures)).numpy(), atol=TOLERANCE)


@pytest.mark.data
def test_two_hundred_real_pictures(session, metric, data_folder):
    paths = [
        path
        for folder in ("agiqa3k", "biq2021", "pristine")
        for path in sorted((data_folder / folder / "images").iterdir())
    ]
    chosen = paths[:: len(paths) // 200][:200]
    assert len(chosen) == 200
    gaps = []
    for path in chosen:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        gaps.append(abs(score(session, pixels[None])[0] - metric(pixels).item()))
    assert max(gaps) < TOLERANCE


def test_calibrated_students_score_on_their_scale(tmp_path):
    place = leafiqa.export(tmp_path / "five.onnx", "leaf_lite0.generated-10", float_pixels=True)
    session = onnxruntime.InferenceSession(str(place), providers=["CPUExecutionProvider"])
    pixels = make_picture(200, 150)
    expected = leafiqa.create_metric("leaf_lite0.generated-10", device="cpu")
    assert expected.score_range == (0.0, 5.0)
    found = score(session, pixels[None].astype(np.float32) / 255)[0]
    assert found == pytest.approx(expected(pixels).item(), abs=5 * TOLERANCE)


def test_the_file_says_what_it_is(exported, metric):
    model = onnx.load(str(exported))
    onnx.checker.check_model(model, full_check=True)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["name"] == metric.metric_name and told["sha256"] == metric.card.sha256
    assert json.loads(told["score_range"]) == [0.0, 1.0] and json.loads(told["licences"])["weights"] == "Apache-2.0"
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert [entry.name for entry in model.graph.input] == ["image"] and model.producer_name == "leafiqa"
    # Nothing of the machine that wrote it.
    assert (
        b"site-packages" not in exported.read_bytes() and str(Path.home()).encode() + b"/" not in exported.read_bytes()
    )


def test_a_backbone_that_is_not_bundled(tmp_path, metric):
    import torch

    from leafiqa.model.checkpoint import save_student
    from leafiqa.model.student import Student

    torch.manual_seed(3)
    fields = {
        "name": "small.mine",
        "architecture": {"backbone": "resnet10t", "stages": [1, 2, 3], "hidden": 16},
        "preprocess": {**metric.card.preprocess, "multiple": 16, "area": 112 * 112},
        "score": {"range": [-1, 3], "unit": "points"},
    }
    save_student(Student("resnet10t", (1, 2, 3), 16).eval(), tmp_path, fields)
    place = tmp_path / "small.mine.safetensors"
    session = onnxruntime.InferenceSession(str(leafiqa.export(tmp_path / "small.onnx", weights=place)))
    by_torch = leafiqa.create_metric(weights=place, device="cpu")
    by_runtime = leafiqa.create_metric(weights=place, backend="onnx")
    for pixels in (make_picture(60, 90), make_picture(300, 70)):
        expected = by_torch(pixels).item()
        assert score(session, pixels[None])[0] == pytest.approx(expected, abs=TOLERANCE)
        assert by_runtime(pixels)[0] == pytest.approx(expected, abs=TOLERANCE)


def test_outputs_are_not_lost(tmp_path, exported):
    place = tmp_path / "leaf.onnx"
    place.write_bytes(b"something of mine")
    with pytest.raises(OutputError, match="exists already"):
        leafiqa.export(place)
    with pytest.raises(OutputError, match="not written by leafiqa"):
        leafiqa.export(place, overwrite=True)
    shutil.copy(exported, place)
    assert leafiqa.export(place, overwrite=True) == place
    with pytest.raises(InputError, match=r"must end in \.onnx"):
        leafiqa.export(tmp_path / "leaf.pt")
    assert invoke("export", "leaf", "--weights", "x", "-o", tmp_path / "a.onnx").returncode == 2
    done = invoke("export", "leaf_lite9", "-o", tmp_path / "a.onnx")
    assert done.returncode == 2 and "Did you mean" in done.stderr
    done = invoke("export", "-o", tmp_path / "b.onnx")
    assert done.returncode == 0 and (tmp_path / "b.onnx").stat().st_size > 10**7


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"onnx.*pip install 'leafiqa\[onnx\]'"):
        leafiqa.export(tmp_path / "leaf.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*pip install 'leafiqa\[onnx\]'"):
        leafiqa.create_metric("leaf", backend="onnx")


def test_example_without_leafiqa(exported, metric, tmp_path):
    Image.fromarray(make_picture(120, 90)).save(tmp_path / "a.png")
    script = EXAMPLES / "score_without_leafiqa.py"
    assert "leafiqa" not in script.read_text().split('"""')[2]
    done = subprocess.run(
        [sys.executable, str(script), str(exported), str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert float(done.stdout.split()[0]) == pytest.approx(metric(tmp_path / "a.png").item(), abs=2e-4)


def test_example_in_a_browser(exported, metric, tmp_path, browser):  # noqa: F811
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    packed = subprocess.run(["npm", "pack", "onnxruntime-web@^1.20"], cwd=tmp_path, capture_output=True, text=True)
    if packed.returncode:
        pytest.skip("onnxruntime-web cannot be had here")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
            (tmp_path / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())
    shutil.copy(exported, tmp_path / "leaf.onnx")
    shutil.copy(EXAMPLES / "score_in_browser.html", tmp_path / "index.html")
    sizes = [(384, 512), (1, 1), (600, 90)]
    for number, size in enumerate(sizes):
        Image.fromarray(make_picture(*size, seed=number)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        browser.get(f"http://127.0.0.1:{server.server_port}/index.html")
        wait = WebDriverWait(browser, 60)
        text = lambda name: browser.find_element(By.ID, name).text  # noqa: E731
        wait.until(lambda _: "stays in this browser" in text("note"))
        for number in range(len(sizes)):
            browser.find_element(By.ID, "file").send_keys(str(tmp_path / f"{number}.png"))
            wait.until(lambda _, number=number: text("note").startswith(f"{number}.png") and text("score"))
            expected = metric(tmp_path / f"{number}.png").item()
            assert float(text("score")) == pytest.approx(expected, abs=2e-4)
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "bad.png"))
        wait.until(lambda _: "cannot be scored" in text("note"))
        assert text("score") == ""
        if place := os.environ.get("LEAFIQA_SHOTS"):
            browser.find_element(By.ID, "file").send_keys(str(tmp_path / "0.png"))
            wait.until(lambda _: text("score"))
            whole_shot(browser, Path(place) / "browser.png")
    finally:
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass
