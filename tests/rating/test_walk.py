"""The hour of docs/rate.md, command by command, with a scripted rater."""

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from leafiqa.reports.pages import is_page
from tests.conftest import make_picture

pytest.importorskip("uvicorn")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "rate.md"


def scripted(address, quality, labels=50):
    """Rate as somebody does who sees the blur: the sharper the better."""

    def post(name, content):
        body = json.dumps({"rater": "scripted", **content}).encode()
        request = urllib.request.Request(address + name, body, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    state = post("state", {})
    time.sleep(8)  # people take longer than the student does to look at seventy small pictures
    while state["kind"] != "none":
        data = urllib.request.urlopen(f"{address}picture/{state['pictures'][0]}", timeout=30).read()
        value = str(quality[data])
        state = post("answer", {"number": state["number"], "value": value, "seconds": 3})
    until = time.monotonic() + 60
    while (known := json.loads(urllib.request.urlopen(address + "known", timeout=60).read()))["labels"] < labels:
        assert time.monotonic() < until, known
        time.sleep(0.5)
    post("finish", {})
    return known


def test_the_hour(tmp_path):
    (tmp_path / "photos").mkdir()
    quality = {}
    for number in range(70):
        blur = (number * 7 % 70) / 18
        path = tmp_path / "photos" / f"{number:02}.png"
        Image.fromarray(make_picture(96, 96, number % 9)).filter(ImageFilter.GaussianBlur(blur)).save(path)
        quality[path.read_bytes()] = round(5 - blur)
    block = re.search(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL).group(1)
    lines = [shlex.split(line) for line in block.splitlines()]
    assert [line[1] for line in lines] == ["rate", "mos", "calibrate", "eval"]
    for words in lines:
        command = [sys.executable, "-m", *words]
        if words[1] != "rate":
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, (words, done.stderr)
            continue
        running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        known = scripted(running.stdout.readline().strip(), quality)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        assert "50 pictures, 1 rater" in out and known["labels"] == 50 and known["srcc"] > 0.6
    assert is_page((tmp_path / "ratings.html").read_bytes()[:100])
    assert (tmp_path / "mos.csv").read_text().startswith("image,mos,mos_se,mos_std,n,mean,")
    assert "stands_for" in (tmp_path / "mos.csv").read_text().splitlines()[0]
    assert "calibrated on" in done.stderr or "labels" in done.stderr  # it says that it flatters


def test_a_session_may_end_in_a_student(tmp_path):
    (tmp_path / "photos").mkdir()
    quality = {}
    for number in range(24):
        path = tmp_path / "photos" / f"{number:02}.png"
        Image.fromarray(make_picture(96, 96, number % 5)).filter(ImageFilter.GaussianBlur(number / 6)).save(path)
        quality[path.read_bytes()] = round(5 - number / 6)
    options = ["rate", "photos", "-o", "answers.csv", "-n", "20", "--calibrate", "mine/leaf_lite0.rated"]
    command = [sys.executable, "-m", "leafiqa", *options]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    scripted(running.stdout.readline().strip(), quality, labels=20)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "rung" in out and (tmp_path / "mine" / "leaf_lite0.rated.safetensors").is_file()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_the_report_of_a_session(tmp_path):
    import leafiqa
    from leafiqa.reports.pages import is_page as ours
    from tests.conftest import invoke

    hostile = "<script>alert(1)</script>"
    lines = ["rater,image,score"]
    for number in range(12):
        Image.fromarray(make_picture(64, 64, number)).save(tmp_path / f"{number}.png")
        lines += [
            f"{rater},{number}.png,{1 + (number + shift) % 5}" for shift, rater in enumerate(("ann", "bob", hostile))
        ]
    (tmp_path / "long.csv").write_text("\n".join(lines))
    done = invoke(
        "mos", tmp_path / "long.csv", "--report", tmp_path / "p.html", "--metric", "leaf", "-o", tmp_path / "m.csv"
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "p.html").read_text()
    assert ours(text.encode()[:100]) and "On which raters disagree most" in text
    assert "On which leaf_lite0.general and the raters disagree most" in text
    assert hostile not in text and "&lt;script&gt;alert(1)" in text
    told = json.loads(invoke("mos", tmp_path / "long.csv", "--json").stdout)
    assert len(told["pictures"]) == 12 and told["raters"][2]["name"] == hostile
    assert invoke("mos", tmp_path / "long.csv", "-o", tmp_path / "m.csv").returncode == 2
    assert invoke("mos", tmp_path / "long.csv", "--export", tmp_path / "x.csv").returncode == 2
    panel = leafiqa.summarise_ratings(tmp_path / "long.csv")
    assert {"mos", "mos_se"} <= set(panel.to_pandas().columns)


def test_wrong_use_is_told(tmp_path):
    from tests.conftest import invoke

    Image.fromarray(make_picture(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "other.csv").write_text("image,mos\n")
    for arguments, message in (
        (["rate", tmp_path / "none", "-o", tmp_path / "r.csv"], "no such file or folder"),
        (["rate", tmp_path, "-o", tmp_path / "other.csv"], "not written by leafiqa"),
        (["rate", tmp_path, "-o", tmp_path / "r.csv", "-n", "5"], "budget must be from 1 to the number of pictures, 1"),
        (["rate", tmp_path, "-o", tmp_path / "r.csv", "--host", "203.0.113.7"], "cannot serve at 203.0.113.7"),
        (["mos", tmp_path / "other.csv"], "is a table of MOS, not of ratings"),
    ):
        done = invoke(*arguments)
        assert done.returncode == 2 and message in done.stderr, (arguments, done.stderr)


def test_links_out_of_the_folder_are_left_out(tmp_path):
    from leafiqa.api.rating import inside

    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for folder in ("in", "out"):
        Image.fromarray(make_picture(8, 8)).save(tmp_path / folder / "a.png")
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / "out" / "a.png")
    (tmp_path / "in" / "own.png").symlink_to(tmp_path / "in" / "a.png")
    paths = [tmp_path / "in" / name for name in ("a.png", "linked.png", "own.png")]
    assert inside(paths, tmp_path / "in") == [paths[0], paths[2]]
    assert inside(paths, [tmp_path / "in", paths[1]]) == paths  # named by itself, it is meant
