"""What goes wrong between leafiqa and a teacher: odd answers, secrets, push-back, interrupts, names, two writers."""

import json
import os
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leafiqa.cli.demo import PICTURES
from leafiqa.cli.main import cli
from leafiqa.errors import EvidenceError, InputError, OutputError, TeacherError, TeacherUnusable
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.foreign_tables import read_judgments
from leafiqa.evidence.reliability import preferences
from leafiqa.files import locked
from leafiqa.teachers.asking import ask
from leafiqa.teachers.batches import Batches
from leafiqa.teachers.http import Servers
from leafiqa.teachers.journal import Journal, Task
from leafiqa.teachers.labelling import _prior, _sources
from leafiqa.teachers.openai import ServerTeacher
from leafiqa.teachers.pairs import choose_pairs
from leafiqa.teachers.prompts import read_prompts
from leafiqa.teachers.protocol import Answer
from leafiqa.teachers.questions import pair_answers, pair_rounds, point_tasks
from leafiqa.teachers.sheets import compose, largest_cell
from tests.teachers.chat_server import ChatServer, picture
from tests.teachers.test_label import images, server, teacher_at  # noqa: F401

SECRET = "sk-very-secret"


class OddServer(ChatServer):
    """Answers the third question oddly."""

    def answer(self, body):
        self.asked = getattr(self, "asked", 0) + 1
        answer = super().answer(body)
        return self.odd(answer) if self.asked == 3 else answer


def _tops(answer):
    return answer["choices"][0]["logprobs"]["content"][0]


ODD = {
    "null message": lambda a: {"error": {"message": None}},
    "no top_logprobs": lambda a: _tops(a).pop("top_logprobs") and a,
    "empty top_logprobs": lambda a: _tops(a).update(top_logprobs=[]) or a,
    "null logprob": lambda a: _tops(a)["top_logprobs"][0].update(logprob=None) or a,
    "logprobs a list": lambda a: a["choices"][0].update(logprobs=[]) or a,
    "two certain words": lambda a: (
        _tops(a).update(top_logprobs=[{"token": "good", "logprob": 0.0}, {"token": "bad", "logprob": 0.0}]) or a
    ),
    "usage of words": lambda a: {**a, "usage": "many"},
    "a choice that is none": lambda a: {**a, "choices": ["good"]},
}


@pytest.mark.parametrize("odd", sorted(ODD))
def test_an_odd_answer_is_one_questions_trouble(odd, images, tmp_path):  # noqa: F811
    one = OddServer(odd=ODD[odd])
    journal = Journal(tmp_path / "evidence.jsonl", "seer")
    names = [f"{i:02}.png" for i in range(8)]
    report = ask(teacher_at(one), point_tasks(names, journal), images, journal, threads=1)
    one.close()
    tolerable = odd in ("null logprob", "usage of words")
    assert report.answered == 8 - (not tolerable) and len(report.failed) == (not tolerable)
    records = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert len(records) == report.answered and {record["method"] for record in records} == {"logprobs"}


def test_the_key_appears_in_no_error(server):  # noqa: F811
    class Echo(ChatServer):
        def serve(self, handler):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            given = handler.headers["Authorization"]
            self.send(handler, 401, {"error": {"message": f"Incorrect API key provided: {given}"}})

    one = Echo()
    with pytest.raises(TeacherUnusable, match=r"provided: Bearer \*\*\*") as caught:
        ServerTeacher(Servers([one.address], key=f"{SECRET}\n"), "seer").judge(picture(0.5))
    one.close()
    assert SECRET not in str(caught.value)
    with pytest.raises(TeacherUnusable, match="the API key holds") as caught:
        Servers([one.address], key="sk-very\nsecret")
    assert "very" not in str(caught.value)
    assert ServerTeacher(Servers([server(key=SECRET).address], key=f" {SECRET}\n"), "seer").judge(picture(0.5))


def test_redirects_and_proxies_lead_nowhere(server, monkeypatch):  # noqa: F811
    stranger = server()

    class Redirects(ChatServer):
        def serve(self, handler):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            self.send(handler, 307, {}, {"Location": f"{stranger.address}/chat/completions"})

    one = Redirects()
    with pytest.raises(TeacherUnusable, match=r"HTTP 307.*redirects are not followed"):
        ServerTeacher(Servers([one.address], key=SECRET), "seer").judge(picture(0.5))
    one.close()
    monkeypatch.setenv("http_proxy", stranger.address)
    assert teacher_at(server()).judge(picture(0.5)).judgment
    assert not stranger.requests


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost/v1", "ftp://127.0.0.1/v1", "http:///v1"])
def test_an_address_that_is_none(address):
    with pytest.raises(TeacherUnusable, match="must be an address such as"):
        Servers([address])


def test_a_server_that_was_never_reached_ends_the_run(images, tmp_path):  # noqa: F811
    nowhere = ServerTeacher(Servers(["http://127.0.0.1:9/v1"], attempts=2, first_wait=0.01), "seer")
    journal = Journal(tmp_path / "evidence.jsonl", "seer")
    with pytest.raises(TeacherUnusable, match="Is the address right"):
        ask(nowhere, point_tasks(["00.png", "01.png"], journal), images, journal)


def test_being_asked_to_come_back_is_no_attempt(server):  # noqa: F811
    """Ten refusals with Retry-After, at two attempts a question."""

    class Busy(ChatServer):
        def serve(self, handler):
            if self.requests["/v1/chat/completions"] < 10 and handler.path.endswith("completions"):
                handler.rfile.read(int(handler.headers["Content-Length"]))
                self.requests[handler.path] += 1
                return self.send(handler, 429, {"error": "later"}, {"Retry-After": "0.01"})
            return super().serve(handler)

    one = Busy()
    servers = Servers([one.address], attempts=2, first_wait=0.01)
    assert ServerTeacher(servers, "seer").judge(picture(0.5)).judgment and servers.retries == 10
    one.close()


def test_a_held_server_does_not_hold_up_what_another_can_answer():
    class Later(ChatServer):
        def serve(self, handler):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            self.requests[handler.path] += 1
            self.send(handler, 429, {"error": "later"}, {"Retry-After": "30"})

    tired, fresh = Later(), ChatServer()
    teacher, began = teacher_at(tired, fresh), time.monotonic()
    for _ in range(6):
        teacher.judge(picture(0.5))
    assert time.monotonic() - began < 10 and tired.requests["/v1/chat/completions"] == 1 and fresh.answered == 6
    alone = ServerTeacher(Servers([tired.address]), "seer")
    threading.Timer(0.3, alone.stop).start()
    with pytest.raises(TeacherError, match="asked to be left alone"):
        alone.judge(picture(0.5))
    tired.close()
    fresh.close()


def test_a_server_that_sends_people_away_for_long_ends_the_run():
    class Away(ChatServer):
        def serve(self, handler):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            self.send(handler, 429, {"error": "quota"}, {"Retry-After": "7200"})

    one = Away()
    with pytest.raises(TeacherUnusable, match=r"left alone for 7\d\d\d s; the same command goes on"):
        teacher_at(one).judge(picture(0.5))
    one.close()


def test_an_answer_that_drips_times_out():
    class Drips(ChatServer):
        def serve(self, handler):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(40):
                handler.wfile.write(b" ")
                time.sleep(0.1)

    one, began = Drips(), time.monotonic()
    with pytest.raises(TeacherError, match=r"did not end in time|Is the address right"):
        ServerTeacher(Servers([one.address], timeout=0.5, attempts=1), "seer", mode="number").judge(picture(0.5))
    assert time.monotonic() - began < 3
    one.close()


def test_fewer_log_probabilities_are_asked_for_where_twenty_are_too_many():
    class Five(ChatServer):
        def answer(self, body):
            return "top_logprobs must be at most 5" if body.get("top_logprobs", 0) > 5 else super().answer(body)

    one = Five()
    teacher = teacher_at(one)
    for _ in range(3):
        assert teacher.judge(picture(0.6)).asked["method"] == "logprobs"
    assert one.requests["/v1/chat/completions"] == 4  # found out once
    one.close()


def test_restricted_tokens_are_given_up_only_if_that_helps():
    class Picky(ChatServer):
        def answer(self, body):
            self.asked = getattr(self, "asked", 0) + 1
            return "this image is too small" if self.asked in (1, 2, 3) else super().answer(body)

    one = Picky(vllm=True)
    teacher = teacher_at(one)
    with pytest.raises(TeacherError, match="too small"):
        teacher.judge(picture(0.5))
    assert teacher.judge(picture(0.5)).judgment and "logprob_token_ids" in one.bodies[-1]
    one.close()


class Slow:
    """A teacher of the tests: slow, and stoppable."""

    name = "slow"

    def __init__(self):
        self.begun, self.stopped = 0, False

    def stop(self):
        self.stopped = True

    def judge(self, image):
        if self.stopped:
            raise AssertionError("asked after it was stopped")
        self.begun += 1
        if self.begun > 1:
            time.sleep(0.3)
        return Answer({"score": 50, "scale": [0, 100]})


def test_an_interrupt_keeps_what_was_being_answered(images, tmp_path):  # noqa: F811
    journal, teacher = Journal(tmp_path / "evidence.jsonl", "slow"), Slow()

    told = []

    def interrupts(task):
        told.append(task)
        if len(told) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(
            teacher,
            [Task("point", (f"{i:02}.png",)) for i in range(12)],
            images,
            journal,
            threads=3,
            advance=interrupts,
        )
    assert teacher.stopped and len(journal.path.read_text().splitlines()) == teacher.begun < 12


def test_questions_that_wait_end_when_asking_is_stopped():
    one = ChatServer(faults=1.0, kinds=("500",))
    servers = Servers([one.address], first_wait=30)
    threading.Timer(0.3, servers.stop).start()
    began = time.monotonic()
    with pytest.raises(TeacherError, match="stopped before it was asked again"):
        servers.post("/chat/completions", {"model": "seer", "messages": []})
    assert time.monotonic() - began < 5
    one.close()


def test_an_image_that_spoils_a_batch_spoils_only_itself():
    def answer(questions):
        if "bad" in questions:
            raise ValueError("bad image")
        return [len(question) for question in questions]

    batches = Batches(answer, kind=lambda question: 0, size=3, patience=0.2)
    found = {}

    def one(question):
        try:
            found[question] = batches.ask(question)
        except ValueError as error:
            found[question] = str(error)

    threads = [threading.Thread(target=one, args=(q,)) for q in ("a", "bad", "ccc")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert found == {"a": 1, "bad": "bad image", "ccc": 3}


def test_what_is_no_file_is_not_waited_for(images, tmp_path):  # noqa: F811
    os.mkfifo(images / "pipe.png")
    journal = Journal(tmp_path / "evidence.jsonl", "slow")
    report = ask(Slow(), [Task("point", ("pipe.png",)), Task("point", ("none.png",))], images, journal)
    assert sorted(why for _, why in report.failed) == ["none.png is not there", "pipe.png is no regular file"]


def test_a_name_that_is_no_utf8_is_one_questions_trouble(images, tmp_path):  # noqa: F811
    odd = os.fsdecode(b"\xff.png")
    (images / odd).write_bytes((images / "00.png").read_bytes())
    journal = Journal(tmp_path / "evidence.jsonl", "slow")
    report = ask(Slow(), point_tasks([odd, "01.png"], journal), images, journal, threads=1)
    assert report.answered == 1 and [task.images for task, _ in report.failed] == [(odd,)]


def test_other_prompts_need_another_file(server, images, tmp_path):  # noqa: F811
    prompts = tmp_path / "mine.toml"
    prompts.write_text('[point-levels-mine]\ntext = "How sharp is it? excellent, good, fair, poor or bad"')
    out, one = tmp_path / "evidence.jsonl", server()
    arguments = ["label", str(images), "--server", one.address, "--teacher", "seer", "-o", str(out)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    outcome = CliRunner().invoke(cli, [*arguments, "--prompts", str(prompts)])
    assert isinstance(outcome.exception, EvidenceError) and "asked for with prompt 'point-levels-1'" in str(
        outcome.exception
    )
    prompts.write_text('[point-levels-1]\ntext = "Something else?"')
    with pytest.raises(InputError, match="a prompt of leafiqa's own"):
        read_prompts(prompts)
    # All is answered: the report comes all the same, and nothing is asked.
    before = one.answered
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 0 and "levels " in again.stderr and again.stdout.strip() == str(out)
    assert one.answered == before


def test_one_writer_a_file(server, images, tmp_path):  # noqa: F811
    out = tmp_path / "evidence.jsonl"
    arguments = ["label", str(images), "--server", server().address, "--teacher", "seer", "-o", str(out)]
    with locked(out):
        outcome = CliRunner().invoke(cli, arguments)
    assert isinstance(outcome.exception, OutputError) and "another process is writing" in str(outcome.exception)
    assert CliRunner().invoke(cli, arguments).exit_code == 0


def test_names_do_not_depend_on_which_folders_are_filled(server, tmp_path):  # noqa: F811
    root, out, one = tmp_path / "photos", tmp_path / "evidence.jsonl", server()
    (root / "a").mkdir(parents=True)
    picture(0.5).save(root / "a" / "0.png")
    arguments = ["label", "-r", str(root), "--server", one.address, "--teacher", "seer", "-o", str(out)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    (root / "b").mkdir()
    picture(0.6).save(root / "b" / "0.png")
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert sorted(read_evidence([out]).points) == [os.path.join("a", "0.png"), os.path.join("b", "0.png")]
    assert one.answered == 2


def test_extra_fields_and_sizes_reach_the_server(server, images, tmp_path):  # noqa: F811
    one = server()
    arguments = ["label", str(images), "--server", one.address, "--teacher", "seer", "-o", str(tmp_path / "e.jsonl")]
    extra = '{"chat_template_kwargs": {"enable_thinking": false}}'
    assert CliRunner().invoke(cli, [*arguments, "--extra", extra, "--max-side", "0"]).exit_code == 0
    assert one.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "max_side" not in (tmp_path / "e.jsonl").read_text()
    for wrong in ("{", "[1]"):
        assert CliRunner().invoke(cli, [*arguments, "--extra", wrong]).exit_code == 2


def test_pairs_are_counted_among_the_images_at_hand_and_capped(server, images, tmp_path):  # noqa: F811
    out, one = tmp_path / "evidence.jsonl", server()
    arguments = ["label", "--server", one.address, "--teacher", "seer", "-o", str(out), "--no-points", "--pairs", "50"]
    first = [str(images / f"{i:02}.png") for i in range(4)]
    done = CliRunner().invoke(cli, [*arguments, "--images", str(images), *first])
    assert done.exit_code == 0 and "12 calls to make" in done.stderr  # six pairs, both orders
    others = [str(images / f"{i:02}.png") for i in range(4, 7)]
    done = CliRunner().invoke(cli, [*arguments, "--images", str(images), *others])
    assert "6 calls to make" in done.stderr and len(out.read_text().splitlines()) == 18
    names = [f"{i:02}.png" for i in range(4)]
    assert pair_answers(names, Journal(out, "seer")) == 12


def test_a_small_budget_of_pairs_spans_the_range():
    names = [f"{i:03}" for i in range(300)]
    chosen = choose_pairs(names, 60, known={name: i / 50 for i, name in enumerate(names)}, seed=0)
    places = np.array([int(name) for pair in chosen for name in pair])
    assert np.histogram(places, bins=5, range=(0, 300))[0].min() >= 10
    assert all(abs(int(a) - int(b)) == 1 for a, b in chosen)


def test_links_between_sources_come_first(tmp_path):
    names = [f"{folder}{os.sep}{i}.png" for folder in "ab" for i in range(10)]
    sources = _sources(names)
    assert sources[names[0]] == "a" and sources[names[-1]] == "b" and _sources(["x.png", "y.png"]) is None
    prior = {name: float(i % 10) for i, name in enumerate(names)}
    with_sources = next(iter(pair_rounds(names, Journal(tmp_path / "e", "t"), 40, prior=prior, sources=sources)))
    crossing = [task for task in with_sources if task.images[0][0] != task.images[1][0]]
    assert len(with_sources) == 20 and len(crossing) == 20


def test_a_metric_predicts_which_pairs_are_open(server, images, tmp_path, metric, monkeypatch):  # noqa: F811
    rng, places = np.random.default_rng(0), {"bad.png": str(tmp_path / "bad.png")}
    photographs = [Image.open(file).convert("RGB") for file in sorted(PICTURES.glob("*.jpg"))]
    for name, photograph in zip(("a.png", "b.png", "c.png"), (*photographs, photographs[0].resize((90, 90)))):
        photograph.save(tmp_path / name)
        places[name] = str(tmp_path / name)
    prior = _prior(metric, places)
    scores = metric([places[name] for name in ("a.png", "b.png", "c.png")]).tolist()
    assert [prior[name] for name in ("a.png", "b.png", "c.png")] == pytest.approx(
        [3 * np.log(score / (1 - score)) for score in scores], rel=1e-3
    )
    assert len(prior) == 3  # what cannot be read is left out
    # Handed on: pairs are chosen near in it.
    shuffled = dict(zip((f"{i:02}.png" for i in range(12)), rng.permutation(12).astype(float).tolist()))
    monkeypatch.setattr("leafiqa.teachers.labelling._prior", lambda *_: shuffled)
    out = tmp_path / "evidence.jsonl"
    arguments = ["label", str(images), "--server", server().address, "--teacher", "seer", "-o", str(out)]
    done = CliRunner().invoke(cli, [*arguments, "--no-points", "--pairs", "11", "--metric", "leaf"])
    assert done.exit_code == 0, done.output
    first_round = [json.loads(line)["images"] for line in out.read_text().splitlines()[:6]]
    assert all(abs(shuffled[a] - shuffled[b]) == 1 for a, b in first_round)


def test_a_sheet_is_sent_as_it_was_composed():
    for count, side in ((9, 1024), (7, 512), (64, 1024), (2, 300)):
        cell = largest_cell(count, side)
        sheet = compose([Image.new("RGB", (2000, 2000))] * count, cell)
        assert max(sheet.size) <= side
        assert max(compose([Image.new("RGB", (2000, 2000))] * count, cell + 1).size) > side


def test_votes_that_name_the_winner(tmp_path):
    table = tmp_path / "votes.csv"
    table.write_text("first,second,winner\nb,a,a\n2,1,1\nx,y,First\nx,z,\nx,w,tie\n")
    records, problems = read_judgments(table, "votes", teacher="people")
    assert [record["first"] for record in records] == [0.0, 0.0, 1.0, 0.5]
    assert len(problems) == 1 and "neither x nor z nor a tie" in problems[0]


def test_rankings_by_several_people_and_odd_rows(tmp_path):
    table = tmp_path / "rankings.csv"
    table.write_text("view,image,rank,rater\np,a,1,ann\np,b,2,ann\np,a,2,bob\np,b,1,bob\n")
    records, problems = read_judgments(table, "rankings", teacher="people")
    assert sorted(record["images"] for record in records) == [["a", "b"], ["b", "a"]] and not problems
    table.write_text("view,image,rank\np,a,1\np,b,2\np,a,3\n")
    records, problems = read_judgments(table, "rankings", teacher="people")
    assert records[0]["images"] == ["a", "b"] and "stands in view p twice" in problems[0]
    lines = tmp_path / "scores.jsonl"
    lines.write_text('{"image": "a", "score": 1}\n{"image": "b"}\n{"image": "c", "score": 3}\n')
    records, problems = read_judgments(lines, "scores", teacher="m")
    assert [record["image"] for record in records] == ["a", "c"] and "b: score None" in problems[0]
    table.write_text('image,score\n"b\nc",1\nd,2\n')
    records, _ = read_judgments(table, "scores", teacher="m")
    assert records[0]["image"] == "b\nc"


def test_pairs_half_asked_of_a_biased_teacher_are_worth_nothing(tmp_path):
    records = [
        {"kind": "pair", "images": ["a", "b"], "first": 1.0},
        {"kind": "pair", "images": ["b", "a"], "first": 1.0},
        {"kind": "pair", "images": ["c", "d"], "first": 1.0},
    ]
    file = tmp_path / "e.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    assert [pair.reliability for pair in preferences(read_evidence([file]))] == [0.0, 0.0]
    # Of a probability that lies mostly on other words, so much less is left.
    file.write_text('{"kind": "pair", "images": ["a", "b"], "first": 0.9, "mass": 0.25}\n')
    assert preferences(read_evidence([file]))[0].reliability == pytest.approx(0.8 * 0.25)


def test_tokens_of_unusable_answers_are_counted(server, images, tmp_path):  # noqa: F811
    journal = Journal(tmp_path / "e.jsonl", "seer")
    report = ask(teacher_at(server(mumbles=True)), point_tasks(["00.png"], journal), images, journal)
    assert report.answered == 0 and report.tokens == (300, 1)
