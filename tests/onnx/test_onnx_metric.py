"""The metric in ONNX Runtime: the same scores as in torch, which it never imports."""

import copy
import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import leafiqa
from leafiqa.errors import ImageError, ImageWarning, InputError
from leafiqa.model.device import cuda_may_be_there
from leafiqa.model.registry import aliases, bundled, names
from leafiqa.model.resizing import resize
from leafiqa.onnx import runtime_resizing as module
from leafiqa.onnx.stored_graphs import FOLDER, architecture_key, stored_graph
from tests.conftest import invoke, make_picture
from tests.test_metric import forms

pytest.importorskip("onnxruntime")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def by_runtime():
    return leafiqa.create_metric("leaf", backend="onnx")


@pytest.mark.parametrize("name", [name for name in names() if name not in aliases()])
def test_every_bundled_student_agrees_with_torch_and_needs_no_export(name, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    own, expected = leafiqa.create_metric(name, backend="onnx"), leafiqa.create_metric(name, device="cpu")
    width = expected.score_range[1] - expected.score_range[0]
    pictures = [picture, make_picture(33, 200), make_picture(256, 256, 7)]
    np.testing.assert_allclose(own(pictures), expected(pictures).numpy(), atol=TOLERANCE * width)
    assert (own.score_range, own.metric_name, own.card) == (expected.score_range, expected.metric_name, expected.card)


def test_every_architecture_has_its_graph_and_there_are_no_others():
    cards = [bundled(name)[1] for name in names() if name not in aliases()]
    wanted = {architecture_key(card) for card in cards}
    told = "run python -m benchmarks.onnx_graphs"
    assert {path.stem for path in FOLDER.glob("*.onnx")} == wanted, told


def test_stored_graphs_are_what_export_writes_today():
    pytest.importorskip("onnx")
    from leafiqa.model.checkpoint import load_student
    from leafiqa.onnx.exporting import network_model, reduction, without_weights

    file, card = bundled("leaf")
    student = load_student(file, card)
    graph, told = without_weights(network_model(student, reduction(student)), student)
    place = FOLDER / f"{architecture_key(card)}.onnx"
    assert json.loads(place.with_suffix(".json").read_text()) == told
    if torch.__version__.startswith("2.14"):  # exporters of other versions write the same in other words
        assert graph == place.read_bytes()


def test_convolutions_pad_where_sides_are_multiples_of_the_reduction():
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from leafiqa.model.student import Student
    from leafiqa.onnx.exporting import network_model

    torch.manual_seed(0)
    student = Student("tf_efficientnet_lite0", stages=(1, 2)).eval()
    for multiple, sizes in ((8, [(96, 64), (8, 200)]), (12, [(96, 64), (60, 84)]), (1, [(97, 64), (5, 33)])):
        model = network_model(student, multiple)
        onnx.checker.check_model(model, full_check=True)
        assert any(node.op_type == "Pad" for node in model.graph.node) == (multiple != 8)
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for size in sizes:
            pixels = torch.rand(1, *size, 3)
            with torch.no_grad():
                expected = student(pixels.permute(0, 3, 1, 2)).sigmoid().numpy()
            found = session.run(None, {"pixels": pixels.numpy()})[0]
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{multiple} {size}")


def test_other_padding_stays_as_it_is():
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from leafiqa.model.student import Student
    from leafiqa.onnx.exporting import network_model, reduction

    torch.manual_seed(0)
    student = Student("resnetblur18", stages=(1, 2)).eval()  # reflects the border before it blurs and steps
    with torch.no_grad():
        for part in student.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2)
        student.head[0].weight.mul_(20)
        pixels = torch.rand(1, 96, 64, 3)
        expected = student(pixels.permute(0, 3, 1, 2)).sigmoid().numpy()
    model = network_model(student, reduction(student))
    assert any(node.op_type == "Pad" for node in model.graph.node)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"pixels": pixels.numpy()})[0], expected, atol=1e-5)


def test_stored_graphs_are_for_multiples_of_what_they_were_made_for():
    card = bundled("leaf")[1]
    for multiple, there in ((32, True), (64, True), (16, False), (1, False)):
        other = dataclasses.replace(card, preprocess={**card.preprocess, "multiple": multiple})
        assert (stored_graph(other) is not None) == there


def test_every_form_of_input(by_runtime, metric, picture, tmp_path):
    expected = metric(picture).item()
    for name, form in forms(picture, tmp_path).items():
        found = by_runtime(form)
        assert found.shape == (1,) and found.dtype == np.float32, name
        assert found[0] == pytest.approx(expected, abs=TOLERANCE), name
    batch = torch.stack([torch.from_numpy(make_picture(64, 64, seed)).permute(2, 0, 1) for seed in range(3)])
    np.testing.assert_allclose(by_runtime(batch), metric(batch).numpy(), atol=TOLERANCE)
    assert by_runtime([]).shape == (0,)


def test_order_and_mixed_sizes(by_runtime, metric, tmp_path):
    pictures = [make_picture(20 + 9 * seed, 200 - 7 * seed, seed) for seed in range(20)]
    paths = []
    for number, pixels in enumerate(pictures):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    mixed = [paths[i] if i % 2 else pictures[i] for i in range(20)]
    np.testing.assert_allclose(by_runtime(mixed), metric(pictures).numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("size", [(512, 512), (211, 1500), (900, 37), (5, 3), (1, 1), (3000, 1), (1, 3000)])
def test_pixels_are_resized_as_in_torch(size):
    pixels = make_picture(*size)
    for given in (pixels, pixels.astype(np.float32) / 255):
        white = 255 if given.dtype == np.uint8 else 1
        expected = resize(torch.from_numpy(given).permute(2, 0, 1)[None], 96, 160)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(module.resize(given[None], 96, 160)[0] / white, expected, atol=2e-6)


@pytest.mark.parametrize("size", [(211, 150), (3000, 1), (1, 3000)])
def test_large_pictures_are_resized_in_pieces(size, by_runtime, metric, monkeypatch):
    pixels = make_picture(*size)
    expected = metric(pixels).item()
    monkeypatch.setattr(module, "_AT_A_TIME", 1000)
    monkeypatch.setattr(module, "_WIDEST", 300)
    monkeypatch.setattr(module, "_LARGE", 0)  # shared by threads, as it is one picture
    monkeypatch.setattr(module, "LONGEST_KEPT", 0)  # so that each matrix is seen being made
    monkeypatch.setattr(by_runtime, "most_at_once", 2)
    matrix, shorten, looked_at, made, threads = module._matrix, module._shortened, [], [], set()

    def counted(sums):
        threads.add(threading.current_thread())
        looked_at.append(sums.high - sums.low)
        return matrix(sums)

    def shortened(*given):
        made.append(shorten(*given))
        return made[-1]

    monkeypatch.setattr(module, "_matrix", counted)
    monkeypatch.setattr(module, "_shortened", shortened)
    for given in (pixels, pixels.astype(np.float32) / 255):
        assert by_runtime(given)[0] == pytest.approx(expected, abs=TOLERANCE)
    # As many lines as fit, or those of one sum; and a strip is not widened before it is shortened.
    assert len(looked_at) > 20 and max(looked_at) <= max(1000 // 3, 2 * 3000 // 192 + 2)
    assert max(one.size for one in made) <= 768 * 192 * 3
    assert len(threads) > 1 and threading.current_thread() not in threads


def test_several_pictures_go_through_the_network_at_the_same_time(by_runtime, picture, tmp_path, monkeypatch):
    """Each waits in the network for two others: one after the other they would wait for ever."""
    expected = float(by_runtime(picture)[0])
    own, together = leafiqa.create_metric("leaf", backend="onnx"), threading.Barrier(3)
    network = own._network

    class Waiting:
        def run(self, *given):
            together.wait(timeout=30)
            return network.run(*given)

    monkeypatch.setattr(own, "_network", Waiting())
    monkeypatch.setattr(own, "most_at_once", 3)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        Image.fromarray(picture).save(path)
    assert own(paths) == pytest.approx([expected] * 6)
    ready = own.prepare_decoded(own.decode(picture))
    assert own.score_prepared([ready] * 3) == pytest.approx([expected] * 3)
    assert [row.score for row in leafiqa.score(paths, own).rows] == pytest.approx([expected] * 6)

    def filled():  # a caller may fill one array again and again
        array = np.zeros_like(picture)
        for _ in range(3):
            array[:] = picture
            yield array
            array[:] = 0

    assert own(filled()) == pytest.approx([expected] * 3)
    monkeypatch.setattr(own, "_network", None)  # a single one is for all cores
    for single in (picture, paths[0], torch.from_numpy(picture.copy()).permute(2, 0, 1)):
        assert own(single) == pytest.approx([expected])


def test_bad_images(by_runtime, picture, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError):
        by_runtime(tmp_path / "bad.png")
    with pytest.warns(ImageWarning, match=r"image 1 has no score .*bad\.png") as told:
        scores = by_runtime([picture, tmp_path / "bad.png", picture])
    assert told[0].filename == __file__
    assert np.isnan(scores[1]) and scores[0] == scores[2] > 0
    for wrong in (
        picture[:0],
        np.empty((4, 0, 3), np.float32),
        picture.astype(np.float32),
        picture.astype(np.int64),
        picture[..., 0],
        5,
        {"a": picture},
    ):
        with pytest.raises(InputError):
            by_runtime(wrong)
    with pytest.raises(InputError, match=r"image 1: a float image must lie in \[0, 1\]; it spans"):
        by_runtime([picture, picture.astype(np.float32)])
    nan = picture.astype(np.float32) / 255
    nan[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="lie in"):
        by_runtime(nan)


def test_an_animation_is_told_of(by_runtime):
    frames = [Image.fromarray(make_picture(32, 32, seed)) for seed in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(ImageWarning, match="first of 3 frames"):
        by_runtime(stream.getvalue())


def test_copies_and_pickles_score_the_same(by_runtime, picture):
    expected = by_runtime(picture)
    for twin in (copy.deepcopy(by_runtime), pickle.loads(pickle.dumps(by_runtime))):
        assert np.array_equal(twin(picture), expected) and np.array_equal(twin([picture] * 3), np.repeat(expected, 3))
        assert (twin.card, twin.most_at_once, twin.draft) == (by_runtime.card, by_runtime.most_at_once, False)


def test_threads_get_the_same_scores(by_runtime):
    pictures = [make_picture(64 + 16 * seed, 80, seed) for seed in range(4)]
    expected, found = np.concatenate([by_runtime(picture) for picture in pictures]), {}

    def work(number):
        found[number] = np.concatenate([by_runtime(picture) for picture in pictures])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(np.array_equal(found[number], expected) for number in range(4))


def test_what_it_cannot_do_is_said(tmp_path):
    for wrong in ({"as_loss": True}, {"dtype": torch.float16}, {"inert": False}):
        with pytest.raises(InputError, match="backend='torch'"):
            leafiqa.create_metric("leaf", backend="onnx", **wrong)
    with pytest.raises(InputError, match="on the CPU, got device='cuda'"):
        leafiqa.create_metric("leaf", backend="onnx", device="cuda")
    with pytest.raises(InputError, match="one of torch, onnx"):
        leafiqa.create_metric("leaf", backend="jax")
    for number in range(5):
        Image.fromarray(make_picture(seed=number)).save(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match="create it with backend='torch'"):
        leafiqa.select(tmp_path, budget=3, metric=leafiqa.create_metric("leaf", backend="onnx"))


SCRIPT = """
import sys, time
started = time.perf_counter()
import leafiqa
metric = leafiqa.create_metric("leaf", backend="onnx")
metric.most_at_once = min(2, metric.most_at_once)  # each picture at work takes memory, whatever the machine
scores = metric(sys.argv[1:])
took = time.perf_counter() - started
with open("/proc/self/status") as file:
    peak = next(line for line in file if line.startswith("VmHWM:")).split()[1]
table = leafiqa.score(sys.argv[1:])
assert abs(scores[0] - table.rows[0].score) < 1e-6
from leafiqa.cli.main import cli
cli(["score", *sys.argv[1:]], standalone_mode=False)
assert "torch" not in sys.modules and "timm" not in sys.modules and "onnx" not in sys.modules
print(took, peak)
"""


def test_torch_is_never_imported_and_starting_is_quick(tmp_path):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("this system does not tell a process's peak memory")
    if cuda_may_be_there():
        pytest.skip("where there is a GPU, torch scores files")
    paths = []
    for number in range(40):
        paths.append(str(tmp_path / f"{number}.jpg"))
        Image.fromarray(make_picture(512, 512, number)).save(paths[-1])
    runs = []
    for _ in range(3):  # a busy machine may be slow once
        done = subprocess.run([sys.executable, "-c", SCRIPT, *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        took, kilobytes = map(float, done.stdout.splitlines()[-1].split())
        runs.append(took)
        if took < 2:
            break
    assert kilobytes < 400 * 1024
    assert min(runs) < 4  # forty pictures and the start; a second on an idle machine


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="page faults are counted on Linux alone")
def test_large_arrays_are_resized_in_memory_that_is_there_already():
    """In a process of its own, with the C library's own settings: fresh memory has a page fault every 4 KiB."""
    code = """
import resource
import numpy as np, leafiqa
metric = leafiqa.create_metric("leaf", backend="onnx")
pixels = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): metric(pixels)
before = faults()
for _ in range(5): metric(pixels)
print((faults() - before) / 5)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    # What lies between the two directions of resizing alone has 2,800 pages.
    assert float(done.stdout) < 600


def test_command_line_says_what_computes(tmp_path, monkeypatch):
    Image.fromarray(make_picture()).save(tmp_path / "a.png")
    monkeypatch.setattr("leafiqa.model.device.cuda_may_be_there", lambda: False)
    found = {}
    for backend in ("auto", "torch", "onnx"):
        done = invoke("score", tmp_path / "a.png", "--backend", backend, "--device", "cpu", "--format", "csv")
        assert done.returncode == 0
        assert f"computed by {'torch' if backend == 'torch' else 'onnxruntime'}" in done.stderr
        found[backend] = float(done.stdout.splitlines()[1].split(",")[1])
    assert found["auto"] == found["onnx"] == pytest.approx(found["torch"], abs=TOLERANCE)
    monkeypatch.setattr("leafiqa.onnx.packages.has_runtime", lambda: False)
    assert "computed by torch" in invoke("score", tmp_path / "a.png").stderr
    assert invoke("score", tmp_path / "a.png", "--backend", "onnx", "--device", "cuda").returncode == 2


def test_several_metrics_of_both_kinds_share_one_pass(tmp_path, metric, by_runtime):
    Image.fromarray(make_picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = leafiqa.score(tmp_path, [metric, by_runtime])
    first, second, *failed = table.rows
    assert first.score == pytest.approx(second.score, abs=TOLERANCE)
    assert [row.error for row in failed] == ["the file is empty"] * 2
