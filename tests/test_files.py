"""Files: nothing is destroyed in silence, nothing waits for a pipe, two writers do not meet."""

import os
import subprocess
import sys
import threading

import pytest
from PIL import Image

import leafiqa
from leafiqa.files import check_output, locked, printable, sha256_if_readable, write_whole
from leafiqa.scoring.rows import Row
from leafiqa.scoring.scores import Scores, is_scores
from tests.conftest import make_picture


def test_places_that_are_not_written_onto(tmp_path):
    Image.fromarray(make_picture(8, 8)).save(tmp_path / "a.png")
    (tmp_path / "odd").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "mine.csv").write_text("image,mos\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "mine.csv")
    for place, options, message in [
        ("a.png", {"overwrite": True}, "is a picture"),
        ("odd", {"overwrite": True}, "is a picture"),
        ("mine.csv", {}, "exists already.*--overwrite"),
        ("mine.csv", {"overwrite": None}, "exists already; name another file$"),
        ("mine.csv", {"overwrite": True, "inputs": [tmp_path / "link.csv"]}, "one of the files that are read"),
        ("mine.csv", {"overwrite": True, "is_ours": lambda head: head.startswith(b"image,score")}, "not written by"),
        ("none/x.csv", {}, "there is no folder"),
        (".", {}, "is a folder"),
    ]:
        with pytest.raises(leafiqa.OutputError, match=message):
            check_output(tmp_path / place, **options)
    check_output(tmp_path / "new.csv")
    check_output("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    check_output(tmp_path / "pipe")
    assert (tmp_path / "mine.csv").read_text() == "image,mos\n"


def test_write_whole_keeps_links_modes_and_the_old_content_on_failure(tmp_path, monkeypatch):
    target, link = tmp_path / "t", tmp_path / "l"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o640

    def fails(*arguments):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk"):
        write_whole(target, "newer")
    assert target.read_text() == "new" and sorted(path.name for path in tmp_path.iterdir()) == ["l", "t"]


def test_pipes_and_dangling_links_have_no_hash_and_nobody_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "dangling", "none", "x" * 300, "a\0b"):
        assert sha256_if_readable(tmp_path / name) is None
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_if_readable(tmp_path / "file").startswith("ba7816bf")


def test_a_lock_holds_across_processes_and_threads_and_dies_with_its_holder(tmp_path):
    out = tmp_path / "out.csv"
    code = "import sys; from leafiqa.files import locked\nwith locked(sys.argv[1]): print('in')"
    refused = []
    with locked(out):
        done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
        assert done.returncode != 0 and "another process is writing" in done.stderr

        def other():
            try:
                with locked(out):
                    pass
            except leafiqa.OutputError:
                refused.append(True)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == [True] and not out.exists()
    assert subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True).stdout == "in\n"


def test_control_sequences_are_shown_not_sent():
    assert printable("a\x1b[31mb\nc\x07") == "a\\x1b[31mb\\nc\\x07" and printable("ünï\udce9") == "ünï\udce9"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "through")
    reader.join(10)
    assert read == ["through"] and pipe.is_fifo()


def test_only_scores_are_taken_for_scores(tmp_path):
    row = Row("a.png", 0.5, metric="leaf_lite0.general", weights="0123456789ab", sha256="0" * 16)
    for format in ("csv", "jsonl", "json", "markdown", "table"):
        assert is_scores(Scores([row]).render(format).encode()), format
    assert is_scores(Scores([]).render("json").encode())
    for mine in ("# Notes of mine\n", "| image | caption |\n", '{"image": "a.png", "mos": 3}\n', "image,score\n"):
        assert not is_scores(mine.encode()), mine
