"""Resizing against its definition, and its bounds."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leafiqa.errors import WeightsError
from leafiqa.model import resizing as module
from leafiqa.model import row_sums
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.resizing import resize

# By how much each way of computing on a CPU may differ from the definition in double precision.
TOLERANCE = 2e-6


def reference(images, size):
    """Torch's antialiased filter in double precision, side by side twice, as it is wrong for one column."""
    rows = torch.nn.functional.interpolate(
        images.double().repeat_interleave(2, 3), (size[0], 2 * images.shape[3]), mode="bilinear", antialias=True
    )[..., ::2]
    columns = rows.transpose(2, 3).repeat_interleave(2, 3)
    wide = torch.nn.functional.interpolate(columns, (size[1], 2 * size[0]), mode="bilinear", antialias=True)
    return wide[..., ::2].transpose(2, 3).float()


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [((512, 512), (320, 320)), ((37, 900), (160, 640)), ((5, 3), (64, 96)), ((2, 1), (32, 32)), ((9, 7), (32, 1))],
)
def test_agrees_with_torchs_antialiased_bilinear(size_in, size_out):
    images = torch.rand(2, 3, *size_in, dtype=torch.float64)
    expected = reference(images, size_out)
    torch.testing.assert_close(resize(images, *size_out), expected, atol=TOLERANCE, rtol=0)
    by_bands = resize(images.clone().requires_grad_(), *size_out)
    torch.testing.assert_close(by_bands.detach(), expected, atol=TOLERANCE, rtol=0)
    assert by_bands.requires_grad


@pytest.mark.parametrize("wide", [1, 21, 103, 1400])
@pytest.mark.parametrize("layout", ["channels last", "planes", "neither"])
def test_sums_in_pieces_agree_with_bands(wide, layout, monkeypatch):
    images = torch.randint(0, 256, (2, 211, wide, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    images = {"channels last": images, "planes": images.contiguous(), "neither": images.flip(3).transpose(2, 3)}[layout]
    by_bands = module._shorten(module._narrow(images, 96), 64)
    monkeypatch.setattr(row_sums, "_AT_A_TIME", 10_000)
    torch.testing.assert_close(resize(images, 64, 96), by_bands, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(resize(images.half() / 255, 64, 96), by_bands, atol=3e-4, rtol=0)


def test_what_comes_of_sums_is_laid_out_as_images_are_and_shares_nothing():
    planes = torch.rand(2, 3, 64, 96)
    for layout in (torch.contiguous_format, torch.channels_last):
        images = planes.contiguous(memory_format=layout)
        for size in ((64, 96), (32, 96), (64, 32), (96, 128)):
            made = resize(images, *size)
            assert made.stride() == torch.empty(2, 3, *size).contiguous(memory_format=layout).stride()
            assert made.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()


def test_rows_are_cut_into_few_lengths():
    """The kernel is compiled for each length, and kept."""
    lengths = {stop - start for width in range(1, 9000) for start, stop in row_sums._parts(width)}
    assert lengths == {*range(1, 64), *range(64, 2049, 64)}
    for width in (1, 63, 100, 2048, 2049, 5000):
        covered = [column for start, stop in row_sums._parts(width) for column in range(start, stop)]
        assert sorted(set(covered)) == list(range(width))


def _under_torch_func(images):
    torch.func.grad(lambda pixels: resize(pixels, 32, 32).mean())(images)


def _under_fake_tensors(images):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        module._narrow(torch.rand(images.shape), 32)


def _under_export(images):
    class Resize(torch.nn.Module):
        def forward(self, pixels):
            return resize(pixels, 32, 32)

    torch.export.export(Resize(), (images,), strict=False)


@pytest.mark.parametrize("look_on", [_under_torch_func, _under_fake_tensors, _under_export])
def test_matrices_made_for_others_are_not_kept(look_on):
    """A fake matrix in the cache made every later gradient of that size fake, in whoever asked for it."""
    images = torch.rand(1, 3, 40, 50)
    expected = resize(images, 32, 32)
    module._kept_bands.cache_clear()
    look_on(images)
    wanted = images.clone().requires_grad_()
    found = resize(wanted, 32, 32)
    found.sum().backward()
    kept = [band for size in (40, 50) for band in module._kept_bands(size, 32, images.device)]
    assert module.is_plain(found) and kept and all(module.is_plain(weights) for _, _, weights in kept)
    torch.testing.assert_close(found.detach(), expected, atol=TOLERANCE, rtol=0)
    assert wanted.grad.sum().item() == pytest.approx(3 * 32 * 32, rel=1e-4)


def test_tangents_go_through():
    """Forward-mode differentiation, which sums of rows know nothing of."""
    images, tangent = torch.rand(1, 3, 50, 70), torch.rand(1, 3, 50, 70)
    with torch.autograd.forward_ad.dual_level():
        made = resize(torch.autograd.forward_ad.make_dual(images, tangent), 32, 40)
        found = torch.autograd.forward_ad.unpack_dual(made)
    torch.testing.assert_close(found.primal, resize(images, 32, 40), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.tangent, resize(tangent, 32, 40), atol=TOLERANCE, rtol=0)


def test_planes_of_a_batch_that_cannot_be_viewed_as_one_are_not_copied(monkeypatch):
    strip = torch.rand(2, 1, 500, 3).permute(0, 3, 1, 2)
    expected = resize(strip.clone(), 32, 64)
    monkeypatch.setattr(torch.Tensor, "flatten", None)
    torch.testing.assert_close(resize(strip, 32, 64), expected, atol=0, rtol=0)
    many = torch.rand(1, 3, 40, 30).expand(3, 3, 40, 30)
    torch.testing.assert_close(resize(many, 32, 32), resize(many[:1], 32, 32).expand(3, 3, 32, 32), atol=0, rtol=0)


def test_resizing_under_vmap():
    images = torch.rand(2, 3, 50, 70)
    found = torch.vmap(lambda image: resize(image[None], 32, 40)[0])(images)
    torch.testing.assert_close(found, resize(images, 32, 40), atol=TOLERANCE, rtol=0)


def test_matrices_are_kept_and_serve_gradients_after_inference_mode():
    module._kept_bands.cache_clear()
    with torch.inference_mode():
        module._narrow(torch.rand(1, 3, 40, 50), 32)
    images = torch.rand(1, 3, 40, 50, requires_grad=True)
    resize(images, 32, 32).sum().backward()
    resize(images, 32, 32).sum().backward()
    assert images.grad.sum() == pytest.approx(2 * 3 * 32 * 32, rel=1e-5) and module._kept_bands.cache_info().hits >= 2


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 300)] * 2), st.tuples(*[st.integers(1, 12)] * 2), st.integers(0, 99))
def test_any_size_agrees_with_torch_and_flips_flip_the_result(size_in, blocks, seed):
    size_out = (32 * blocks[0], 32 * blocks[1])
    images = torch.rand(1, 3, *size_in, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = reference(images, size_out)
    for axes in ((), (2,), (3,), (2, 3)):
        torch.testing.assert_close(resize(images.flip(axes), *size_out), expected.flip(axes), atol=TOLERANCE, rtol=0)


def test_constant_stays_constant_and_same_size_is_identity():
    assert (resize(torch.full((1, 3, 333, 77), 0.25), 64, 32) - 0.25).abs().max() < 1e-6
    images = torch.rand(1, 3, 130, 70)
    torch.testing.assert_close(resize(images, 130, 70), images, atol=1e-6, rtol=0)


def test_strips_of_bands_do_not_show(monkeypatch):
    images = torch.randint(0, 256, (2, 3, 411, 203), dtype=torch.uint8)

    def by_bands():
        return module._shorten(module._narrow(images, 96), 64)

    whole, split = by_bands(), torch.Tensor.split
    pieces = []
    monkeypatch.setattr(
        torch.Tensor, "split", lambda *given, **more: pieces.append(split(*given, **more)) or pieces[-1]
    )
    monkeypatch.setattr(module, "_PIECE_ELEMENTS", 10_000)
    monkeypatch.setattr(module, "_BAND_ELEMENTS", 300)
    torch.testing.assert_close(by_bands(), whole, atol=1e-6, rtol=0)
    assert max(map(len, pieces)) > 1


def test_each_pixel_has_positive_weight():
    for size_in, size_out in ((1000, 320), (641, 320), (320, 320), (3, 64), (9973, 96)):
        total = torch.zeros(size_in)
        for start, stop, weights in module._bands(size_in, size_out, torch.device("cpu")):
            assert (weights >= 0).all()
            total[start:stop] += weights.sum(dim=1)
        assert (total > 0).all(), (size_in, size_out)


PEAK = """
import sys, torch
from leafiqa.model import resizing
from leafiqa.model.preprocess import Preprocess
if sys.argv[3] == "bands":
    resizing._takes_kernel = lambda *given: False
def kilobytes(name):
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1])
images = torch.ones(1, 3, int(sys.argv[1]), int(sys.argv[2]), dtype=torch.uint8)
Preprocess().resize(images[..., :64, :64])
before = kilobytes("VmRSS:")
resized = Preprocess().resize(images)
peak = kilobytes("VmHWM:") - before
assert resized.shape[2] * resized.shape[3] == 320 * 320 and abs(resized.max() - 1 / 255) < 1e-6
images.float()
print(peak, kilobytes("VmHWM:") - before)
"""


@pytest.mark.parametrize(
    ("size", "way"),
    [
        ((10_000, 10_000), "sums"),
        ((10_000, 10_000), "bands"),
        ((1, 20_000_000), "sums"),
        ((1, 20_000_000), "bands"),
        ((20_000_000, 1), "sums"),
        ((20_000_000, 1), "bands"),
        ((7, 10_000_000), "sums"),
    ],
)
def test_hundred_megapixels_in_bounded_memory(size, way):
    """Peak memory of one call in a process of its own; as floats the image would take 0.24 to 1.2 GB more."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("this system does not tell a process's peak memory")
    runs = []
    for _ in range(3):  # a system short of memory takes pages away before the call, which then seem the call's own
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, size), way], capture_output=True, text=True, check=True
        )
        runs.append(tuple(map(int, done.stdout.split())))
        if runs[-1][0] < 250 * 1024:
            break
    peak, as_floats = min(runs)
    assert as_floats > 4 * 3 * size[0] * size[1] / 1024 * 0.95  # so it would have been seen
    assert peak < min(700 * 1024, max(250 * 1024, 0.7 * as_floats))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (320, 320)),
        ((1, 1), (320, 320)),
        ((1080, 1920), (256, 416)),
        ((1920, 1080), (416, 256)),
        ((1, 100_000), (160, 640)),
        ((3000, 4000), (288, 384)),
    ],
)
def test_size_keeps_aspect_within_bounds(size, expected):
    assert Preprocess().size_for(*size) == expected


def test_card_round_trip_and_errors():
    preprocess = Preprocess(area=1000, mean=(0.1, 0.2, 0.3))
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    assert np.isclose(preprocess.to_dict()["mean"][1], 0.2)
    wrongs = [{"std": [0, 1, 1]}, {"filter": "nearest"}, {"colour": "BGR"}, {"area": "x"}, {"mean": [1]}, 5]
    for wrong in [*wrongs, {"area": float("inf")}]:
        with pytest.raises(WeightsError):
            Preprocess.from_dict(wrong)
