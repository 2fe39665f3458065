"""The best of several pictures: which ones, how many they were chosen from, and nothing overwritten."""

import csv
import json

import pytest

import leafiqa
from leafiqa.errors import InputError, OutputError
from tests.conftest import invoke
from tests.generators.folders import brightness, geneval, grey


@pytest.fixture
def folder(tmp_path):
    for prompt, levels in (("a cat on a mat", [10, 90, 50]), ("two dogs", [70, 20])):
        for seed, level in enumerate(levels):
            grey(tmp_path / "out" / prompt / f"{seed}.png", level)
    return tmp_path / "out"


def test_the_best_of_each_prompt_and_how_many_it_was_chosen_from(folder):
    (folder / "two dogs" / "9.png").write_bytes(b"broken")
    found = leafiqa.best(folder, brightness)
    rows = [(one.image[len(str(folder)) + 1 :], one.group, one.place, one.best_of) for one in found]
    assert rows == [("a cat on a mat/1.png", "a cat on a mat", 1, 3), ("two dogs/0.png", "two dogs", 1, 2)]
    assert list(found.failed) == [str(folder / "two dogs" / "9.png")]
    assert "best of N by brightness" in str(found)
    two = leafiqa.best(folder, brightness, n=2)
    assert [(one.place, round(one.score * 255)) for one in two] == [(1, 90), (2, 50), (1, 70), (2, 20)]


def test_per_folder_and_of_all(folder):
    assert [round(one.score * 255) for one in leafiqa.best(folder, brightness, per="folder")] == [90, 70]
    (one,) = leafiqa.best(folder, brightness, per="all")
    assert round(one.score * 255) == 90 and one.best_of == 5


def test_geneval_and_several_generators(tmp_path):
    for name, level in (("a", 50), ("b", 60)):
        geneval(tmp_path / name, ["a cat", "a dog"], level, samples=3)
    found = leafiqa.best({"a": tmp_path / "a", "b": tmp_path / "b"}, brightness)
    assert [(one.generator, one.group) for one in found] == [
        ("a", "a cat"),
        ("a", "a dog"),
        ("b", "a cat"),
        ("b", "a dog"),
    ]


def test_one_picture_a_prompt_is_told(tmp_path):
    for number in range(3):
        grey(tmp_path / f"{number}.png", 50)
    assert any("nothing to choose from" in remark for remark in leafiqa.best(tmp_path, brightness).remarks)


def test_copies_are_listed_and_nothing_is_replaced(folder, tmp_path):
    grey(folder / "two dogs" / "1.png", 99)
    found = leafiqa.best(folder, brightness)
    copies = found.copy_to(tmp_path / "chosen")
    assert sorted(path.name for path in copies) == ["1.png", "two dogs_1.png"]  # two of one name: their folder's before
    with (tmp_path / "chosen" / "best.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["best_of"] for row in rows} == {"3", "2"} and (tmp_path / "chosen" / rows[0]["image"]).is_file()
    with pytest.raises(OutputError, match="is not empty"):
        found.copy_to(tmp_path / "chosen")
    with pytest.raises(OutputError, match="is not empty"):
        found.copy_to(folder)


def test_the_command(folder, tmp_path):
    done = invoke("best", folder, "--list", "--per", "prompt")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    assert all(line.startswith(str(folder)) for line in done.stdout.splitlines())
    told = json.loads(invoke("best", folder, "--json", "-n", "2").stdout)
    assert [one["best_of"] for one in told["chosen"]] == [3, 3, 2, 2]
    assert invoke("best", folder, "--copy-to", tmp_path / "new", "-o", tmp_path / "b.csv").returncode == 0
    assert len(list((tmp_path / "new").glob("*.png"))) == 2
    assert (tmp_path / "b.csv").read_text().startswith("image,generator,group,score,place,best_of,metric,weights\n")
    assert invoke("best", folder, "-o", tmp_path / "b.csv").returncode == 2
    assert invoke("best", folder, "--copy-to", tmp_path / "new").returncode == 2


def test_arguments(folder):
    for wrong, message in (
        ({"per": "picture"}, "per must be one of prompt, folder, all"),
        ({"n": 0}, "n must be a whole number from 1 on"),
        ({"metric": [brightness, max]}, "chosen by one metric"),
    ):
        with pytest.raises(InputError, match=message):
            leafiqa.best(folder, **{"metric": brightness, **wrong})
    (folder.parent / "empty").mkdir()
    with pytest.raises(InputError, match="no images found"):
        leafiqa.best(folder.parent / "empty", brightness)
