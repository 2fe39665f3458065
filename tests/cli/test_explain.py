"""`leafiqa explain`, on a student made on the spot."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from leafiqa.cli.explain import picture_names
from leafiqa.model.checkpoint import save_student
from leafiqa.model.student import Student
from tests.cli.test_cli import run
from tests.conftest import make_picture


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("student")
    fields = {
        "name": "leaf_lite0.told",
        "architecture": {
            "backbone": "tf_efficientnet_lite0",
            "stages": [1, 2, 3, 4],
            "hidden": 128,
            "defects": ["blur", "noise"],
        },
        "preprocess": {"area": 128**2, "mean": [0.5] * 3, "std": [0.5] * 3},
        "score": {"range": [0.0, 1.0], "unit": "test"},
    }
    save_student(Student(defects=("blur", "noise")), folder, fields)
    return folder


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in "ab":
        Image.fromarray(make_picture(60, 80)).save(tmp_path / folder / "x.png")
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    return tmp_path


def test_text_pictures_and_bad_files(weights, photos):
    done = run("explain", "-r", photos, "--weights", weights, "-o", photos / "told")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and "standard error" in lines[0] and "worst at the" in lines[1]
    assert "bad.jpg" in done.stderr and f"# pictures in {photos / 'told'}: 2\n" in done.stderr
    pages = sorted(path.name for path in (photos / "told").iterdir())
    assert pages == ["a_x.png.png", "b_x.png.png"]
    assert np.asarray(Image.open(photos / "told" / pages[0])).shape[1] >= 640
    again = run("explain", photos / "a", "--weights", weights, "-o", photos / "told")
    assert again.returncode == 0  # x.png.png is another name
    refused = run("explain", photos / "a", "--weights", weights, "-o", photos / "told")
    assert refused.returncode == 2 and "exists already" in refused.stderr
    assert run("explain", photos / "a", "--weights", weights, "-o", photos / "told", "--overwrite").returncode == 0


def test_json(weights, photos):
    done = run("explain", photos / "a" / "x.png", photos / "bad.jpg", "--weights", weights, "--json")
    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert 0 <= first["interval"][0] <= first["score"] <= first["interval"][1] <= 1
    assert set(first["defects"]) == {"blur", "noise"} and len(first["map"]) > 1 and "error" in second


def test_a_student_without_aspects_says_so(photos, tmp_path):
    fields = {"name": "leaf_lite0.plain", "preprocess": {"area": 128**2}, "score": {"range": [0.0, 1.0]}}
    architecture = {"backbone": "tf_efficientnet_lite0", "stages": [1, 2, 3, 4]}
    save_student(Student(), tmp_path / "plain", {**fields, "architecture": architecture})
    done = run("explain", photos / "a", "--weights", tmp_path / "plain")
    assert done.returncode == 2 and "tells a score and nothing else" in done.stderr


def test_names_of_pictures():
    assert picture_names(["p/a.jpg", "p/q/a.jpg"]) == ["a.jpg.png", "q_a.jpg.png"]
