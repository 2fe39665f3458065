"""Scores of files in Python and on the command line: formats, several metrics, going on, nothing lost."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import leafiqa
from leafiqa.scoring.resuming import read_rows, resume
from leafiqa.scoring.rows import COLUMNS, Row, Writer
from tests.conftest import invoke as run
from tests.conftest import make_picture


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.fromarray(make_picture(seed=index)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


def test_scores_in_python(folder, metric):
    table = leafiqa.score(folder / "photos", metric)
    assert [row.score for row in table] == pytest.approx(metric([row.image for row in table]).tolist(), abs=2e-5)
    assert len(table) == 4 and not table.failed and table[0].image.endswith("0.png") and len(table[0].sha256) == 16
    assert [row.score for row in table.best(2)] == sorted((row.score for row in table), reverse=True)[:2]
    summary = table.summary()[0]
    assert summary.n == 4 and summary.mean == pytest.approx(sum(row.score for row in table) / 4)
    assert summary.quartiles[0] == min(row.score for row in table)
    assert list(table.to_dict()) == list(COLUMNS) and "4 images, mean" in str(table) and "0.png" in str(table)
    table.to_csv(folder / "t.csv")
    with pytest.raises(leafiqa.OutputError, match="exists already"):
        table.to_csv(folder / "t.csv")
    table.save(folder / "t.json")
    assert [row["score"] for row in json.loads((folder / "t.json").read_text())] == table.to_dict()["score"]
    assert next(leafiqa.iter_scores(iter(folder.glob("photos/*.png")), metric, batch_size=1)).score is not None
    with pytest.raises(leafiqa.InputError, match="no images found"):
        leafiqa.score([])


def test_a_bad_file_is_a_row(folder, metric):
    (folder / "photos" / "bad.png").write_bytes(b"nothing")
    (folder / "photos" / "dangling.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "photos" / "pipe.png")
    table = leafiqa.score([folder / "photos"], metric)
    assert [os.path.basename(row.image) for row in table.failed] == ["bad.png", "dangling.png", "pipe.png"]
    assert len(table) == 7 and "not a regular file" in table.failed[2].error and not table.failed[2].sha256


def test_pandas(folder, metric):
    pandas = pytest.importorskip("pandas")
    frame = leafiqa.score(folder / "photos", metric).to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame.score.notna().all()


def test_every_format_and_several_metrics(folder):
    names = ["--metric", "leaf", "--metric", "leaf_lite0.photo-10"]
    for ending in ("csv", "jsonl", "json", "md", "txt"):
        out = folder / f"out.{ending}"
        done = run("score", folder / "photos", *names, "-o", out)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("4 images, mean") == 2
    rows = list(csv.DictReader(io.StringIO((folder / "out.csv").read_text())))
    assert len(rows) == 8 and [row["metric"] for row in rows[:2]] == ["leaf_lite0.general", "leaf_lite0.photo-10"]
    table = leafiqa.score(folder / "photos", ["leaf", "leaf_lite0.photo-10"])
    assert [float(row["score"]) for row in rows] == pytest.approx([row.score for row in table], abs=2e-6)
    assert json.loads((folder / "out.json").read_text()) == [
        json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()
    ]
    markdown = (folder / "out.md").read_text().splitlines()
    assert len(markdown) == 2 + 4 and all(line.count("|") == 5 for line in markdown)
    assert "leaf_lite0.photo-10" in markdown[0] and f"{table[0].score:.4f}" in markdown[2].replace(" ", "")
    assert len((folder / "out.txt").read_text().splitlines()) == 2 + 4
    for ending in ("html", "parquet", "png"):
        done = run("score", folder / "photos", "-o", folder / f"x.{ending}")
        assert done.returncode == 2 and "its ending must be one of .csv" in done.stderr
        assert not (folder / f"x.{ending}").exists()
    assert run("score", folder / "photos", "-o", folder / "x.out", "--format", "csv").returncode == 0
    assert "is given twice" in run("score", folder / "photos", "--metric", "leaf", "--metric", "leaf").stderr


def test_bottom_min_and_an_empty_list(folder):
    rows = list(csv.DictReader(io.StringIO(run("score", folder / "photos", "--format", "csv").stdout)))
    scores = sorted(float(row["score"]) for row in rows)
    worst = list(csv.DictReader(io.StringIO(run("score", folder, "-r", "--bottom", "2", "--format", "csv").stdout)))
    assert [float(row["score"]) for row in worst] == scores[:2]
    least = str((scores[1] + scores[2]) / 2)
    good = list(csv.DictReader(io.StringIO(run("score", folder / "photos", "--min", least, "--format", "csv").stdout)))
    assert [float(row["score"]) for row in good] == scores[:1:-1]
    nothing = run("score", "-", stdin="")
    assert nothing.returncode == 0 and nothing.stdout == "" and "nothing to score" in nothing.stderr
    assert run("score", folder / "photos", "--top", "1", "--bottom", "1").returncode == 2


def test_outputs_destroy_no_inputs(folder):
    pictures = sorted((folder / "photos").glob("*.png"))
    before = {path: path.read_bytes() for path in pictures}
    done = run("score", "-o", *pictures)  # what a shell makes of `-o *.png`
    assert done.returncode == 2 and "its ending must be" in done.stderr
    done = run("score", "--format", "csv", "-o", *pictures)
    assert done.returncode == 2 and "is a picture" in done.stderr
    assert {path: path.read_bytes() for path in pictures} == before
    mine = folder / "mine.csv"
    mine.write_text("image,mos\n0.png,3\n")
    for how in ([], ["--overwrite"], ["--resume"]):
        done = run("score", folder / "photos", "-o", mine, *how)
        assert done.returncode == 2 and mine.read_text() == "image,mos\n0.png,3\n", done.stderr
    ratings = folder / "photos" / "mos.csv"
    ratings.write_text("image,mos\n" + "".join(f"{i}.png,{i}\n" for i in range(4)))
    for option in ("--scores", "-o"):
        done = run("eval", "--mos", ratings, option, ratings, "--overwrite")
        assert done.returncode == 2 and "one of the files that are read" in done.stderr
    assert ratings.read_text().startswith("image,mos\n0.png,0")
    out = folder / "out.csv"
    assert run("score", folder / "photos", "-o", out).returncode == 0
    first = out.read_text()
    assert run("score", folder / "photos" / "1.png", "-o", out).returncode == 2 and out.read_text() == first
    assert run("score", folder / "photos" / "1.png", "-o", out, "--overwrite").returncode == 0
    assert out.read_text().count("\n") == 2


def test_two_runs_on_one_output(folder):
    from leafiqa.files import locked

    out = folder / "out.csv"
    with locked(out):
        done = run("score", folder / "photos", "-o", out)
    assert done.returncode == 2 and "another process is writing" in done.stderr and not out.exists()


def test_resume_notices_replaced_files_and_other_folders(folder):
    out = folder / "out.csv"
    assert run("score", "photos", "-o", "out.csv", cwd=folder).returncode == 0
    before = {row.image: row for row in read_rows(out, "csv")}
    assert set(before) == {f"photos/{i}.png" for i in range(4)}
    Image.fromarray(make_picture(seed=77)).save(folder / "photos" / "2.png")
    done = run("score", "photos", "-o", "out.csv", "--resume", cwd=folder)
    assert "3 images scored before, 1 to go" in done.stderr and "2.png changed since it was scored" in done.stderr
    after = {row.image: row for row in read_rows(out, "csv")}
    assert after["photos/2.png"].score != before["photos/2.png"].score and len(after) == 4
    # The same relative name elsewhere is another file: its row joins the others.
    (folder / "other" / "photos").mkdir(parents=True)
    Image.fromarray(make_picture(seed=5)).save(folder / "other" / "photos" / "0.png")
    done = run("score", "photos", "-o", "../out.csv", "--resume", cwd=folder / "other")
    assert done.returncode == 0, done.stderr
    last = {row.image: row for row in read_rows(out, "csv")}
    assert last.pop("other/photos/0.png").score != after["photos/0.png"].score and last == after


def test_names_in_tables_are_no_formulas(folder):
    name = "=1+1;.png"
    Image.fromarray(make_picture(seed=1)).save(folder / name)
    done = run("score", name, "-o", "t.csv", cwd=folder)
    assert done.returncode == 0 and "\n./=1+1;.png," in (folder / "t.csv").read_text()
    assert "0 to go" in run("score", name, "-o", "t.csv", "--resume", cwd=folder).stderr


def test_folders_say_what_is_missing(folder):
    (folder / "photos" / "raw.dng").write_bytes(b"")
    (folder / "photos" / "x.exr").write_bytes(b"")
    done = run("score", folder / "photos")
    assert done.returncode == 0 and done.stderr.count("does not read this kind") == 2


NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            Row, NAMES, st.none() | st.floats(0, 1).map(lambda x: round(x, 6)), NAMES, NAMES, NAMES, NAMES, NAMES
        ),
        max_size=5,
    ),
    st.sampled_from(["csv", "jsonl"]),
    st.data(),
)
def test_rows_round_trip_and_may_be_cut_anywhere(tmp_path_factory, rows, format, data):
    """What is read back of an interrupted output is a beginning of what was written, row by row."""
    writer = Writer(format, [("m", "w")])
    texts = [writer.header(), *map(writer.row, rows)]
    whole = "".join(texts)
    path = tmp_path_factory.mktemp("rows") / f"t.{format}"
    path.write_bytes(whole.encode("utf-8", "surrogateescape"))

    def as_written(row):
        from leafiqa.tables import safe_cell

        texts = (row.image, row.error, row.note, row.metric, row.weights, row.sha256)
        safe = [safe_cell(text) if format == "csv" else text for text in texts]
        return (safe[0], row.score, *safe[1:])

    def fields(row):
        return (row.image, row.score, row.error, row.note, row.metric, row.weights, row.sha256)

    expected = [as_written(row) for row in rows]
    assert [fields(row) for row in read_rows(path, format)] == expected
    cut = data.draw(st.integers(0, len(path.read_bytes())))
    path.write_bytes(path.read_bytes()[:cut])
    found = [fields(row) for row in read_rows(path, format)]
    assert found == expected[: len(found)] and len(found) >= len(expected) - 1 - (len(rows) - _complete(texts, cut))


def _complete(texts, cut):
    """Return how many rows were written as a whole before a cut."""
    written, count = len(texts[0].encode("utf-8", "surrogateescape")), 0
    for text in texts[1:]:
        written += len(text.encode("utf-8", "surrogateescape"))
        count += written <= cut
    return count


def test_a_torn_row_whose_name_holds_a_line_break(tmp_path):
    Image.fromarray(make_picture(8, 8)).save(tmp_path / "a\nb.png")
    Image.fromarray(make_picture(8, 8)).save(tmp_path / "c.png")
    out = tmp_path / "out.csv"
    assert run("score", tmp_path, "-o", out).returncode == 0
    text = out.read_text()
    out.write_text(text[: text.index('b.png"') + 1])  # killed within the name
    assert resume(out, "csv", [str(tmp_path / "c.png")], [("m", "w")]).files == [str(tmp_path / "c.png")]
    assert run("score", tmp_path, "-o", out, "--resume").returncode == 0
    assert sorted(row.image for row in read_rows(out, "csv")) == [str(tmp_path / "a\nb.png"), str(tmp_path / "c.png")]


def test_a_metric_scores_from_many_threads_as_from_one(metric):
    """Thread safety: the same scores, and the settings of the process as found."""
    import threading

    import torch

    pictures = [make_picture(50 + 8 * i, 70, seed=i) for i in range(6)]
    expected = [metric(picture).item() for picture in pictures]
    found, state = {}, torch.get_rng_state()

    def work(number):
        found[number] = [metric(picture).item() for picture in pictures]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(scores == pytest.approx(expected, abs=1e-6) for scores in found.values())
    assert torch.equal(torch.get_rng_state(), state)


def test_python_without_the_command_line(folder):
    code = f"import leafiqa; print(leafiqa.score({str(folder / 'photos')!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "4 images, mean" in done.stdout
