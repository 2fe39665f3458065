"""What rows hold beside the score: its standard error, and the severity of each defect."""

import csv
import json

import pytest
from PIL import Image

import leafiqa
from leafiqa.model.checkpoint import save_student
from leafiqa.model.student import Student
from leafiqa.scoring.resuming import read_rows
from leafiqa.scoring.rows import COLUMNS
from leafiqa.scoring.scores import is_scores
from tests.conftest import invoke as run
from tests.conftest import make_picture


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(3):
        Image.fromarray(make_picture(seed=index)).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "bad.png").write_bytes(b"nothing")
    return tmp_path


def test_rows_say_what_explain_says(folder, metric):
    table = leafiqa.score(folder / "photos", metric, columns=["defects", "se"])
    assert [row.beside for row in table.failed] == [{}] and table.failed[0].error
    told = [row for row in table if row.score is not None]
    for row in told:
        explanation = metric.explain(row.image)
        assert row.score == pytest.approx(explanation.score, abs=1e-6)
        assert row.beside.pop("standard_error") == pytest.approx(explanation.standard_error, abs=1e-5)
        assert {"defect_" + name: value for name, value in explanation.defects.items()} == pytest.approx(
            row.beside, abs=2e-3
        )
    plain = leafiqa.score(folder / "photos", metric, backend="torch")
    assert all(row.beside == {} for row in plain) and list(plain.to_dict()) == list(COLUMNS)
    assert [row.score for row in plain if row.score] == pytest.approx([row.score for row in told], abs=1e-5)


def test_columns_of_a_table(folder, metric):
    table = leafiqa.score(folder / "photos", metric, columns=("score", "se"))
    values = table.to_dict()
    assert list(values) == [*COLUMNS, "standard_error"]
    by_name = leafiqa.score(folder / "photos", columns="se", device="cpu")  # a name alone, and torch is chosen for it
    assert list(by_name.to_dict()) == list(values)
    assert [value is None for value in values["standard_error"]] == [row.score is None for row in table]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "md", "txt"])
def test_files_with_columns_are_told_for_ours(folder, ending):
    out = folder / f"t.{ending}"
    for more in ([], ["--overwrite"]):
        assert run("score", folder / "photos", "--columns", "score,se,defects", "-o", out, *more).returncode == 1
    assert is_scores(out.read_bytes())
    assert ("blur" in out.read_text()) or ending in ("md", "txt")


def test_every_row_of_a_csv_has_every_column(folder):
    done = run("score", folder / "photos", "--columns", "se,defects", "--format", "csv")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 4 and None not in rows[0] and "defect_noise" in rows[0]
    for row in rows:
        extra = {name: cell for name, cell in row.items() if name not in COLUMNS}
        assert all(cell == "" for cell in extra.values()) == bool(row["error"])
        assert row["error"] or (0 < float(row["standard_error"]) < 0.5 and 0 <= float(row["defect_noise"]) <= 3)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_going_on_takes_the_same_columns(folder, format):
    out = folder / f"t.{format}"
    assert run("score", folder / "photos", "--columns", "se", "-o", out).returncode == 1
    first = out.read_text()
    again = run("score", folder / "photos", "--columns", "se", "-o", out, "--resume")
    assert "3 images scored before, 1 to go" in again.stderr and out.read_text().splitlines() == first.splitlines()
    rows = read_rows(out, format, ["standard_error"])
    assert [set(row.beside) for row in rows if row.score is not None] == [{"standard_error"}] * 3
    for asked in ("score", "se,defects"):
        other = run("score", folder / "photos", "--columns", asked, "-o", out, "--resume")
        assert other.returncode == 2 and "choose another output" in other.stderr
    assert out.read_text().splitlines() == first.splitlines()


def test_comparing_reads_scores_with_columns(folder):
    run("score", folder / "photos", "--columns", "se,defects", "-o", folder / "t.json")
    rows = json.loads((folder / "t.json").read_text())
    assert "defect_blur" in rows[0] or "defect_blur" in rows[1]
    done = run("compare", f"a={folder / 't.json'}", f"b={folder / 't.json'}")
    assert "defect" not in done.stderr, done.stderr


def test_what_cannot_be_asked(folder, metric):
    with pytest.raises(leafiqa.InputError, match="columns must be of score, se, defects, details; got 'blur'"):
        leafiqa.score(folder / "photos", metric, columns=["se", "blur"])
    fields = {
        "name": "leaf_lite0.plain",
        "architecture": {"backbone": "tf_efficientnet_lite0", "stages": [1, 2, 3, 4]},
        "preprocess": {"area": 128**2},
        "score": {"range": [0.0, 1.0]},
    }
    save_student(Student(), folder / "plain", fields)
    with pytest.raises(leafiqa.WeightsError, match="plain tells a score and nothing else"):
        leafiqa.score(folder / "photos", weights=folder / "plain", columns=["se"])
    pytest.importorskip("onnxruntime")
    with pytest.raises(leafiqa.InputError, match="take torch"):
        leafiqa.score(folder / "photos", backend="onnx", columns=["se"])
