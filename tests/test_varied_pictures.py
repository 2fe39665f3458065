"""Pictures of many origins: what is named was judged, and is written out of the repositories as it was judged."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import unseen, varied_pictures
from leafiqa.evidence.files import read_evidence


def test_every_picture_was_judged_and_no_repository_is_in_both_splits():
    named = varied_pictures.read_table()
    assert len({row["image"] for row in named}) == len(named)
    of = {split: {row["repository"] for row in named if row["split"] == split} for split in ("train", "val")}
    assert of["train"] and of["val"] and not of["train"] & of["val"]
    for file in varied_pictures.EVIDENCE:
        judged = set(read_evidence([file]).images)
        prefix = f"{file.stem}/" if file.stem in varied_pictures.KINDS else ""
        split = "val" if file.stem == "val" else "train"
        own = {row["image"] for row in named if row["split"] == split and row["image"].startswith(prefix)}
        assert own and own <= judged
        anchors = judged - own
        assert not anchors & {row["image"] for row in named}
        assert {name.partition("/")[0] for name in anchors} == {"agiqa3k", "biq2021", "photos", "generated"}
        assert len(anchors) >= 30  # what it takes to bring a file to the common scale


@pytest.mark.parametrize("within", ["", ".git"])
def test_pictures_come_upright_on_white_and_no_larger_than_they_were_judged(within, tmp_path, monkeypatch, capsys):
    place = tmp_path / "mirrors" / "someone+pictures" / "repo" / within
    place.mkdir(parents=True)
    turned = Image.new("RGB", (1600, 800), "blue")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (400, 300), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    subprocess.run(["git", "init", "-q", "--bare", place], check=True)
    with (tmp_path / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "repository", "path", "blob", "split", "what", "licence"])
        for name in ("turned.jpg", "clear.png"):
            write = ["git", "--git-dir", place, "hash-object", "-w", tmp_path / name]
            blob = subprocess.run(write, capture_output=True, text=True, check=True).stdout.strip()
            table.writerow([f"snaps/{name}.jpg", "someone/pictures", name, blob, "train", "", ""])
        table.writerow(["snaps/gone.jpg", "someone/pictures", "gone", "0" * 40, "train", "", ""])
    monkeypatch.setattr(varied_pictures, "TABLE", tmp_path / "pictures.csv")
    monkeypatch.setattr(varied_pictures, "PICTURES", tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["varied_pictures", str(tmp_path / "mirrors")])
    varied_pictures.main()
    assert capsys.readouterr().out == "2 of 3 pictures are there, 1 were not found\n"
    assert Image.open(tmp_path / "out" / "snaps" / "turned.jpg.jpg").size == (384, 768)
    assert np.asarray(Image.open(tmp_path / "out" / "snaps" / "clear.png.jpg")).min() == 255


def test_agreement_within_repositories_is_told_apart_from_that_between_them():
    wanted = np.concatenate([np.arange(12.0), 100 + np.arange(12.0), [200.0, 201.0]])
    origins = ["one"] * 12 + ["other"] * 12 + ["few"] * 2
    between = np.concatenate([np.arange(12.0)[::-1], 100 + np.arange(12.0)[::-1], [200.0, 201.0]])
    told = unseen.measure(between, wanted, origins)
    assert told["within"] == -1.0 and 0.5 < told["srcc"] < 0.8
    assert told["repositories"] == 3 and told["n"] == 26
    assert unseen.measure(wanted, wanted, origins)["within"] == 1.0


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_students_results_are_of_all_pictures_of_a_split(split):
    named = varied_pictures.read_table()
    for of in json.loads(unseen.RESULT.read_text(encoding="utf-8"))["students"].values():
        for kind in varied_pictures.KINDS:
            own = [row for row in named if row["split"] == split and row["image"].startswith(f"{kind}/")]
            assert of[split][kind]["n"] == len(own)
            assert of[split][kind]["repositories"] == len({row["repository"] for row in own})
