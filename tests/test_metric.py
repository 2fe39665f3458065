"""The metric's promises: one image, one score, in any form, company, order and repetition."""

import copy
import io
import os
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import leafiqa
from leafiqa.cli.demo import PICTURES
from leafiqa.errors import InputError
from leafiqa.model.head import last_layers
from leafiqa.model.one_thread import can_compute_alone
from leafiqa.preparing import WINDOW
from leafiqa.scoring.pipeline import score_files
from leafiqa.training.degradations.ladders import ladder
from tests.conftest import make_picture

TOLERANCE = 1e-5


def forms(pixels, folder):
    image = Image.fromarray(pixels)
    path = folder / "picture.png"
    image.save(path)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return {
        "str": str(path),
        "Path": path,
        "bytes": path.read_bytes(),
        "file": io.BytesIO(path.read_bytes()),
        "PIL": image,
        "uint8 array": pixels,
        "float array": pixels.astype(np.float32) / 255,
        "uint8 (3,H,W)": tensor,
        "uint8 (1,3,H,W)": tensor[None],
        "float (3,H,W)": tensor.float() / 255,
        "float64": tensor.double() / 255,
        "not contiguous": (tensor.float() / 255).flip(-1).contiguous().flip(-1),
        "list": [image],
        "generator": (p for p in [path]),
    }


def test_every_form_of_input_gives_the_same_score(metric, picture, tmp_path):
    scores = {name: metric(form) for name, form in forms(picture, tmp_path).items()}
    reference = scores["str"].item()
    for name, score in scores.items():
        assert score.shape == (1,) and score.dtype == torch.float32, name
        assert score.item() == pytest.approx(reference, abs=TOLERANCE), name


def test_batch_order_and_company_do_not_matter(metric):
    pictures = [make_picture(seed=i) for i in range(5)]
    alone = torch.cat([metric(p) for p in pictures])
    batch = torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1) for p in pictures])
    torch.testing.assert_close(metric(batch), alone, atol=TOLERANCE, rtol=0)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(metric(batch[order]), alone[order], atol=TOLERANCE, rtol=0)
    assert alone.std() > 10 * TOLERANCE  # the pictures do differ


def test_mixed_sizes_and_forms_keep_their_order(metric, tmp_path):
    pictures = [make_picture(h, w, seed=i) for i, (h, w) in enumerate([(40, 60), (60, 40), (7, 300), (1, 1), (64, 64)])]
    path = tmp_path / "first.png"
    Image.fromarray(pictures[0]).save(path)
    mixed = [path, pictures[1], Image.fromarray(pictures[2]), torch.from_numpy(pictures[3].copy()).permute(2, 0, 1)]
    mixed.append(pictures[4])
    expected = torch.cat([metric(p) for p in pictures])
    torch.testing.assert_close(metric(mixed), expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(metric(iter(mixed)), expected, atol=TOLERANCE, rtol=0)


def test_files_are_decoded_ahead_and_arrays_when_they_come(metric, tmp_path):
    """A caller may fill one array again and again, and hand out files between."""
    pictures = [make_picture(40, 50, seed) for seed in range(12)]
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    expected = torch.cat([metric(pixels) for pixels in pictures])
    buffer = np.empty_like(pictures[0])

    def images():
        for number, pixels in enumerate(pictures):
            if number % 3 == 0:
                yield tmp_path / f"{number}.png"
            else:
                buffer[:] = pixels
                yield buffer

    torch.testing.assert_close(metric(images()), expected, atol=TOLERANCE, rtol=0)
    tensor = torch.empty(3, 40, 50, dtype=torch.uint8)

    def tensors():
        for pixels in pictures:
            tensor.copy_(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
            yield tensor

    torch.testing.assert_close(metric(tensors()), expected, atol=TOLERANCE, rtol=0)


def test_a_buffer_of_the_size_that_the_student_looks_at(metric):
    side = int(metric.preprocess.area**0.5)
    pictures = [make_picture(side, side, seed) for seed in range(3)]
    expected = torch.cat([metric(pixels) for pixels in pictures])
    array = np.empty((side, side, 3), np.float32)
    tensor = torch.empty(3, side, side)

    def images(buffer, fill):
        for pixels in pictures:
            fill(pixels)
            yield buffer

    by_array = metric(images(array, lambda pixels: np.divide(pixels, np.float32(255), out=array)))
    by_tensor = metric(images(tensor, lambda pixels: tensor.copy_(torch.from_numpy(pixels / 255).permute(2, 0, 1))))
    for found in (by_array, by_tensor):
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_warnings_of_files_decoded_ahead_come_in_order_at_the_callers_line(metric, tmp_path):
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(leafiqa.ImageWarning) as told:
        scores = metric([tmp_path / "b.png", make_picture(8, 8), tmp_path / "a.png"])
    assert [str(one.message).split(" ")[1] for one in told] == ["0", "2"] and {one.filename for one in told} == {
        __file__
    }
    assert scores.isnan().tolist() == [True, False, True]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_more_images_than_one_window(metric, monkeypatch, side_by_side):
    if not side_by_side:
        monkeypatch.setattr(type(metric), "at_once", lambda self, images: None)
    small = make_picture(8, 8)
    scores = metric(small if i % 2 else 255 - small for i in range(WINDOW + 3))
    assert scores.shape == (WINDOW + 3,)
    torch.testing.assert_close(scores[2:], scores[:-2], atol=TOLERANCE, rtol=0)


def test_nothing_in_nothing_out(metric):
    assert metric([]).shape == (0,)
    assert metric(torch.zeros(0, 3, 8, 8)).shape == (0,)


def test_repetition_and_globals(metric, picture):
    torch.manual_seed(1)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads(), torch.is_grad_enabled())
    flags = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, Image.MAX_IMAGE_PIXELS)
    first = metric(picture)
    torch.rand(7)
    torch.set_rng_state(before[0])
    second = metric(picture)
    assert torch.equal(first, second)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2:] == (torch.get_num_threads(), torch.is_grad_enabled())
    assert flags == (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, Image.MAX_IMAGE_PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (31, 33), (512, 512), (1500, 2000)])
def test_any_size_scores_within_the_range(metric, size):
    low, high = metric.score_range
    score = metric(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)).item()
    assert low <= score <= high


def test_a_degraded_picture_scores_lower(metric):
    photograph = np.asarray(Image.open(PICTURES / "path.jpg").convert("RGB"))
    for name in ("blur", "noise", "jpeg"):
        scores = metric(ladder(photograph, name, seed=0))
        assert scores[0] - scores[5] > 0.15, name
        assert scores[1] > scores[4], name


def test_noise_and_flat_colour_stay_in_the_lower_half(metric):
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 256, (4, 3, 200, 300), dtype=torch.uint8, generator=generator)
    flat = torch.stack([torch.full((3, 64, 64), v, dtype=torch.uint8) for v in (0, 64, 128, 200, 255)])
    assert metric(noise).max() < 0.5
    assert metric(flat).max() < 0.5


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3, 3), "shape"),
        (torch.zeros(1, 1, 3, 8, 8), "shape"),
        (torch.zeros(1, 4, 8, 8), "alpha"),
        (torch.zeros(1, 8, 8, 3), "channels come first"),
        (torch.zeros(1, 3, 0, 8), "at least one pixel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), "uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "uint8"),
        (torch.zeros(1, 3, 8, 8).to(torch.float8_e4m3fn), "uint8"),
        (torch.full((1, 3, 8, 8), 200.0), "divide by 255"),
        (torch.full((1, 3, 8, 8), -0.5), r"\(x \+ 1\) / 2"),
        (torch.full((1, 3, 8, 8), float("inf")), r"\[0, 1\]"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (np.zeros((8, 8), np.uint8), "np.stack"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"list\(array\)"),
        (np.zeros((3, 8, 8), np.uint8), "channels come last"),
        (np.zeros((8, 8, 3), np.int32), "uint8"),
        (np.full((8, 8, 3), 200.0), "divide by 255"),
        (3.5, "got float"),
        (None, "got NoneType"),
        ({"a": 1}, "dict"),
        ([None], "image 0"),
        ([torch.zeros(2, 3, 8, 8)], "one image"),
    ],
)
def test_wrong_input_is_a_precise_error(metric, bad, message):
    with pytest.raises(leafiqa.InputError, match=message):
        metric(bad)


def test_one_nan_pixel_in_a_batch_names_its_image(metric):
    batch = torch.zeros(3, 3, 8, 8)
    batch[2, 1, 4, 4] = torch.nan
    with pytest.raises(leafiqa.InputError, match="image 2"):
        metric(batch)


def test_a_bad_file_alone_raises_among_others_scores_nan(metric, picture, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(leafiqa.ImageError, match="not an image"):
        metric(bad)
    with pytest.warns(leafiqa.ImageWarning, match=r"image 1 has no score.*bad\.png"):
        scores = metric([picture, bad, picture])
    assert scores[1].isnan() and scores[0] == pytest.approx(metric(picture).item(), abs=TOLERANCE)
    assert scores[2] == pytest.approx(scores[0].item(), abs=TOLERANCE)


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
def test_loss_gradients_on_constant_images(loss_metric, constant):
    pixels = torch.full((2, 3, 40, 50), constant, requires_grad=True)
    loss = loss_metric(pixels)
    loss.backward()
    assert loss.shape == () and pixels.grad.isfinite().all()
    assert (pixels.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_each_pixel_influences_the_score(loss_metric):
    pixels = (torch.from_numpy(make_picture(700, 900).copy()).permute(2, 0, 1)[None].float() / 255).requires_grad_()
    loss_metric(pixels).backward()
    assert pixels.grad.isfinite().all()
    assert (pixels.grad.abs().sum(dim=1) > 0).float().mean() > 0.999


def test_loss_falls_along_its_gradient(loss_metric, metric):
    pixels = (torch.from_numpy(make_picture().copy()).permute(2, 0, 1)[None].float() / 255).requires_grad_()
    loss = loss_metric(pixels)
    assert loss.item() == pytest.approx(1 - metric(pixels).item(), abs=TOLERANCE)
    loss.backward()
    step = (pixels - 1e-3 * pixels.grad / pixels.grad.abs().max()).detach().clamp(0, 1)
    assert loss_metric(step) < loss
    assert not metric(pixels).requires_grad


def test_state_dict_deepcopy_pickle_replica(metric, picture):
    expected = metric(picture)
    twin = leafiqa.create_metric("leaf", device="cpu", inert=False)
    whole = {name: value.clone() for name, value in twin.state_dict().items()}
    with torch.no_grad():
        for layer in last_layers(twin.student.head):
            layer.bias += 3
    assert (twin(picture) - expected).abs() > 0.01
    twin.load_state_dict(whole)
    copies = {
        "state_dict": twin,
        "deepcopy": copy.deepcopy(metric),
        "pickle": pickle.loads(pickle.dumps(metric)),
        "replica": metric._replicate_for_data_parallel(),
    }
    for name, other in copies.items():
        assert other(picture).item() == pytest.approx(expected.item(), abs=1e-6), name


def test_train_mode_changes_nothing(metric, picture):
    expected = metric(picture)
    outer = torch.nn.Sequential(copy.deepcopy(metric)).train()
    assert torch.equal(outer(torch.from_numpy(picture.copy()).permute(2, 0, 1)), expected)
    assert not any(parameter.requires_grad for parameter in outer.parameters())


def test_torch_compile_gives_the_same_scores(metric):
    batch = torch.from_numpy(make_picture().copy()).permute(2, 0, 1)[None].float() / 255
    compiled = torch.compile(metric, backend="aot_eager")
    torch.testing.assert_close(compiled(batch), metric(batch), atol=TOLERANCE, rtol=0)


def test_bfloat16_is_close(metric, picture):
    half = leafiqa.create_metric("leaf", device="cpu", dtype=torch.bfloat16)
    score = half(picture)
    assert score.dtype == torch.float32
    assert score.item() == pytest.approx(metric(picture).item(), abs=0.03)
    assert metric(torch.from_numpy(picture.copy()).permute(2, 0, 1).half() / 255).item() == pytest.approx(
        metric(picture).item(), abs=1e-3
    )


@pytest.mark.parametrize("dtype, last", [(torch.float16, True), (torch.bfloat16, True), (torch.float32, False)])
def test_half_precision_lies_as_tensor_cores_read_it(dtype, last):
    metric = leafiqa.create_metric("leaf", device="cpu", dtype=dtype)
    weights = [one.weight for one in metric.student.backbone.modules() if isinstance(one, torch.nn.Conv2d)]
    spatial = [one for one in weights if one.shape[1] > 1 and one.shape[2] > 1]
    assert spatial and all(one.is_contiguous(memory_format=torch.channels_last) == last for one in spatial)


@pytest.mark.skipif(torch.__version__ < "2.6", reason="older versions ask the driver even for fake tensors")
def test_no_round_trip_and_right_device_on_fake_cuda():
    """Under FakeTensorMode a read-back of values or a mix of devices raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=False):
        metric = _unfilled()
        assert metric.device.type == "cuda"
        for batch in (torch.rand(2, 3, 700, 500, device="cuda"), torch.zeros(2, 3, 50, 70, dtype=torch.uint8).cuda()):
            scores = metric(batch)
            assert scores.device.type == "cuda" and scores.shape == (2,) and scores.dtype == torch.float32
        loss = _unfilled(as_loss=True)(torch.rand(1, 3, 64, 64, device="cuda", requires_grad=True))
        assert loss.device.type == "cuda" and loss.requires_grad


def _unfilled(as_loss=False):
    from leafiqa.metric import Metric
    from leafiqa.model.places import resolve
    from leafiqa.model.student import Student

    card = resolve("leaf")[1]
    with torch.device("cuda"):  # while building only: what the call creates must find its device by itself
        return Metric(Student(card.architecture["backbone"]).eval(), card, as_loss=as_loss)


def test_invalid_values_score_nan_where_they_are_not_read_back(metric, picture):
    valid = torch.tensor([True, False])
    resized = metric.preprocess.resize(torch.from_numpy(np.stack([picture] * 2)).permute(0, 3, 1, 2))
    scores = metric._score_resized(resized, valid)
    assert scores[0].isfinite() and scores[1].isnan()


@pytest.mark.cuda
def test_cuda_agrees_with_cpu(metric, picture):
    on_cuda = leafiqa.create_metric("leaf", device="cuda")
    batch = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    there = batch.cuda()
    torch.testing.assert_close(on_cuda(there).cpu(), metric(batch), atol=1e-4, rtol=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_cuda(there)
        on_cuda(there.float() / 255)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_code_written_for_pyiqa(picture, tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    code = """
import leafiqa as pyiqa
import torch
device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
assert "leaf" in pyiqa.list_models()
assert "leaf" in pyiqa.list_models(metric_mode="NR")
iqa_metric = pyiqa.create_metric("leaf", device=device)
assert iqa_metric.lower_better is False and iqa_metric.metric_mode == "NR"
score_fr = iqa_metric(PATH)
batch = torch.rand(4, 3, 64, 64).to(device)
mean = iqa_metric(batch).mean().item()
iqa_loss = pyiqa.create_metric("leaf", device=device, as_loss=True)
batch.requires_grad_()
loss = iqa_loss(batch)
loss.backward()
"""
    scope = {"PATH": str(path)}
    exec(compile(code, "pyiqa_code", "exec"), scope)
    assert 0 <= scope["score_fr"].item() <= 1 and 0 <= scope["mean"] <= 1
    assert scope["batch"].grad.abs().sum() > 0


def test_attributes(metric):
    assert metric.metric_name == metric.card.name == "leaf_lite0.general"
    assert metric.score_range == (0.0, 1.0) and metric.lower_better is False
    assert metric.device == torch.device("cpu")
    assert metric.card.short_hash in repr(metric)


def test_animated_image_says_so(metric, picture, tmp_path):
    path: Path = tmp_path / "a.gif"
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.warns(leafiqa.ImageWarning, match="first of 2 frames"):
        metric(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric(picture)


def test_compiled_metric_reads_files_and_refuses_nothing_good(metric, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    compiled = torch.compile(metric, backend="eager")
    expected = metric(tmp_path / "a.png")
    torch.testing.assert_close(compiled(tmp_path / "a.png"), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(compiled([tmp_path / "a.png", picture]), expected.repeat(2), atol=1e-5, rtol=0)


def test_surroundings_of_lower_precision_change_nothing(metric, picture):
    expected = metric(picture)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric(picture), expected)
    try:
        torch.set_default_dtype(torch.bfloat16)
        fresh = leafiqa.create_metric("leaf", device="cpu")
        assert torch.equal(fresh(picture), expected) and fresh([]).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_creating_a_metric_leaves_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    leafiqa.create_metric("leaf", device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_an_image_of_wrong_values_among_several_is_named(metric):
    good = torch.rand(3, 40, 40)
    with pytest.raises(leafiqa.InputError, match=r"^image 2: an image tensor must not hold NaN; it does"):
        metric([good, good, torch.full((3, 40, 40), torch.nan)])
    with pytest.raises(leafiqa.InputError, match=r"^image 1: .*divide by 255"):
        metric([good, good * 200])


def test_every_animated_image_says_so_where_it_was_scored(metric, picture, tmp_path):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    for name in ("a.gif", "b.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name in ("a.gif", "b.gif"):
            metric(tmp_path / name)
        metric([tmp_path / "a.gif"])
    assert len(caught) == 3 and {os.path.basename(warning.filename) for warning in caught} == {"test_metric.py"}
    assert "a.gif: animated: first of 2 frames" in str(caught[0].message)


@pytest.mark.filterwarnings("ignore::leafiqa.ImageWarning")
def test_images_that_are_made_ready_together_score_the_same(monkeypatch, metric, tmp_path):
    """As on an accelerator: by size, in order, with one that is cut off and one of 16 bits among them."""
    rng = np.random.default_rng(4)
    sources = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        size = ((40, 60), (60, 40), (40, 60))[number % 3]
        if number == 4:
            Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16)).save(path)
        else:
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        sources.append(path)
    sources[7].write_bytes(sources[7].read_bytes()[:60])
    sources.insert(2, Image.new("RGB", (50, 50), "red"))
    expected = metric(sources)
    rows = [row.score or -1 for row in score_files(metric, sources[3:])]
    monkeypatch.setattr(type(metric), "together", 20_000)
    monkeypatch.setattr(type(metric), "at_once", lambda self, images: None)
    groups = []
    whole = type(metric).prepare
    monkeypatch.setattr(
        type(metric), "prepare", lambda self, pixels, size=None: groups.append(len(pixels)) or whole(self, pixels, size)
    )
    torch.testing.assert_close(metric(sources), expected, atol=1e-6, rtol=0, equal_nan=True)
    assert int(expected.isnan().sum()) == 1 and bool(expected[8].isnan())
    assert max(groups) > 1
    assert rows[5] == -1 and rows.count(-1) == 1
    assert [row.score or -1 for row in score_files(metric, sources[3:])] == pytest.approx(rows, abs=1e-6)
    # Where there is no memory for several, each is tried by itself, and only the one that does not fit has an error.
    large = sources.index(tmp_path / "8.png") - 3

    def prepare(self, pixels, size=None):
        if len(pixels) > 1 or tuple(pixels.shape[2:]) == (40, 60):
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return whole(self, pixels, size)

    monkeypatch.setattr(type(metric), "prepare", prepare)
    told = list(score_files(metric, sources[3:]))
    assert told[large].error == "not enough memory"
    assert [row.score for row in told if row.score] == pytest.approx(
        [score for row, score in zip(told, rows) if row.score], abs=1e-6
    )
    assert any(row.score for row in told)


@pytest.mark.skipif(not can_compute_alone(), reason="this torch's threads cannot be limited one by one")
def test_several_images_are_scored_side_by_side_and_torch_s_threads_are_left_as_they_were(
    monkeypatch, metric, picture, tmp_path
):
    """With two threads, on any machine: two images meet in the network, each computed by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    together, seen = threading.Barrier(2), []
    whole = type(metric).score_prepared

    def score(self, window):
        together.wait(timeout=30)
        seen.append((threading.current_thread().name, torch.get_num_threads(), len(window)))
        return whole(self, window)

    try:
        paths = [tmp_path / f"{number}.png" for number in range(6)]
        for number, path in enumerate(paths):
            Image.fromarray(np.roll(picture, number, axis=1)).save(path)
        expected = torch.cat([metric(path) for path in paths])
        monkeypatch.setattr(type(metric), "score_prepared", score)
        torch.testing.assert_close(metric(paths), expected, atol=2e-6, rtol=0)
        assert len({name for name, _, _ in seen}) == 2 and {(number, size) for _, number, size in seen} == {(1, 1)}
        assert [row.score for row in score_files(metric, paths)] == pytest.approx(expected.tolist(), abs=2e-6)
        assert len(seen) == 12 and torch.get_num_threads() == 2
        monkeypatch.undo()
        told = metric.explain_each(paths)
        assert [one.score for one in told] == pytest.approx(expected.tolist(), abs=2e-6)
        assert metric.at_once(paths[:1]) is None and metric.at_once(path for path in paths) == 2
        assert leafiqa.create_metric("leaf", device="cpu", as_loss=True).at_once(paths) is None
        torch.set_num_threads(1)
        assert metric.at_once(paths) is None
    finally:
        torch.set_num_threads(before)


def test_arrays_that_an_iterator_fills_again_are_scored_as_they_were(metric, picture):
    """Those of a list are read where they are; an iterator's may be filled again while others are being scored."""
    pictures = [np.roll(picture, 9 * number, axis=1) for number in range(7)]
    expected = metric(pictures)
    buffer = np.empty_like(picture)
    tensor = torch.empty(3, *picture.shape[:2])

    def arrays():
        for one in pictures:
            buffer[:] = one
            yield buffer

    def tensors():
        for one in pictures:
            tensor.copy_(torch.from_numpy(one).permute(2, 0, 1) / 255)
            yield tensor

    torch.testing.assert_close(metric(arrays()), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(metric(tensors()), expected, atol=2e-6, rtol=0)
    with pytest.raises(InputError, match=r"^image 2: a float image tensor must lie"):
        metric([pictures[0], pictures[1], torch.full((3, 20, 20), 2.0)])
    with pytest.raises(InputError, match=r"^image 1: .* must lie"):
        metric(iter([pictures[0], np.full((20, 20, 3), -1.0)]))


class _Unknown:
    """Has a length that cannot be told, as progress bars over generators do."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        raise TypeError("object has no len()")

    def __iter__(self):
        return iter(self.images)


def test_lengths_that_cannot_be_told_and_empty_lists(metric, picture):
    expected = metric([picture, picture])
    torch.testing.assert_close(metric(_Unknown([picture, picture])), expected, atol=2e-6, rtol=0)
    torch.set_default_device("meta")
    try:
        assert metric([]).device.type == metric(iter([])).device.type == "cpu"
    finally:
        torch.set_default_device(None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_lists_stay_within_tracers_and_transforms(metric):
    """What looks at a thread's operations, to record or to change them, sees those on the images of a list."""
    first, second = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    traced = torch.jit.trace(lambda batch: metric([batch[0], batch[1]]), (first,), check_trace=False)
    torch.testing.assert_close(traced(second), metric(second), atol=2e-6, rtol=0)
    pixels = (torch.stack([first[0], second[0]]) * 255).to(torch.uint8)
    found = torch.vmap(lambda one: metric([one, one]))(pixels)
    torch.testing.assert_close(found, metric(pixels)[:, None].expand(2, 2), atol=2e-6, rtol=0)


def test_errors_come_in_the_images_order(metric, picture):
    """Values are looked at later than shapes, and told first where they come first."""
    with pytest.raises(InputError, match=r"^image 0: a float image"):
        metric([np.full((20, 20, 3), 2.0, np.float32), np.zeros((3, 5)), picture])
    with (
        pytest.warns(leafiqa.ImageWarning, match="image 0"),
        pytest.raises(InputError, match=r"^image 1: image arrays"),
    ):
        metric([b"no picture", np.zeros((3, 5)), picture])
