"""Windows of a large picture lie where its structure is, within it, apart from each other."""

import numpy as np
import pytest

from leafiqa.images.windows import places_of_structure


def look_with(*blocks, shape=(96, 128)):
    """A grey look with checks in these blocks: (top, left, side)."""
    look = np.full((*shape, 3), 0.5, np.float32)
    for top, left, side in blocks:
        look[top : top + side, left : left + side] += 0.4 * (np.indices((side, side)).sum(axis=0) % 2)[:, :, None]
    return look


def test_the_most_structured_place_comes_first():
    look = look_with((10, 20, 16), (60, 90, 12))
    first, second = places_of_structure(look, (960, 1280), (160, 160), 2)
    assert np.abs(np.subtract(first, (100, 200))).max() <= 15  # ten pixels of the picture are one of the look
    assert np.abs(np.subtract(second, (580, 880))).max() <= 25  # the smaller block, in a window that is larger


@pytest.mark.parametrize("corner", [(0, 0), (0, 112), (80, 0), (80, 112)])
def test_windows_reach_to_the_last_pixel(corner):
    (found,) = places_of_structure(look_with((*corner, 16)), (959, 1283), (160, 160), 1)
    assert found == tuple(0 if at == 0 else side - 160 for at, side in zip(corner, (959, 1283)))


@pytest.mark.parametrize("size", [(600, 600), (4000, 3000), (100, 20000), (700, 1100)])
def test_windows_are_apart_and_within(size):
    shape = (96, 96) if size[0] > 500 else (32, 320)
    look = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    window = (min(192, size[0] // 32 * 32), 192)
    found = places_of_structure(look, size, window, 4)
    assert 1 < len(found) <= 4 and len(set(found)) == len(found)
    for top, left in found:
        assert 0 <= top <= size[0] - window[0] and 0 <= left <= size[1] - window[1]
    for place, (top, left) in enumerate(found):
        for down, across in found[:place]:
            one_look = (size[0] / shape[0], size[1] / shape[1])
            near = [max(side, whole / 6) for side, whole in zip(window, size)]
            assert abs(top - down) > near[0] - 3 * one_look[0] or abs(left - across) > near[1] - 3 * one_look[1]


def test_fewer_windows_where_no_more_fit():
    assert len(places_of_structure(look_with((4, 4, 8)), (200, 300), (192, 192), 4)) < 4
    assert places_of_structure(np.zeros((32, 32, 3), np.float32), (192, 192), (192, 192), 4) == [(0, 0)]


def test_empty_places_have_no_window():
    look = look_with((10, 20, 16), (60, 90, 12))
    look += np.random.default_rng(0).normal(0, 0.004, look.shape).astype(np.float32)
    assert len(places_of_structure(look, (960, 1280), (160, 160), 4)) == 2
