"""Explanations of pictures: on the score's scale, as text, as JSON and as a picture."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import leafiqa
from leafiqa.explanation import explained
from leafiqa.images.drawing import colours_of, overlay
from leafiqa.metric import Metric
from leafiqa.model.student import Student
from tests.conftest import make_picture

PIXELS = np.full((96, 64, 3), 128, np.uint8)


def make(**changes):
    cells = np.zeros((6, 4), np.float32)
    cells[4, 3] = -2
    arguments = {
        "logit": 0.0,
        "error": 0.4,
        "severities": {"blur": 0.2, "noise": 2.4},
        "cells": cells,
        "score_range": (1.0, 5.0),
        "pixels": PIXELS,
    }
    return explained(**{**arguments, **changes})


def test_everything_is_on_the_scale_of_the_score():
    found = make()
    assert found.score == 3 and found.standard_error == pytest.approx(4 * 0.25 * 0.4)
    low, high = found.interval
    assert low == pytest.approx(1 + 4 / (1 + math.exp(1.6449 * 0.4))) and low + high == pytest.approx(6)
    assert found.map[0, 0] == 3 and found.map[4, 3] == pytest.approx(1 + 4 / (1 + math.exp(2)))
    assert list(found.defects) == ["noise", "blur"] and found.seen == {"noise": 2.4}
    assert found.worst_place == (4.5 / 6, 3.5 / 4)
    sure = make(logit=900.0, error=100.0)
    assert sure.score == pytest.approx(5) and 1 <= sure.interval[0] <= sure.interval[1] <= 5


def test_text_and_json():
    text = str(make())
    assert text.startswith("3.000, standard error 0.400, nine in ten within 2.3") and "noise clear (2.4)" in text
    assert "blur" not in text and "worst at the bottom right, 1.477" in text
    assert "no defects seen" in str(make(severities={"blur": 0.1}))
    told = json.loads(json.dumps(make().to_dict()))
    assert told["defects"] == {"noise": 2.4, "blur": 0.2} and len(told["map"]) == 6 and told["score_range"] == [1, 5]


def test_the_picture_shows_where():
    page = np.asarray(make().picture()).astype(int)
    assert page.shape[1] >= 640
    # The map lies to the right of the picture: its worst cell is orange, the rest of it violet.
    picture = make().picture()
    width = 320  # the picture, 64 by 96, at its size in the page
    left = 2 * 16 + width
    worst = picture.getpixel((left + round(0.87 * width), 16 + round(0.74 * 480)))
    rest = picture.getpixel((left + round(0.2 * width), 16 + round(0.2 * 480)))
    assert worst[0] > worst[2] + 20 and rest[2] > rest[0] + 5


def test_colours_run_from_orange_to_violet():
    colours = colours_of(np.array([[0.0, 0.5, 1.0, 2.0]], np.float32), 0.0, 1.0)
    assert colours[0].tolist() == [[179, 88, 6], [247, 247, 247], [84, 39, 136], [84, 39, 136]]
    assert overlay(PIXELS, np.zeros((2, 2), np.float32), 0, 1).size == (64, 96)


def test_a_flat_map_is_drawn_flat():
    page = make(cells=np.zeros((6, 4), np.float32)).picture()
    assert isinstance(page, Image.Image)


def test_explanations_of_many_are_those_of_each(metric, monkeypatch):
    """Images of one size go through the network together on an accelerator; here, too, for once."""
    pictures = [make_picture(64 + 32 * (seed % 2), 80, seed) for seed in range(7)]
    expected = [metric.explain(picture) for picture in pictures]
    assert [one.score for one in expected] == pytest.approx(metric(pictures).tolist(), abs=1e-7)  # one network
    batches = []
    whole = Student.explain

    def counted(self, images):
        batches.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(Metric, "at_once", lambda self, images: None)
    monkeypatch.setattr("leafiqa.metric.batch_size_for", lambda resized: 3)
    monkeypatch.setattr("leafiqa.metric.WINDOW", 5)
    monkeypatch.setattr(Student, "explain", counted)
    found = metric.explain_each(pictures)
    assert batches == [3, 2, 1, 1]
    for one, other in zip(found, expected):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.standard_error == pytest.approx(other.standard_error, rel=1e-3)
        assert one.defects == pytest.approx(other.defects, abs=1e-3)
        np.testing.assert_allclose(one.map, other.map, atol=1e-4)
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_the_fused_network_explains_as_the_student_does(metric, picture, monkeypatch):
    found = metric.explain(picture)
    monkeypatch.setattr(Metric, "scoring_student", lambda self, resized: self.student)
    plain = metric.explain(picture)
    assert found.score == pytest.approx(plain.score, abs=1e-5) and not np.array_equal(found.map, plain.map)
    assert found.standard_error == pytest.approx(plain.standard_error, rel=1e-3)
    assert found.defects == pytest.approx(plain.defects, abs=1e-3)
    np.testing.assert_allclose(found.map, plain.map, atol=1e-4)


def test_nothing_to_explain(metric):
    import torch

    assert metric.explain_each([]) == [] == metric.explain_each(torch.empty(0, 3, 64, 64))


def test_a_student_without_aspects_says_so_before_anything_is_read():
    own = leafiqa.create_metric("leaf", device="cpu")
    own.student.aspects = None
    with pytest.raises(leafiqa.WeightsError, match="a score and nothing else"):
        own.explain_each(iter(["not there.png"]))
