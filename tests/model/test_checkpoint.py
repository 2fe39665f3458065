"""Names, files, folders and the hub; what is tampered with, truncated or out of reach."""

import base64
import hashlib
import json
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from click.testing import CliRunner

import leafiqa
from leafiqa.cli.main import cli
from leafiqa.model import hub
from leafiqa.model.places import resolve
from leafiqa.model.registry import list_models
from leafiqa.model.uploading import upload as push

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def student(tmp_path):
    """A copy of the default student in a folder of its own: (weights, card)."""
    file, _ = resolve("leaf")
    folder = tmp_path / "student"
    folder.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(file.with_suffix(suffix), folder / ("mine.v1" + suffix))
    return folder / "mine.v1.safetensors", folder / "mine.v1.json"


def test_list_models():
    assert leafiqa.list_models()[0] == "leaf"
    assert "leaf_lite0.general" in list_models(filter="leaf_*")
    assert list_models(filter="nothing*") == [] and list_models(metric_mode="FR") == []
    assert list_models("NR") == list_models() and "leaf" not in list_models(exclude_filters="leaf*")
    with pytest.raises(leafiqa.InputError, match="filter='leaf"):
        list_models("leaf*")


def test_unknown_name_suggests():
    with pytest.raises(leafiqa.UnknownModelError, match="Did you mean 'leaf'"):
        leafiqa.create_metric("LEAF")
    with pytest.raises(leafiqa.UnknownModelError, match=r"leaf_lite0\.general"):
        leafiqa.create_metric("leaf_lite0.generel")


def test_file_card_and_folder_give_the_same_metric(student, metric, picture):
    weights, card = student
    for form in (weights, str(weights), card, weights.parent, str(weights.parent)):
        assert torch.equal(leafiqa.create_metric(weights=form, device="cpu")(picture), metric(picture))


def test_tampered_and_truncated_files_are_refused_with_both_hashes(student):
    weights, card = student
    expected = json.loads(card.read_text())["sha256"]
    content = weights.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[: len(content) // 2], b"", content + b"\x80"):
        weights.write_bytes(damaged)
        with pytest.raises(leafiqa.WeightsError) as caught:
            leafiqa.create_metric(weights=weights)
        assert expected in str(caught.value) and hashlib.sha256(damaged).hexdigest() in str(caught.value)


def test_no_pickle_is_loaded(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(leafiqa.WeightsError, match="pickle"):
        leafiqa.create_metric(weights=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "abc"}, "64 lower-case hex"),
        ({"format": 99}, "card format 99"),
        ({"score": {"range": [1, 1]}}, "must rise"),
        ({"preprocess": {"area": 0}}, "out of range"),
        ({"preprocess": {"multiple": 32.0}}, r"preprocess\.multiple is not what it should be"),
        ({"preprocess": {"std": 0.5}}, r"preprocess\.std is not what it should be"),
        ({"preprocess": {"mean": [0.5, 0.5]}}, r"preprocess\.mean is not what it should be"),
        ({"architecture": {"backbone": "resnet18", "stages": [1], "gates": 3}}, "architecture has unknown fields"),
        ({"architecture": {"backbone": "resnet18", "stages": [1], "hidden": 2.5}}, r"architecture\.hidden"),
        ({"preprocess": {"crop": 3}}, "unknown fields"),
        ({"architecture": {"backbone": "no_such_net", "stages": [1, 2, 3, 4]}}, "no_such_net"),
        ({"architecture": {"backbone": "resnet18", "stages": [1, 2, 3, 4]}}, "does not fit"),
        ({"architecture": {"backbone": "resnet18"}}, "does not fit"),
    ],
)
def test_wrong_cards(student, change, message):
    weights, card = student
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(leafiqa.WeightsError, match=message):
        leafiqa.create_metric(weights=weights)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"backbone": "hf-hub:timm/tf_efficientnet_lite0.in1k", "stages": [1, 2, 3, 4], "hidden": 128}},
        {"architecture": {"backbone": 7, "stages": [1], "hidden": 128}},
        {"architecture": {"backbone": "tf_efficientnet_lite0", "stages": [99], "hidden": 128}},
        {"architecture": []},
        {"preprocess": 5},
        {"preprocess": {"area": "x"}},
        {"score": {"range": [0, float("inf")]}},
        {"licences": []},
        {"name": 3},
    ],
)
def test_malformed_cards_are_refused_without_any_network(student, change, monkeypatch):
    weights, card = student
    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("a socket was opened"))
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(leafiqa.WeightsError):
        leafiqa.create_metric(weights=weights, device="cpu")


def test_missing_files_and_odd_places(student, tmp_path):
    weights, card = student
    card.unlink()
    with pytest.raises(leafiqa.WeightsError, match="side by side"):
        leafiqa.create_metric(weights=weights)
    with pytest.raises(leafiqa.WeightsError, match="hf-hub:owner/repo"):
        leafiqa.create_metric(weights="owner/repo")
    with pytest.raises(leafiqa.WeightsError, match="exactly one"):
        leafiqa.create_metric(weights=tmp_path)
    with pytest.raises(leafiqa.WeightsError, match="hf-hub:owner/repo"):
        leafiqa.create_metric(weights="hf-hub:no-slash")
    card.write_text("{")
    with pytest.raises(leafiqa.WeightsError, match="invalid JSON"):
        leafiqa.create_metric(weights=weights)


def test_bundled_students_open_no_socket(monkeypatch, picture):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    leafiqa.create_metric("leaf", device="cpu")(picture)


def test_offline_failure_is_quick_and_helpful(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    began = time.monotonic()
    with pytest.raises(leafiqa.WeightsError, match="hf download owner/repo --revision main") as caught:
        leafiqa.create_metric(weights="hf-hub:owner/repo")
    assert time.monotonic() - began < 1
    assert ".safetensors" in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.fixture
def hub_server(student, monkeypatch, tmp_path):
    """A local stand-in for the hub that serves the student as owner/repo."""
    import huggingface_hub.constants as constants

    weights, card = student
    files = {"mine.v1.safetensors": weights.read_bytes(), "mine.v1.json": card.read_bytes(), "README.md": b"hi"}
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self.do_GET(body=False)

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(self.path)
            if self.path == "/api/repos/create":
                return self.answer(json.dumps({"url": f"{endpoint()}/owner/repo"}).encode(), True)
            if self.path == "/api/validate-yaml":
                return self.answer(b'{"errors": [], "warnings": []}', True)
            if self.path == "/api/models/owner/repo/preupload/main":
                wanted = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(content)["files"]
                ]
                return self.answer(json.dumps({"files": wanted}).encode(), True)
            if self.path == "/api/models/owner/repo/commit/main":
                for line in map(json.loads, content.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                return self.answer(
                    json.dumps({"commitUrl": f"{endpoint()}/owner/repo/commit/{COMMIT}", "commitOid": COMMIT}).encode(),
                    True,
                )
            self.send_error(403)

        def do_GET(self, body=True):
            requests.append(self.path)
            if self.path.startswith("/api/models/owner/repo/revision/"):
                siblings = [{"rfilename": name} for name in files]
                return self.answer(json.dumps({"id": "owner/repo", "sha": COMMIT, "siblings": siblings}).encode(), body)
            if self.path.startswith(f"/api/models/owner/repo/tree/{COMMIT}"):
                tree = [{"type": "file", "path": name, "size": len(of), "oid": "0" * 40} for name, of in files.items()]
                return self.answer(json.dumps(tree).encode(), body)
            name = self.path.rsplit("/", 1)[-1]
            if self.path == f"/owner/repo/resolve/{COMMIT}/{name}" and name in files:
                return self.answer(files[name], body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, content, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

    def endpoint():
        return f"http://127.0.0.1:{server.server_port}"

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield files, requests, server
    server.shutdown()
    server.server_close()


def test_hub_download_is_pinned_to_a_commit_and_cached(hub_server, metric, picture):
    _, requests, server = hub_server
    score = leafiqa.create_metric(weights="hf-hub:owner/repo", device="cpu")(picture)
    assert torch.equal(score, metric(picture))
    fetched = [path for path in requests if "/resolve/" in path]
    assert fetched and all(COMMIT in path for path in fetched) and not any("README" in path for path in fetched)
    server.shutdown()
    server.server_close()
    for reference in (f"hf-hub:owner/repo@{COMMIT}", "hf-hub:owner/repo", "hf-hub:owner/repo@main"):
        assert leafiqa.create_metric(weights=reference, device="cpu").card.name == metric.card.name


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html/>\r\n", b"nonsense"])
def test_a_hub_that_answers_nonsense(monkeypatch, tmp_path, answer):
    import huggingface_hub.constants as constants

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if answer:
                        connection.recv(4096)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(leafiqa.WeightsError, match="hf download owner/repo"):
            leafiqa.create_metric(weights="hf-hub:owner/repo")
    with pytest.raises(leafiqa.WeightsError):
        leafiqa.create_metric(weights="hf-hub:owner/re--po")


def test_hub_file_that_is_not_its_card_is_refused(hub_server):
    files, _, _ = hub_server
    good = files["mine.v1.safetensors"]
    files["mine.v1.safetensors"] = good[:-4] + b"evil"
    with pytest.raises(leafiqa.WeightsError, match="damaged or was changed"):
        leafiqa.create_metric(weights="hf-hub:owner/repo")


def test_what_is_pushed_can_be_fetched(hub_server, student, metric, picture, monkeypatch):
    import huggingface_hub

    if int(huggingface_hub.__version__.split(".")[0]) < 1:
        pytest.skip("these take an address for the hub's only if it was known when they were imported")
    weights, _ = student
    files, _, _ = hub_server
    files.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    done = CliRunner().invoke(cli, ["push", str(weights), "owner/repo"])
    assert done.exit_code == 0 and done.stdout.strip() == f"hf-hub:owner/repo@{COMMIT}", done.output
    assert sorted(files) == ["README.md", "mine.v1.json", "mine.v1.safetensors"]
    page = files["README.md"].decode()
    assert "license: apache-2.0" in page and 'create_metric(weights="hf-hub:owner/repo")' in page
    fetched = leafiqa.create_metric(weights=done.stdout.strip(), device="cpu")
    assert torch.equal(fetched(picture), metric(picture))


def test_push_refuses_with_a_reason(hub_server, student, monkeypatch, tmp_path):
    weights, card = student
    files, _, _ = hub_server
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    files["other.v2.safetensors"] = b""
    with pytest.raises(leafiqa.WeightsError, match=r"holds another student already, other.v2"):
        push(weights, "owner/repo")
    with pytest.raises(leafiqa.WeightsError, match=r"cannot upload to other/repo.*hf auth login"):
        push(weights, "other/repo")
    with pytest.raises(leafiqa.WeightsError, match="must read owner/repo"):
        push(weights, "repo")
    (tmp_path / weights.name).write_bytes(weights.read_bytes()[:-1])
    (tmp_path / card.name).write_bytes(card.read_bytes())
    with pytest.raises(leafiqa.WeightsError, match="its sha256 differs"):
        push(tmp_path / weights.name, "owner/repo")


def test_hub_repository_without_a_student(hub_server):
    files, _, _ = hub_server
    del files["mine.v1.json"]
    with pytest.raises(leafiqa.WeightsError, match="no leafiqa student"):
        hub.fetch("hf-hub:owner/repo")
    with pytest.raises(leafiqa.WeightsError, match="other/repo"):
        hub.fetch("hf-hub:other/repo")


def test_a_failing_hub_is_no_matter_where_the_file_is_cached(hub_server, monkeypatch, metric):
    """The hub answered 503, and the cached student was not used."""
    import http.server

    leafiqa.create_metric(weights="hf-hub:owner/repo", device="cpu")

    class Broken(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    with pytest.warns(UserWarning, match="using the cached copy"):
        assert leafiqa.create_metric(weights="hf-hub:owner/repo", device="cpu").card == metric.card
    with pytest.raises(leafiqa.WeightsError, match="hf download other/repo"):
        leafiqa.create_metric(weights="hf-hub:other/repo")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("revision", ["../../x", "a/../../../x", "..", ".hidden", "a/.git", "/x", "x//y", "x/"])
def test_a_revision_leads_nowhere_out_of_the_cache(hub_server, tmp_path, revision):
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(leafiqa.WeightsError, match="must read hf-hub:owner/repo"):
        leafiqa.create_metric(weights=f"hf-hub:owner/repo@{revision}")
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_cards_of_newer_versions_load_where_the_score_is_known(student, metric, picture):
    weights, card = student
    fields = json.loads(card.read_text())
    card.write_text(json.dumps({**fields, "carbon": {"kg": 1}, "reviewed_by": "nobody"}))
    assert torch.equal(leafiqa.create_metric(weights=weights, device="cpu")(picture), metric(picture))


def test_a_foreign_cards_control_sequences_are_not_sent_to_the_terminal(student):
    weights, card = student
    evil = "\x1b]0;owned\x07\x1b[2J"
    fields = json.loads(card.read_text())
    fields |= {"description": evil, "limitations": [evil], "teacher": {"model": evil}}
    fields["score"]["unit"] = evil
    card.write_text(json.dumps(fields))
    from tests.conftest import invoke

    for arguments in (["info", "--weights", weights], ["score", "nothing.png", "--weights", weights]):
        done = invoke(*arguments)
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout + done.stderr
    card.write_text(json.dumps({**fields, "name": f"mine.{evil}"}))
    with pytest.raises(leafiqa.WeightsError, match="name must be printable text") as caught:
        leafiqa.create_metric(weights=weights, device="cpu")
    assert "\x1b" not in str(caught.value)
    card.write_text(json.dumps({**fields, "name": "[bold]mine[/nothing]"}))
    done = invoke("demo", "--weights", weights)
    assert done.returncode == 0 and "[bold]mine[/nothing]" in done.stdout


def test_odd_cards_are_refused_or_shown_but_never_a_traceback(student):
    weights, card = student
    fields = json.loads(card.read_text())
    card.write_text("[" * 100000)
    with pytest.raises(leafiqa.WeightsError, match="invalid JSON"):
        leafiqa.model_card(weights=weights)
    card.write_text(json.dumps({**fields, "preprocess": {**fields["preprocess"], "area": 1 << 40}}))
    with pytest.raises(leafiqa.WeightsError, match="out of range"):
        leafiqa.create_metric(weights=weights, device="cpu")
    from tests.conftest import invoke

    card.write_text(json.dumps({**fields, "score": {**fields["score"], "percentiles": [1, 2]}}))
    done = invoke("info", "--weights", weights)
    assert done.returncode == 0 and "range" in done.stdout
    card.write_text(json.dumps({**fields, "description": "\x9b2J\u202e"}))
    done = invoke("info", "--json", "--weights", weights)
    assert json.loads(done.stdout)["description"] == "\x9b2J\u202e" and done.stdout.isascii()


def test_a_student_is_not_written_into_a_file(tmp_path):
    from leafiqa.model.checkpoint import check_free

    (tmp_path / "file").write_text("mine")
    with pytest.raises(leafiqa.OutputError, match=r"file is a file; choose another folder"):
        check_free(tmp_path / "file" / "students", "leaf_lite0.mine", False)
