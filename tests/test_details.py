"""Details: windows of large pictures at full size, which tell what a look at the whole cannot."""

import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import leafiqa
from leafiqa.cli.demo import PICTURES
from leafiqa.details import Window, details_of, of_single_pixels, window_size
from leafiqa.metric import Metric
from tests.conftest import invoke, make_picture


@pytest.fixture(scope="module")
def large():
    """A sharp photograph, 2304x2304: one of the bundled ones as tiles, each the mirror image of the next."""
    photo = np.asarray(Image.open(PICTURES / "path.jpg").convert("RGB"))
    row = np.concatenate([photo, photo[:, ::-1]] * 2, axis=1)
    return np.concatenate([row, row[::-1]] * 2)


def spoilt(pixels, radius):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def test_which_pictures_have_details():
    assert window_size((3000, 4000), (320, 448)) == (192, 192)
    assert window_size((576, 576), (384, 384)) == (192, 192)
    assert window_size((575, 576), (384, 384)) is None
    assert window_size((100, 20000), (192, 768)) == (96, 192)
    assert window_size((31, 90000), (192, 768)) is None


def test_blur_is_that_of_the_best_window_and_noise_the_mean():
    pixels = np.zeros((2, 192, 192, 3), np.uint8)
    seen = [{"noise": 2.0, "blur": 2.9, "motion": 0.1}, {"noise": 1.0, "blur": 0.5, "motion": 0.3}]
    windows = [Window(8 * n, 9, 0.2 + 0.4 * n, of, pixels[n]) for n, of in enumerate(seen)]
    found = details_of(windows, (900, 1200))
    assert found.defects == {"noise": 1.5, "blur": 0.5, "motion": 0.1} and next(iter(found.defects)) == "noise"
    assert found.score == pytest.approx(0.4)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["size"] == [900, 1200] and told["windows"][1] == {
        "top": 8, "left": 9, "height": 192, "width": 192, "score": 0.6, "defects": seen[1],
    }  # fmt: skip
    assert of_single_pixels(["dark", "noise", "text", "blur"]) == ["noise", "blur"]


def test_details_tell_what_the_look_cannot(metric, large):
    sharp = metric.explain(large, details=True)
    soft = metric.explain(spoilt(large, 1.5), details=True)
    assert abs(soft.score - sharp.score) < 0.03 and soft.defects["blur"] < 0.1  # the look: nothing
    assert sharp.details.defects["blur"] < 0.3 and soft.details.defects["blur"] > 1.3
    assert soft.details.score < sharp.details.score - 0.1
    rng = np.random.default_rng(0)
    noisy = (large + rng.normal(0, 14, large.shape)).clip(0, 255).astype(np.uint8)
    grainy = metric.explain(noisy, details=True)
    assert grainy.defects["noise"] < 0.7 < 1.5 < grainy.details.defects["noise"]
    assert next(iter(grainy.details.defects)) == "noise" and sharp.details.defects["noise"] < 0.3


def test_the_rest_of_an_explanation_does_not_change(metric, large):
    plain, close = metric.explain(large), metric.explain(large, details=True)
    assert plain.details is None and plain.to_dict()["details"] is None and "full size" not in str(plain)
    assert plain.score == close.score and plain.defects == close.defects and str(close).startswith(str(plain))
    np.testing.assert_array_equal(plain.map, close.map)
    assert close.to_dict()["details"]["windows"][0]["height"] == 192
    assert metric.explain(make_picture(500, 500), details=True).details is None  # hardly larger than the look


def test_windows_are_pixels_of_the_picture(metric, large):
    details = metric.explain(large, details=True).details
    assert details.size == large.shape[:2] and len(details.windows) == 4
    for window in details.windows:
        part = large[window.top : window.top + 192, window.left : window.left + 192]
        np.testing.assert_array_equal(window.pixels, part)
        assert set(window.defects) == {"blur", "motion", "noise", "compression"}


def test_all_forms_and_batches_have_the_same_details(metric, large, tmp_path):
    Image.fromarray(large).save(tmp_path / "large.png")
    expected = metric.explain(large, details=True).details.to_dict()
    tensor = torch.from_numpy(large.copy()).permute(2, 0, 1)
    for form in (tmp_path / "large.png", Image.fromarray(large), tensor, tensor[None]):
        assert metric.explain(form, details=True).details.to_dict() == expected
    for floats in (large.astype(np.float32) / 255, (tensor / 255).requires_grad_()):
        told = metric.explain(floats, details=True).details.to_dict()
        assert told["score"] == pytest.approx(expected["score"], abs=1e-5)
    other = torch.from_numpy(spoilt(large, 1.5).copy()).permute(2, 0, 1)
    together = metric.explain_each(torch.stack([other, tensor]), details=True)
    assert together[1].details.to_dict() == expected and together[0].details.defects["blur"] > 1.3


@pytest.fixture(params=[1, 2])
def threads(request):
    """How many threads torch may use, and several images are looked at by."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_many_are_looked_at_at_the_same_time(metric, large, tmp_path, threads, monkeypatch):
    """With two threads both explain at once, with one the caller's does, while others decode ahead."""
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file in files:
        Image.fromarray(large).save(file)
    main, meeting, decoders, explainers = threading.get_ident(), threading.Barrier(threads, timeout=60), set(), set()
    decode, explain = Metric.decode, Metric._explain_whole

    def decodes(self, image):
        decoders.add(threading.get_ident())
        return decode(self, image)

    def explains(self, whole):
        meeting.wait()
        explainers.add(threading.get_ident())
        return explain(self, whole)

    monkeypatch.setattr(Metric, "decode", decodes)
    monkeypatch.setattr(Metric, "_explain_whole", explains)
    found = metric.explain_each(files, details=True)
    assert [one.details.to_dict() for one in found] == [found[0].details.to_dict()] * 2
    assert main not in decoders and (explainers == {main} if threads == 1 else len(explainers - {main}) == 2)


def test_many_with_a_bad_one_among_them(metric, large, tmp_path, threads):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    Image.fromarray(large).save(files[0])
    files[1].write_bytes(b"nothing")
    Image.fromarray(make_picture(300, 300)).save(files[2])
    with pytest.warns(leafiqa.ImageWarning, match="image 1 has no score"):
        found = metric.explain_each(files, details=True)
    assert found[1] is None and found[2].details is None
    assert found[0].details.to_dict()["windows"] and found[0].details.defects["blur"] < 0.3
    with pytest.raises(leafiqa.InputError, match=r"image 1: .*one image"):
        metric.explain_each([large, torch.zeros(2, 3, 700, 700)], details=True)
    with pytest.raises(leafiqa.InputError, match=r"image 1: .*NaN"):
        metric.explain_each([large, torch.full((3, 700, 700), torch.nan)], details=True)
    assert metric.explain_each([], details=True) == []


def test_an_array_that_is_filled_again(metric, large, threads):
    """A generator may hand out one array after the other in the same memory."""
    soft = spoilt(large, 1.5)

    def pictures():
        array = np.empty_like(large)
        for one in (large, soft, large):
            array[:] = one
            yield array

    found = metric.explain_each(pictures(), details=True)
    blurs = [one.details.defects["blur"] for one in found]
    assert blurs[0] == blurs[2] < 0.3 and blurs[1] > 1.3


@pytest.mark.parametrize("ground", ["black", "white", "noisy"])
def test_empty_ground_is_neither_sharp_nor_blurred(metric, large, ground):
    """An object by itself before an empty ground: windows that hold nothing have no say."""
    canvas = np.full((1500, 2000, 3), 255 if ground == "white" else 0, np.float64)
    canvas[600:900, 800:1100] = large[:300, :300]
    noise = np.random.default_rng(0).normal(0, 2.5, canvas.shape) if ground == "noisy" else 0

    def seen(pixels):
        return metric.explain((pixels + noise).clip(0, 255).astype(np.uint8), details=True).details

    sharp, soft = seen(canvas), seen(spoilt(canvas.astype(np.uint8), 3.0))
    assert sharp.defects["blur"] < 0.5 and soft.defects["blur"] > 1.5 and soft.score < sharp.score
    assert all(400 < w.top < 900 and 600 < w.left < 1100 for w in soft.windows)


def test_pixels_beyond_the_end_are_clamped_as_in_the_look(large):
    loss = leafiqa.create_metric("leaf", device="cpu", as_loss=True)
    bright = torch.from_numpy(large.copy()).permute(2, 0, 1) / 255 * 1.2
    beyond, clamped = (loss.explain(one, details=True).details for one in (bright, bright.clamp(max=1)))
    assert beyond.to_dict() == clamped.to_dict()
    np.testing.assert_array_equal(beyond.windows[0].pixels, clamped.windows[0].pixels)


def test_words_under_narrow_windows_have_room(metric):
    strip = metric.explain(make_picture(40, 20000), details=True)
    windows = strip.details.windows
    assert len(windows) > 1 and windows[0].pixels.shape == (32, 192, 3)
    upright = metric.explain(make_picture(20000, 40), details=True)
    assert upright.details.windows[0].pixels.shape == (192, 32, 3)
    assert upright.picture().width >= len(upright.details.windows) * 170


def test_onnx_says_what_details_take():
    pytest.importorskip("onnxruntime")
    metric = leafiqa.create_metric("leaf", backend="onnx")
    for ask in (metric.explain, metric.explain_each):
        with pytest.raises(leafiqa.InputError, match="takes torch"):
            ask("photo.jpg", details=True)


def test_reduced_decoding_has_no_details(large, tmp_path):
    Image.fromarray(large).save(tmp_path / "large.jpg")
    draft = leafiqa.create_metric("leaf", device="cpu", draft=True)
    with pytest.raises(leafiqa.InputError, match="draft=False"):
        draft.explain(tmp_path / "large.jpg", details=True)
    with pytest.raises(leafiqa.InputError, match=r"^details take whole pictures"):
        draft.explain_each([], details=True)
    with pytest.raises(leafiqa.InputError, match="details take whole pictures"):
        leafiqa.score(tmp_path / "large.jpg", draft, columns=["details"])
    done = invoke("score", tmp_path / "large.jpg", "--columns", "details", "--draft")
    assert done.returncode == 2 and "details take whole pictures" in done.stderr


def test_columns_of_details(metric, large, tmp_path):
    Image.fromarray(spoilt(large, 1.5)).save(tmp_path / "large.png")
    Image.fromarray(make_picture(300, 300)).save(tmp_path / "small.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    table = {row.image.rsplit("/")[-1]: row for row in leafiqa.score(tmp_path, metric, columns=["details"])}
    expected = metric.explain(tmp_path / "large.png", details=True)
    names = {f"details_{name}": severity for name, severity in expected.details.defects.items()}
    names["details_score"] = expected.details.score
    assert table["large.png"].beside == pytest.approx(names, abs=1e-3)
    assert table["large.png"].score == pytest.approx(expected.score, abs=1e-5)
    assert table["small.png"].beside == dict.fromkeys(names) and table["small.png"].score is not None
    assert table["bad.png"].error and table["bad.png"].beside == {}
    Image.fromarray(large).save(tmp_path / "fine.png")
    done = invoke("score", tmp_path, "--columns", "score,details")
    assert "at full size blur" in done.stdout and "small.png\n" in done.stdout
    assert "fine.png  (at full size no defects)" in done.stdout


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_going_on_where_no_picture_had_details_yet(large, tmp_path, ending):
    (tmp_path / "photos").mkdir()
    Image.fromarray(make_picture(300, 300)).save(tmp_path / "photos" / "a.png")
    out = tmp_path / f"out.{ending}"
    assert invoke("score", tmp_path / "photos", "--columns", "details", "-o", out).returncode == 0
    assert "details_blur" in out.read_text()
    Image.fromarray(large).save(tmp_path / "photos" / "b.png")
    done = invoke("score", tmp_path / "photos", "--columns", "details", "-o", out, "--resume")
    assert done.returncode == 0 and "1 images scored before, 1 to go" in done.stderr
    refused = invoke("score", tmp_path / "photos", "-o", out, "--resume")
    assert refused.returncode == 2 and "choose another output" in refused.stderr


def test_on_the_command_line_and_as_a_picture(large, tmp_path):
    Image.fromarray(spoilt(large, 1.5)).save(tmp_path / "large.png")
    done = invoke("explain", tmp_path / "large.png", "--details", "-o", tmp_path / "told")
    assert "details at full size: blur" in done.stdout and done.returncode == 0
    page = np.asarray(Image.open(tmp_path / "told" / "large.png.png"))
    plain = invoke("explain", tmp_path / "large.png", "-o", tmp_path / "plain")
    assert "full size" not in plain.stdout
    Image.fromarray(make_picture(300, 300)).save(tmp_path / "small.png")
    assert "details at full size: none" in invoke("explain", tmp_path / "small.png", "--details").stdout
    assert page.shape[0] > np.asarray(Image.open(tmp_path / "plain" / "large.png.png")).shape[0] + 192
    told = json.loads(invoke("explain", tmp_path / "large.png", "--details", "--json").stdout)
    window = told[0]["details"]["windows"][0]
    shown = spoilt(large, 1.5)[window["top"] : window["top"] + 192, window["left"] : window["left"] + 192]
    # The first window stands below, pixel for pixel, but for the number in its corner.
    places = np.flatnonzero((page[:, 16 + 191] == shown[100, 191]).all(axis=1))
    assert any((page[row - 80 : row + 92, 16 + 20 : 16 + 192] == shown[20:, 20:]).all() for row in places)
