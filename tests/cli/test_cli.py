"""The command line as its users run it: in a process of its own."""

import csv
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import leafiqa
from tests.conftest import make_picture
from tests.images.test_decode import BAD


def run(*arguments, stdin=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "leafiqa", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=300,
        **options,
    )


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        Image.fromarray(make_picture(seed=index)).save(tmp_path / f"{index}.png")
    (tmp_path / "deeper").mkdir()
    Image.fromarray(make_picture(60, 40, seed=9)).save(tmp_path / "deeper" / "nine.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_folder_to_csv(folder, metric):
    result = run("score", "-r", folder, "--format", "csv")
    assert result.returncode == 0, result.stderr
    rows = rows_of(result.stdout)
    assert [os.path.basename(row["image"]) for row in rows] == ["0.png", "1.png", "2.png", "nine.jpg"]
    expected = metric(row["image"] for row in rows)
    assert [float(row["score"]) for row in rows] == pytest.approx(expected.tolist(), abs=2e-5)
    assert {row["metric"] for row in rows} == {"leaf_lite0.general"}
    assert {row["weights"] for row in rows} == {metric.card.short_hash}
    assert len(rows_of(run("score", folder, "--format", "csv").stdout)) == 3  # without -r


@pytest.mark.parametrize(
    "verb", ["best", "compare", "select -n 1 -o chosen.csv", "rate -o ratings.csv", "report -o page.html"]
)
def test_a_metric_among_folders_is_told_from_a_missing_folder(verb, folder):
    done = run(*verb.split(), folder, "--metric", "leaf", "leaf_lite2.general", cwd=folder)
    assert done.returncode == 2 and "leaf_lite2.general is the name of a metric" in " ".join(done.stderr.split())


@pytest.mark.parametrize("verb", ["score", "explain"])
def test_a_metric_where_a_path_should_be_is_told_from_a_missing_image(verb, folder, metric):
    done = run(verb, folder / "0.png", "--metric", "leaf", "leaf_lite2.general", cwd=folder)
    assert done.returncode == 2 and done.stdout == ""
    said = " ".join(done.stderr.split())
    assert "leaf_lite2.general is the name of a metric" in said and "write --metric leaf_lite2.general" in said
    Image.fromarray(make_picture()).save(folder / "leaf.png")
    (folder / "leaf.png").rename(folder / "leaf")  # a picture of that name is one
    scored = run(verb, "leaf", cwd=folder)
    assert scored.returncode == 0, scored.stderr


def test_bad_files_do_not_stop_the_good(folder, metric):
    for name, data in BAD.items():
        (folder / name).write_bytes(data)
    result = run(
        "score", folder, folder / "missing.jpg", folder / "notes.txt", "--format", "jsonl", "--batch-size", "4"
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    rows = {os.path.basename(row["image"]): row for row in map(json.loads, result.stdout.splitlines())}
    assert set(BAD) | {"0.png", "1.png", "2.png", "missing.jpg", "notes.txt"} == set(rows)
    good = {name for name, row in rows.items() if row["score"] is not None}
    assert good == {"0.png", "1.png", "2.png"}
    assert all(row["error"] for name, row in rows.items() if name not in good)
    assert rows["1.png"]["score"] == pytest.approx(metric(folder / "1.png").item(), abs=2e-5)
    assert f"{len(rows) - 3} of {len(rows)} images have no score" in result.stderr


def test_sort_top_table_stdin_and_glob(folder):
    listing = "\n".join(str(folder / f"{i}.png") for i in range(3)) + "\n"
    rows = rows_of(run("score", "-", "--sort", "--format", "csv", stdin=listing).stdout)
    scores = [float(row["score"]) for row in rows]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    table = run("score", f"{folder}/**/*.*g", "--top", "2").stdout.splitlines()
    assert table[0].startswith("# leaf_lite0.general, weights") and len(table) == 4


def test_resume_finishes_the_rest(folder):
    out = folder / "out.csv"
    assert run("score", "-r", folder, "-o", out).returncode == 0
    full = out.read_text()
    lines = full.splitlines(keepends=True)
    out.write_text("".join(lines[:2]) + lines[2][:-9])  # killed while writing the second row
    result = run("score", "-r", folder, "-o", out, "--resume")
    assert result.returncode == 0 and "1 images scored before, 3 to go" in result.stderr
    assert out.read_text() == full
    out.write_text(full.replace("leaf_lite0.general", "other.model"))
    result = run("score", "-r", folder, "-o", out, "--resume")
    assert result.returncode == 2 and "other.model" in result.stderr


def test_interrupt_loses_nothing(tmp_path):
    for index in range(500):
        Image.fromarray(make_picture(200, 200, seed=index)).save(tmp_path / f"{index:03}.png")
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "leafiqa", "score", str(tmp_path), "-o", str(out), "--batch-size", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_text().count("\n") >= 4) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    before = [json.loads(line) for line in out.read_text().splitlines()]
    assert 4 <= len(before) < 500
    assert run("score", tmp_path, "-o", out, "--resume").returncode == 0
    after = [json.loads(line) for line in out.read_text().splitlines()]
    assert after[: len(before)] == before and len({row["image"] for row in after}) == 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score"], "Missing argument"),
        (["score", "x.jpg", "--bogus"], "--bogus"),
        (["score", "x.jpg", "--metric", "leef"], "Did you mean 'leaf'"),
        (["score", "x.jpg", "--device", "abacus"], "abacus"),
        (["score", "x.jpg", "--device", "meta"], "cannot be used here"),
        (["score", "x.jpg", "--resume"], "-o FILE"),
        (["score", "x.jpg", "--batch-size", "0"], "--batch-size"),
        (["score", "."], "no images found"),
        (["info", "leaff"], "Did you mean"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_wrong_usage_exits_2(arguments, message, tmp_path):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr


def test_closed_pipe_is_no_error(folder):
    command = f"{sys.executable} -m leafiqa score -r {folder} --format csv | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("image,score") and "Traceback" not in result.stderr
    command = f"set -o pipefail; {sys.executable} -m leafiqa models | true"
    assert subprocess.run(["bash", "-c", command], capture_output=True, timeout=60).returncode == 0


def test_output_that_cannot_be_written(folder):
    full = subprocess.run(
        f"{sys.executable} -m leafiqa score {folder}/0.png > /dev/full", shell=True, capture_output=True, text=True
    )
    assert full.returncode == 2 and "No space left" in full.stderr and "Traceback" not in full.stderr
    result = run("score", folder, "-o", folder / "none" / "out.csv")
    assert result.returncode == 2 and "cannot write" in result.stderr


def test_output_into_links_and_devices(folder):
    assert run("score", folder, "-o", folder / "real.csv").returncode == 0
    (folder / "link.csv").symlink_to(folder / "real.csv")
    for how in (["--overwrite"], ["--resume"]):
        assert run("score", folder / "0.png", "-o", folder / "link.csv", *how).returncode == 0
        assert (folder / "link.csv").is_symlink() and len(rows_of((folder / "real.csv").read_text())) == 1
    os.mkfifo(folder / "pipe")
    reader = subprocess.Popen(["cat", folder / "pipe"], stdout=subprocess.PIPE, text=True)
    assert run("score", folder / "0.png", "-o", folder / "pipe", "--format", "csv").returncode == 0
    assert len(rows_of(reader.communicate(timeout=30)[0])) == 1
    assert run("score", folder / "0.png", "-o", "/dev/null").returncode == 0
    assert not os.path.isfile("/dev/null")


def test_one_awkward_file_does_not_stop_the_others(folder):
    thin = folder / "thin.png"
    Image.new("RGB", (3_000_000, 1)).save(thin)
    result = run("score", folder / "0.png", folder / ("a" * 300 + ".jpg"), thin, folder / "1.png", "--format", "csv")
    rows = rows_of(result.stdout)
    assert result.returncode == 1 and [bool(row["score"]) for row in rows] == [True, False, True, True]
    assert "name too long" in rows[1]["error"]


def test_same_file_by_two_names_is_scored_once(folder):
    result = run("score", "0.png", "./0.png", folder / "0.png", "--format", "csv", cwd=folder)
    assert len(rows_of(result.stdout)) == 1
    run("score", "0.png", "missing.png", "-o", "out.csv", cwd=folder)
    result = run("score", "./0.png", "./1.png", "-o", "out.csv", "--resume", cwd=folder)
    rows = rows_of((folder / "out.csv").read_text())
    assert [row["image"] for row in rows] == ["0.png", "missing.png", "1.png"]  # no row is lost, none stands twice


def test_resume_of_a_damaged_file(folder):
    out = folder / "out.jsonl"
    row = {"image": "x", "score": "good", "error": "", "note": "", "metric": "m", "weights": "w"}
    out.write_text(json.dumps(row) + "\n")
    result = run("score", folder, "-o", out, "--resume")
    assert result.returncode == 2 and "a score is 'good'" in result.stderr
    (folder / "out.csv").write_text("image,score,error,note,metric,weights\n" + "a" * 200_000 + ",1,,,m,w\n")
    result = run("score", folder, "-o", folder / "out.csv", "--resume")
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_names_forge_no_rows_and_top_loses_no_errors(folder):
    forged = "missing\n  0.9999 fake.png"
    result = run("score", folder / "0.png", folder / forged)
    assert result.stdout.count("\n") == 2 + 2 and "\n  0.9999" not in result.stdout
    result = run("score", folder, folder / "missing.png", "--top", "1")
    assert "missing.png" not in result.stdout and "missing.png" in result.stderr and result.returncode == 1


def test_rows_and_bar_share_a_terminal(folder):
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "leafiqa", "score", folder, "--batch-size", "1"],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    content = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not part:
            break
        content += part
    assert process.wait() == 0
    text = content.decode()
    assert "3/3" in text
    # Each row begins a line of its own, the bar having been wiped before it.
    for name in ("0.png", "1.png", "2.png"):
        line = next(line for line in re.split(r"\r\n", text) if name in line)
        assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.split("\r")[-1]).strip().endswith(name), repr(line)
        assert "scoring" not in line.split("\x1b[2K")[-1], repr(line)


def test_demo_fits_eighty_columns():
    demo = run("demo", env={**os.environ, "COLUMNS": "80"})
    assert demo.returncode == 0 and "…" not in demo.stdout
    assert "path" in demo.stdout and "degradation" in demo.stdout and "underexposed" in demo.stdout
    rows = [list(map(float, re.findall(r"0\.\d{3}", line))) for line in demo.stdout.splitlines() if "│" in line]
    assert len(rows) == 10 and all(len(row) == 6 and row[0] == max(row) and row[5] < row[2] for row in rows)
    assert all(after < before + 0.03 for row in rows for before, after in itertools.pairwise(row))


def test_odd_file_names(tmp_path):
    names = ['comma,quote".png', "line\nbreak.png", "ünïcode.png"]
    for name in names:
        Image.fromarray(make_picture(20, 20)).save(tmp_path / name)
    raw = os.fsencode(tmp_path) + b"/latin-\xe9.png"
    with open(raw, "wb") as file:
        Image.fromarray(make_picture(20, 20)).save(file, "PNG")
    out = tmp_path / "out.csv"
    assert run("score", tmp_path, "-o", out).returncode == 0
    with out.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = {row["image"] for row in csv.DictReader(file)}
    assert found == {os.path.join(tmp_path, name) for name in names} | {os.fsdecode(raw)}
    assert "0 to go" in run("score", tmp_path, "-o", out, "--resume").stderr
    assert run("score", tmp_path).stdout.count("\n") == 2 + 4


def test_models_info_demo():
    assert "leaf_lite0.general" in run("models", "leaf*").stdout
    text = run("info", "leaf").stdout
    card = leafiqa.model_card("leaf")
    for expected in (card.sha256, "licences", "AGIQA-3K", "SRCC"):
        assert expected in text
    assert json.loads(run("info", "leaf", "--json").stdout)["sha256"] == card.sha256


def test_help_and_import_are_cheap():
    code = (
        "import sys, leafiqa, leafiqa.cli.main; leafiqa.list_models();"
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'rich', 'huggingface_hub'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    best = min(_seconds([sys.executable, "-m", "leafiqa", "--help"]) for _ in range(4))
    bare = min(_seconds([sys.executable, "-c", "import click"]) for _ in range(4))
    assert best < max(0.4, 3 * bare)


def _seconds(command):
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start
