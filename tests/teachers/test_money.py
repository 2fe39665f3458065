"""What asking costs, and who hears what: push-back, keys, two runs at once, requests as the user wants them."""

import json
import threading
import time

import pytest

import leafiqa
from leafiqa.errors import TeacherError
from leafiqa.files import locked
from leafiqa.teachers.http import Servers, insecure
from leafiqa.teachers.openai import ServerTeacher
from tests.conftest import invoke
from tests.teachers.chat_server import ChatServer, picture
from tests.teachers.test_label import images, server  # noqa: F401


class Always429(ChatServer):
    def serve(self, handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.path.endswith("completions"):
            self.requests[handler.path] += 1
        self.send(handler, 429, {"error": "later"}, {"Retry-After": "0"})


def test_come_back_at_once_is_not_taken_at_its_word():
    """`Retry-After: 0` was: 116 requests in six seconds, and no end."""
    one = Always429()
    teacher = ServerTeacher(Servers([one.address]), "seer")
    threading.Timer(4.0, teacher.stop).start()
    began = time.monotonic()
    with pytest.raises(TeacherError):
        teacher.judge(picture(0.5))
    assert time.monotonic() - began < 6 and one.requests["/v1/chat/completions"] <= 6
    quick = Servers([one.address], attempts=3, first_wait=0.01)
    one.requests.clear()
    with pytest.raises(TeacherError, match="no answer after 3 attempts"):
        ServerTeacher(quick, "seer").judge(picture(0.5))
    assert one.requests["/v1/chat/completions"] == 12 + 3  # twelve times put off, then each counts
    one.close()


def test_the_journal_is_read_under_the_lock(server, images, tmp_path, monkeypatch):  # noqa: F811
    """A second run that began while the first was asking had read an old journal, and asked everything again."""
    one, out = server(), tmp_path / "evidence.jsonl"
    inside, go_on = threading.Event(), threading.Event()
    from leafiqa.teachers import labelling

    original = labelling.Journal

    def slow(*arguments):
        made = original(*arguments)
        inside.set()
        assert go_on.wait(20)
        return made

    monkeypatch.setattr(labelling, "Journal", slow)
    first = threading.Thread(target=lambda: leafiqa.label(images, out, teacher="seer", server=one.address))
    first.start()
    assert inside.wait(20)
    with pytest.raises(leafiqa.OutputError, match="another process is writing"):
        leafiqa.label(images, out, teacher="seer", server=one.address)
    go_on.set()
    first.join(60)
    asked = one.answered
    again = leafiqa.label(images, out, teacher="seer", server=one.address)
    assert asked >= 12 and one.answered == asked and again.planned == 0
    with locked(out):
        done = invoke("label", images, "--server", one.address, "--teacher", "seer", "-o", out)
    assert done.returncode == 2 and "another process is writing" in done.stderr


def test_a_key_goes_where_the_user_said_and_nowhere_else(server, images, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    class Listens(ChatServer):
        of_sources: list = []  # noqa: RUF012

        def serve(self, handler):
            self.of_sources.append(handler.headers["Authorization"])
            return super().serve(handler)

    one = Listens()
    arguments = ["label", images, "--server", one.address, "--teacher", "seer"]
    assert invoke(*arguments, "-o", tmp_path / "a.jsonl").returncode == 0
    assert set(one.of_sources) == {None}
    one.of_sources.clear()
    assert invoke(*arguments, "-o", tmp_path / "b.jsonl", "--key-variable", "OPENAI_API_KEY").returncode == 0
    assert set(one.of_sources) == {"Bearer sk-very-secret"}
    one.close()
    unset = invoke(*arguments, "-o", tmp_path / "c.jsonl", "--key-variable", "NOT_SET")
    assert unset.returncode == 2 and "NOT_SET is not set" in unset.stderr


def test_unencrypted_addresses_beyond_this_machine_are_warned_of(images, tmp_path):  # noqa: F811
    loopback = ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:80/v1", "https://example.org/v1"]
    beyond = ["http://10.0.0.1/v1", "http://example.org/v1"]
    assert insecure([*loopback, *beyond]) == beyond
    lines = []
    arguments = {"teacher": "seer", "key": "k", "dry_run": True, "log": lines.append}
    leafiqa.label(images, tmp_path / "e.jsonl", server=beyond[0], **arguments)
    assert "not encrypted: the API key and the images can be read" in lines[0]
    lines.clear()
    leafiqa.label(images, tmp_path / "e.jsonl", server=loopback[0], **arguments)
    assert not any("is not encrypted" in line for line in lines)


def test_what_the_user_adds_goes_before_what_leafiqa_asks(server, images, tmp_path):  # noqa: F811
    one = server(logprobs=False)
    extra = json.dumps({"max_tokens": 900, "temperature": 0.3})
    arguments = ["label", images, "--server", one.address, "--teacher", "seer", "--mode", "number"]
    done = invoke(*arguments, "-o", tmp_path / "e.jsonl", "--extra", extra)
    assert done.returncode == 0, done.stderr
    assert {(body["max_tokens"], body["temperature"]) for body in one.bodies} == {(900, 0.3)}
    one.bodies.clear()
    done = invoke(*arguments, "-o", tmp_path / "f.jsonl", "--extra", '{"max_completion_tokens": 500}')
    assert done.returncode == 0
    assert all("max_tokens" not in body and body["max_completion_tokens"] == 500 for body in one.bodies)


def test_models_that_want_max_completion_tokens(images, tmp_path):  # noqa: F811
    class Modern(ChatServer):
        def answer(self, body):
            if "max_tokens" in body:
                self.refused = getattr(self, "refused", 0) + 1
                return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return super().answer(body)

    one = Modern()
    found = leafiqa.label(images, tmp_path / "e.jsonl", teacher="seer", server=one.address)
    one.close()
    assert not found.failed and found.answered >= 12 and 1 <= one.refused <= 40


def test_wrong_arguments(images, tmp_path):  # noqa: F811
    for options, message in (
        ({"mode": "loud"}, "mode must be one of"),
        ({"pairs": -1}, "pairs must be a whole number"),
        ({"sheet": 3}, "needs a server"),
        ({"sheet": 9, "server": "http://127.0.0.1:1/v1"}, "from 2 to 8"),
        ({"folder": tmp_path / "elsewhere"}, "is not in the folder that names are relative to"),
    ):
        with pytest.raises(leafiqa.InputError, match=message):
            leafiqa.label(images, tmp_path / "e.jsonl", teacher="seer", **options)
    with pytest.raises(leafiqa.OutputError, match="there is no folder"):
        leafiqa.label(images, tmp_path / "none" / "e.jsonl", teacher="seer", server="http://127.0.0.1:1/v1")
    assert not (tmp_path / "e.jsonl").exists()
