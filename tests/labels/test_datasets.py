"""The field's data sets, on tiny folders of the layout that their authors ship."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from leafiqa.cli.main import cli
from leafiqa.errors import InputError
from leafiqa.labels.datasets import DATASETS, read_dataset, read_labels, recognise
from leafiqa.labels.splits import deal_folds


def write_csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", (24, 24), (20 * i, 90, 120)).save(folder / name)


def koniq(root):
    touch(root / "1024x768", "1.jpg", "2.jpg", "3.jpg")
    head = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set"]
    write_csv(
        root / "koniq10k_distributions_sets.csv",
        head,
        ["1.jpg", 0, 2, 25, 73, 0, 100, 67.4, 0.6, "training"],
        ["2.jpg", 0, 2, 25, 73, 0, 25, 12.5, 0.5, "validation"],
        ["3.jpg", 0, 2, 25, 73, 0, 100, 80.0, 0.5, "test"],
    )


def spaq(root):
    from openpyxl import Workbook

    touch(root / "TestImage", "00001.jpg", "00002.jpg")
    book = Workbook()
    book.active.append(["Image name", "MOS", "Brightness"])
    book.active.append(["00001.jpg", 30.8, 45])
    book.active.append(["00002.jpg", 72, 45])
    (root / "Annotations").mkdir()
    book.save(root / "Annotations" / "MOS and Image attribute scores.xlsx")


def agiqa3k(root):
    touch(root / "images", "AttnGAN_normal_000.jpg", "xl2.2_normal_299.jpg")
    write_csv(
        root / "data.csv",
        ["name", "prompt", "adj1", "adj2", "style", "mos_quality", "std_quality", "mos_align", "std_align"],
        ["AttnGAN_normal_000.jpg", "statue of a man", "", "", "", 0.97, 0.22, 3.1, 0.5],
        ["xl2.2_normal_299.jpg", "a tray, of sushi", "", "", "", 3.5, 0.44, 1.2, 0.5],
    )


def aigiqa20k(root):
    for split, name in (("train", "a.png"), ("val", "b.png"), ("test", "c.png")):
        touch(root / split, name)
        write_csv(root / f"info_{split}.csv", ["name", "prompt", "mos"], [name, f"prompt of {name}", 2.5])


def livec(root):
    touch(root / "Images", "3.bmp", "4.bmp")
    touch(root / "Images" / "trainingImages", "t1.bmp")
    names = np.empty((3, 1), dtype=object)
    names[:, 0] = ["t1.bmp", "3.bmp", "4.bmp"]
    (root / "Data").mkdir()
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": names})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.array([[50.0, 63.9, 25.3]])})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": np.array([[1.0, 18.4, 17.0]])})


def kadid(root):
    touch(root / "images", "I01_01_01.png", "I01_01_05.png")
    write_csv(
        root / "dmos.csv",
        ["dist_img", "ref_img", "dmos", "var"],
        ["I01_01_01.png", "I01.png", 4.57, 0.25],
        ["I01_01_05.png", "I01.png", 1.2, 0.36],
    )


def biq2021(root):
    touch(root / "Images", "ss01 (571).jpg", "ss03 (20).jpg")
    # The authors' file carries two empty columns.
    write_csv(root / "Train (Images and MOS).csv", ["Image Name", "MOS", "", ""], ["ss01 (571).jpg", 0.4831, "", ""])
    write_csv(root / "Test (Images and MOS).csv", ["Image Name", "MOS"], ["ss03 (20).jpg", 0.8115])


MADE = {
    "koniq10k": (koniq, [67.4, 12.5, 80.0], [0.06, 0.1, 0.05]),
    "spaq": (spaq, [30.8, 72.0], [None, None]),
    "agiqa3k": (agiqa3k, [0.97, 3.5], [0.22, 0.44]),
    "aigiqa20k": (aigiqa20k, [2.5, 2.5, 2.5], [None] * 3),
    "livec": (livec, [63.9, 25.3], [18.4, 17.0]),
    "kadid10k": (kadid, [4.57, 1.2], [0.5, 0.6]),
    "biq2021": (biq2021, [0.4831, 0.8115], [None, None]),
}


@pytest.mark.parametrize("name", MADE)
def test_layout_is_recognised_and_joined(name, tmp_path):
    make, scores, spreads = MADE[name]
    make(tmp_path)
    assert recognise(tmp_path) == name
    table = read_labels(tmp_path)
    assert [row.mos for row in table.rows] == scores
    assert [row.standard_error for row in table.rows] == pytest.approx(spreads)
    assert all(row.path.is_file() for row in table.rows)
    assert table.scale == DATASETS[name].scale
    assert table.scale[0] <= min(scores) and max(scores) <= table.scale[1]
    assert table.problems == []


def test_koniq_as_the_images_come(tmp_path):
    """The file that comes with the images: its MOS is on 1 to 5, the other one's on 1 to 100; no official split."""
    touch(tmp_path / "1024x768", "1.jpg", "2.jpg")
    write_csv(
        tmp_path / "koniq10k_scores_and_distributions.csv",
        ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "MOS_zscore"],
        ["1.jpg", 0, 0, 25, 73, 7, 105, 3.83, 0.53, 76.14],
        ["2.jpg", 0, 2, 25, 73, 0, 100, 2.0, 0.6, 33.2],
    )
    table = read_labels(tmp_path)
    assert [row.mos for row in table.rows] == [76.14, 33.2] and table.scale == (1, 100)
    assert table.rows[1].standard_error == pytest.approx(0.06)
    with pytest.raises(InputError, match="none is of split 'test'; is the authors' file of the split there"):
        read_labels(tmp_path, split="test")
    koniq(tmp_path)  # with the official split beside it, that file is read
    assert [row.mos for row in read_dataset(tmp_path, split="train").rows] == [67.4]


def test_images_of_other_splits_are_known_without_a_score(tmp_path):
    """Scores of a test part may be kept back: blank, or without a column; it must not be learned from all the same."""
    aigiqa20k(tmp_path)
    write_csv(tmp_path / "info_val.csv", ["name", "prompt", "mos"], ["b.png", "x", ""])
    write_csv(tmp_path / "info_test.csv", ["name", "prompt"], ["c.png", "x"])
    table = read_dataset(tmp_path, split="train")
    assert [row.image for row in table.rows] == ["a.png"]
    assert table.elsewhere == {tmp_path / "val" / "b.png", tmp_path / "test" / "c.png"}


def test_rows_that_repeat_and_folders_in_capitals(tmp_path):
    agiqa3k(tmp_path)
    (tmp_path / "images").rename(tmp_path / "Images")
    with (tmp_path / "data.csv").open("a") as file:
        file.write("xl2.2_normal_299.jpg,again,,,,1.0,0.4,1,1\n")
    table = read_labels(tmp_path)
    assert [row.mos for row in table.rows] == [0.97, 3.5]
    assert table.problems == ["xl2.2_normal_299.jpg: stands several times: the first is used"]


def test_every_known_data_set_is_tested():
    assert set(MADE) == set(DATASETS)


@pytest.mark.parametrize(
    ("make", "split", "names"),
    [
        (koniq, "train", ["1.jpg"]),
        (koniq, "val", ["2.jpg"]),
        (koniq, "test", ["3.jpg"]),
        (aigiqa20k, "val", ["b.png"]),
        (biq2021, "test", ["ss03 (20).jpg"]),
    ],
)
def test_official_splits(make, split, names, tmp_path):
    make(tmp_path)
    assert [row.image for row in read_dataset(tmp_path, split=split).rows] == names


def test_groups_keep_what_belongs_together(tmp_path):
    kadid(tmp_path)
    assert [row.group for row in read_dataset(tmp_path).rows] == ["I01.png", "I01.png"]
    (tmp_path / "other").mkdir()
    agiqa3k(tmp_path / "other")
    assert [row.group for row in read_dataset(tmp_path / "other").rows] == ["statue of a man", "a tray, of sushi"]


def test_what_is_missing_is_said(tmp_path):
    koniq(tmp_path)
    (tmp_path / "1024x768" / "2.jpg").unlink()
    table = read_dataset(tmp_path)
    assert [row.image for row in table.rows] == ["1.jpg", "3.jpg"]
    assert "1 image(s) of KonIQ-10k" in table.problems[0] and "2.jpg" in table.problems[0]
    with pytest.raises(InputError, match="no image of KonIQ-10k"):
        read_dataset(tmp_path, split="val")


def test_a_score_that_is_none_is_left_out(tmp_path):
    biq2021(tmp_path)
    write_csv(tmp_path / "Test (Images and MOS).csv", ["Image Name", "MOS"], ["ss03 (20).jpg", "nan"])
    table = read_dataset(tmp_path)
    assert len(table.rows) == 1 and "ss03 (20).jpg: MOS 'nan'" in table.problems[0]


def test_refusals_name_what_would_help(tmp_path):
    with pytest.raises(InputError, match=r"no data set that is known here.*columns image and mos"):
        recognise(tmp_path)
    kadid(tmp_path)
    with pytest.raises(InputError, match="no official split 'test'; it has none"):
        read_dataset(tmp_path, split="test")
    with pytest.raises(InputError, match="is not KonIQ-10k"):
        read_dataset(tmp_path, name="koniq10k")
    with pytest.raises(InputError, match="unknown data set 'ava'"):
        read_dataset(tmp_path, name="ava")
    with pytest.raises(InputError, match="for tables"):
        read_labels(tmp_path, mos_column="dmos")
    write_csv(tmp_path / "dmos.csv", ["dist_img", "dmos"], ["I01_01_01.png", 3])
    with pytest.raises(InputError, match="lacks the column"):
        read_dataset(tmp_path)
    agiqa3k(tmp_path)
    with pytest.raises(InputError, match="looks like agiqa3k and kadid10k"):
        recognise(tmp_path)


def test_a_spreadsheet_that_is_none(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "MOS and Image attribute scores.xlsx").write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot read"):
        read_dataset(tmp_path)


def test_eval_takes_a_folder(tmp_path):
    touch(tmp_path / "images", *[f"{i}.png" for i in range(12)])
    rows = [[f"{i}.png", f"{i % 3}.png", 1 + i / 4, 0.25] for i in range(12)]
    write_csv(tmp_path / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], *rows)
    done = CliRunner().invoke(cli, ["eval", "--mos", str(tmp_path), "--json", "--draws", "100"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["leaf_lite0.general"]["n"] == 12


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(2, 8), st.integers(0, 5))
def test_no_group_is_on_both_sides_of_a_split(groups, count, seed):
    folds = deal_folds([str(group) for group in groups], count, seed)
    of = dict(zip(groups, folds.tolist()))
    assert [of[group] for group in groups] == folds.tolist()
    assert set(folds.tolist()) == set(range(min(count, len(of))))
    assert folds.tolist() == deal_folds([str(group) for group in groups], count, seed).tolist()
