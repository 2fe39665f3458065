"""Decoding JPEG files at reduced scale: what is asked for, upright, of the whole picture's shape."""

import io

import numpy as np
import pytest
from PIL import Image

import leafiqa
from leafiqa.images.decoding import decode
from leafiqa.model.preprocess import Preprocess
from tests.conftest import make_picture


def jpeg(height, width, orientation=None, **options):
    stream = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(make_picture(height, width)).save(stream, "JPEG", quality=92, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [((1600, 1200), (384, 288), (400, 300)), ((1600, 1200), (800, 600), (800, 600)), ((1600, 1200), (801, 600), None)],
)
def test_a_jpeg_is_decoded_no_smaller_than_allowed(size, least, expected):
    decoded = decode(jpeg(*size), lambda height, width: least)
    assert decoded.pixels.shape[:2] == (expected or size)
    assert decoded.size == (size if expected else None)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_turns_the_size_with_the_pixels(orientation):
    decoded = decode(jpeg(900, 1600, orientation), lambda height, width: (height // 4, width // 4))
    turned = orientation in (6, 8)
    assert decoded.size == ((1600, 900) if turned else (900, 1600))
    assert decoded.pixels.shape[:2] == ((400, 225) if turned else (225, 400))


def test_other_formats_and_small_files_are_decoded_whole():
    stream = io.BytesIO()
    Image.fromarray(make_picture(600, 800)).save(stream, "PNG")
    assert decode(stream.getvalue(), lambda height, width: (1, 1)).size is None
    small = decode(jpeg(100, 100), lambda height, width: (200, 200))
    assert small.size is None and small.pixels.shape == (100, 100, 3)


def test_the_student_looks_at_the_same_size():
    """9 by 16 at an eighth is 8.96 by 16: the rule for the size must go by the whole picture."""
    preprocess = Preprocess(area=384 * 384)
    for size in ((3001, 4003), (1999, 1001), (900, 5000)):
        decoded = decode(jpeg(*size), preprocess.smallest_draft)
        least = preprocess.smallest_draft(*size)
        assert all(side >= low for side, low in zip(decoded.pixels.shape, least)) and decoded.size in (size, None)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_scores_move_a_little_and_only_if_asked(backend, tmp_path):
    if backend == "onnx":
        pytest.importorskip("onnxruntime")
    paths = []
    for number, size in enumerate([(1800, 2400), (2400, 1800), (500, 500)]):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(jpeg(*size))
    whole = np.asarray(leafiqa.create_metric("leaf", backend=backend)(paths))
    reduced = np.asarray(leafiqa.create_metric("leaf", backend=backend, draft=True)(paths))
    gaps = np.abs(whole - reduced)
    assert (gaps[:2] > 0).all() and gaps.max() < 0.05 and gaps[2] == 0
    by_verb = [row.score for row in leafiqa.score(paths, backend=backend, draft=True).rows]
    np.testing.assert_allclose(by_verb, reduced, atol=1e-6)
    both = [leafiqa.create_metric("leaf", device="cpu", draft=draft) for draft in (False, True)]
    rows = leafiqa.score(paths[:1], both).rows  # one file, decoded whole for one and reduced for the other
    assert [row.score for row in rows] == pytest.approx([whole[0], reduced[0]], abs=1e-4)
    from leafiqa.generators.score_cache import key_of

    assert len({key_of(metric) for metric in both}) == 2  # neither takes the other's scores from the cache
    with pytest.raises(leafiqa.InputError, match="draft is for metrics given by name"):
        leafiqa.score(paths, both[0], draft=True)
