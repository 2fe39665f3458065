"""The page's server: who is let in, what is sent, and that nothing else is."""

import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image

from leafiqa.rating.answers import AnswerFile, read_answers
from leafiqa.rating.running import serve
from leafiqa.rating.session import Session
from tests.conftest import make_picture

pytest.importorskip("uvicorn")


@pytest.fixture
def served(tmp_path, metric):
    """A session of twelve pictures, served; its address, and the folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(11):
        Image.fromarray(make_picture(64, 64, number)).save(folder / f"{number:02}.png")
    Image.fromarray(make_picture(64, 64, 11)).save(folder / "<img src=x onerror=alert(1)>.tiff")
    session = Session(sorted(folder.iterdir()), AnswerFile(tmp_path / "ratings.csv"), metric, budget=8)
    address = []
    thread = threading.Thread(target=serve, args=(session,), kwargs={"started": address.append}, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not address and time.monotonic() < until:
        time.sleep(0.02)
    for _ in range(200):
        try:
            urllib.request.urlopen(address[0], timeout=5).read()
            break
        except urllib.error.URLError:
            time.sleep(0.05)
    yield address[0], folder, session, tmp_path / "ratings.csv"
    call(address[0], "finish", {})
    thread.join(20)
    assert not thread.is_alive()


def call(address, name, content=None, headers=None, method=None):
    """Return status, headers and body of a request."""
    data = None if content is None else json.dumps(content).encode() if not isinstance(content, bytes) else content
    sent = {"Content-Type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
    request = urllib.request.Request(address + name, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_question_is_asked_shown_and_answered(served):
    address, _, _, place = served
    status, headers, page = call(address, "")
    assert status == 200 and b'<script src="rate.js"' in page
    assert (
        "default-src 'none'" in headers["Content-Security-Policy"]
        and "unsafe" not in headers["Content-Security-Policy"]
    )
    assert headers["Access-Control-Allow-Origin"] is None and headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Server"] is None
    state = json.loads(call(address, "state", {"rater": "ann"})[2])
    assert state["kind"] == "rating" and state["warm_up"] and len(state["pictures"]) == 1
    status, headers, data = call(address, f"picture/{state['pictures'][0]}")
    assert status == 200 and headers["Content-Type"] == "image/png" and data.startswith(b"\x89PNG")
    after = json.loads(
        call(address, "answer", {"rater": "ann", "number": state["number"], "value": "4", "seconds": 2})[2]
    )
    assert after["number"] == 1 and after["done"] == 1
    assert read_answers(place).answers[0].seconds == 2.0
    twice = json.loads(call(address, "answer", {"rater": "ann", "number": state["number"], "value": "1"})[2])
    assert twice["number"] == 1 and len(read_answers(place).answers) == 1
    back = json.loads(call(address, "undo", {"rater": "ann", "number": 1})[2])
    assert back["pictures"] == state["pictures"] and back["done"] == 0
    known = json.loads(call(address, "known")[2])
    assert known["labels"] == 0 and "more pictures until" in known["words"]


def test_all_pictures_are_shown_also_those_that_browsers_cannot_read(served):
    address, folder, _, _ = served
    kinds = set()
    for rater in ("a", "b", "c"):
        for _ in range(14):
            state = json.loads(call(address, "state", {"rater": rater})[2])
            for key in state["pictures"]:
                status, headers, data = call(address, f"picture/{key}")
                assert status == 200 and data.startswith(b"\x89PNG")
                kinds.add(headers["Content-Type"])
            call(address, "answer", {"rater": rater, "number": state["number"], "value": "3"})
    assert kinds == {"image/png"}
    # A name with markup is never sent: pictures have keys.
    page = json.dumps(json.loads(call(address, "state", {"rater": "a"})[2]))
    assert "onerror" not in page and str(folder) not in page


def test_who_is_not_from_this_page_is_not_let_in(served):
    address, _, session, place = served
    base = address[: address.rstrip("/").rindex("/") + 1]
    token = address.rstrip("/").rsplit("/", 1)[1]
    body = {"rater": "eve"}
    for where, headers in (
        (base + "x" * len(token) + "/", {}),
        (base, {}),
        (base + token[:-1] + "/", {}),
        (address, {"Host": "evil.example"}),
        (address, {"Host": "evil.example:80"}),
        (address, {"Origin": "https://evil.example"}),
        (address, {"Origin": "null"}),
        (address, {"Sec-Fetch-Site": "cross-site"}),
    ):
        assert call(where, "state", body, headers)[0] == 404, (where, headers)
        assert call(where, "", None, headers)[0] == 404
    # A form of another page can send text without asking first; it is not taken for JSON.
    assert call(address, "answer", b'{"rater":"eve"}', {"Content-Type": "text/plain"})[0] == 415
    assert call(address, "state", body, {"Origin": address[: address.index("/", 8)]})[0] == 200
    assert [a for a in session.answers().answers if a.rater == "eve"] == [] and place.exists()


def test_paths_of_all_sorts_lead_nowhere(served):
    address, folder, session, _ = served
    (folder.parent / "secret.txt").write_text("secret")
    for name in (
        "picture/../secret.txt",
        "picture/%2e%2e%2fsecret.txt",
        "picture/..%2f..%2f..%2fetc%2fpasswd",
        "picture//etc/passwd",
        "picture/00.png",
        "picture/",
        "../../etc/passwd",
        "rating.py",
        "page/rate.html",
        "%00",
    ):
        status, _, data = call(address, name)
        assert status in (404, 405) and b"secret" not in data and b"root:" not in data, name
    # A picture that becomes a link to something else is not sent.
    state = json.loads(call(address, "state", {"rater": "ann"})[2])
    number = session.state("ann")[1].images[0]
    path = session.paths[number]
    path.unlink()
    os.symlink(folder.parent / "secret.txt", path)
    status, _, data = call(address, f"picture/{state['pictures'][0]}")
    assert status == 410 and b"secret" not in data
    assert number in session.unreadable


def test_odd_bodies_are_refused(served):
    address, _, session, _ = served
    for body, status in (
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b"[" * 3000, 400),
        (b"x" * 5000, 413),
        (json.dumps({"rater": "a\u0000b"}).encode(), 400),
        (json.dumps({"rater": "x" * 100}).encode(), 400),
        (json.dumps({"rater": {"$ne": 1}}).encode(), 400),
    ):
        assert call(address, "state", body)[0] == status, body[:20]
    for content in (
        {"rater": "a", "number": "0", "value": "3"},
        {"rater": "a", "number": True, "value": "3"},
        {"rater": "a", "number": 0, "value": 9},
        {"rater": "a", "number": 0, "value": None},
        {"rater": "a", "number": 0},
    ):
        assert call(address, "answer", content)[0] == 400, content
    assert call(address, "state", None, method="GET")[0] in (404, 405)
    assert session.answers().answers == []


def test_an_answer_takes_no_time(served):
    import http.client

    address = served[0]
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=20)
    path = "/" + address.split("/", 3)[3]
    times = []
    for _ in range(30):
        began = time.monotonic()
        connection.request("POST", path + "state", b'{"rater":"q"}', {"Content-Type": "application/json"})
        connection.getresponse().read()
        times.append(time.monotonic() - began)
    assert sorted(times)[15] < 0.03  # 40 ms and more where small packets wait for each other


def test_twenty_at_once_answer_one_question_once(served):
    address, _, session, _ = served
    number = json.loads(call(address, "state", {"rater": "ann"})[2])["number"]
    content = {"rater": "ann", "number": number, "value": "4"}
    threads = [threading.Thread(target=call, args=(address, "answer", content)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(session.own("ann")) == 1


def test_many_quick_requests_do_no_harm(served):
    address, _, session, place = served
    import http.client

    host = address.split("/")[2]
    path = "/" + address.split("/", 3)[3]
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each waits for the one before
    statuses = set()
    for number in range(10_000):
        if number % 2:
            connection.request("POST", "/wrong/answer", b"{}", {"Content-Type": "application/json"})
        else:
            connection.request(
                "POST", path + "answer", b'{"rater":"q","number":7,"value":"3"}', {"Content-Type": "application/json"}
            )
        answer = connection.getresponse()
        answer.read()
        statuses.add(answer.status)
    assert statuses == {200, 404}
    assert [a for a in session.answers().answers if a.rater == "q"] == []  # none was an answer to the present question
    assert len(place.read_text().splitlines()) == 1
