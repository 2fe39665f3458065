"""Asking a teacher: words from tokens, servers with faults, journals under SIGKILL, which pairs to ask."""

import json
import math
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr

from leafiqa.cli.main import cli
from leafiqa.errors import EvidenceError, InputError, TeacherError, TeacherUnusable
from leafiqa.evidence.bradley_terry import order
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.reliability import Preference, preferences, targets
from leafiqa.teachers.asking import ask
from leafiqa.teachers.defects import read_defects
from leafiqa.teachers.http import Servers, _retry_after
from leafiqa.teachers.journal import Journal, Task
from leafiqa.teachers.openai import ServerTeacher
from leafiqa.teachers.pairs import choose_pairs
from leafiqa.teachers.prompts import read_prompts
from leafiqa.teachers.protocol import Answer
from leafiqa.teachers.questions import pair_rounds, point_tasks
from leafiqa.teachers.sheets import compose, deal, read_sheet
from leafiqa.teachers.words import word_logprobs, word_of
from tests.kill_at import kill_at
from tests.teachers.chat_server import LEVELS, ChatServer, picture


@pytest.fixture
def server():
    servers = []

    def start(**ways):
        servers.append(ChatServer(**ways))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


def teacher_at(*servers, concurrency=8, first_wait=0.01, **ways):
    addresses = [one.address for one in servers]
    asked = Servers(addresses, timeout=1.0, first_wait=first_wait, concurrency=concurrency)
    return ServerTeacher(asked, "seer", **ways)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        picture(0.05 + i / 13).save(folder / f"{i:02}.png")
    return folder


def test_words_of_tokens():
    assert [word_of(t, LEVELS) for t in (" Good", "exc", '"fair', "Ġpoor", "p", "The", "", "e", "BAD.")] == [
        "good", "excellent", "fair", "poor", None, None, None, None, "bad",
    ]  # fmt: skip
    assert word_of("fi", ("first", "fine")) is None  # could be either
    found = word_logprobs([("good", math.log(0.5)), (" Good", math.log(0.2)), ("bad", -9999.0), ("x", -1)], LEVELS)
    assert found == pytest.approx({"good": math.log(0.7)})


@pytest.mark.parametrize("vllm", [False, True])
def test_levels_are_read_from_the_first_token(server, vllm):
    one = server(vllm=vllm)
    answer = teacher_at(one).judge(picture(0.75))
    assert max(answer.judgment["levels"], key=answer.judgment["levels"].get) == "good"
    assert sum(map(math.exp, answer.judgment["levels"].values())) == pytest.approx(0.95, abs=1e-3)
    assert answer.asked == {"teacher": "seer", "prompt": "point-levels-1", "method": "logprobs", "max_side": 1024}
    assert answer.tokens == (300, 1)
    body = one.bodies[-1]
    assert body["temperature"] == 0 and body["max_tokens"] == 1 and ("logprob_token_ids" in body) == vllm
    answer = teacher_at(one).compare(picture(0.7), picture(0.4))
    assert answer.judgment["first"] == pytest.approx(1 / (1 + math.exp(-8 * 0.3)), abs=0.02)


def test_a_level_missing_from_the_top_is_unknown(server):
    levels = teacher_at(server(missing=("good",))).judge(picture(0.9)).judgment["levels"]
    assert set(levels) == {"bad", "poor", "fair", "excellent"}


def test_an_answer_of_other_words_is_no_answer(server):
    with pytest.raises(TeacherError, match=r"only 0.000 of the probability.*begins with 'The'"):
        teacher_at(server(mumbles=True)).judge(picture(0.5))


def test_without_logprobs_a_number_is_asked_for(server):
    one = server(logprobs=False)
    teacher = teacher_at(one)
    for _ in range(2):
        answer = teacher.judge(picture(0.6))
        assert answer.judgment == {
            "score": pytest.approx(60, abs=1),
            "scale": [0, 100],
            "confidence": 0.7,
            "defects": {},
        }
        assert answer.asked["method"] == "number" and answer.asked["prompt"] == "point-number-2"
    assert teacher.judge(picture(0.1)).judgment["defects"] == {"blur": 3}
    one.names_defects = False  # the score is not lost for that
    assert "defects" not in teacher.judge(picture(0.1)).judgment
    assert teacher.compare(picture(0.6), picture(0.2)).judgment["first"] > 0.9
    with pytest.raises(TeacherUnusable, match="use mode number"):
        teacher_at(one, mode="levels").judge(picture(0.6))


def test_defects_are_asked_for_beside_levels(server):
    one = server()
    assert "defects" not in teacher_at(one).judge(picture(0.1)).judgment
    teacher = teacher_at(one, defects=True)
    answer = teacher.judge(picture(0.1))
    assert set(answer.judgment) == {"levels", "defects"} and answer.judgment["defects"] == {"blur": 3}
    assert answer.asked["prompt"] == "point-levels-1" and answer.tokens == (600, 2)
    one.names_defects = False
    assert set(teacher.judge(picture(0.1)).judgment) == {"levels"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"Blur ": 2, "noise": 0}, {"blur": 2}),
        (["dark"], {"dark": 2}),
        ({}, {}),
        (None, None),
        ("blur", None),
        ({"blur": 4}, None),
        ({"blur": True}, None),
        ([1], None),
    ],
)
def test_defects_out_of_an_answer(value, found):
    assert read_defects(value) == found


def test_images_are_made_smaller_before_they_are_sent(server):
    one = server()
    teacher_at(one, max_side=64).judge(picture(0.5, side=300))
    url = one.bodies[-1]["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,") and len(url) < 4000


def test_wrong_model_and_key_end_at_once(server):
    one = server(key="secret")
    with pytest.raises(TeacherUnusable, match=r"HTTP 401: invalid key; name the environment variable"):
        teacher_at(one).judge(picture(0.5))
    keyed = Servers([one.address], key="secret")
    assert ServerTeacher(keyed, "seer").judge(picture(0.5)).judgment
    with pytest.raises(TeacherUnusable, match="does not exist"):
        ServerTeacher(keyed, "oracle").judge(picture(0.5))
    bare = Servers([one.address.removesuffix("/v1")], key="secret")
    with pytest.raises(TeacherUnusable, match="should the address end in /v1"):
        ServerTeacher(bare, "seer").judge(picture(0.5))


def test_retry_after_is_a_number_or_a_date():
    assert _retry_after("2.5") == 2.5 and _retry_after(None) is None and _retry_after("soon") is None
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < _retry_after(later) <= 31


def test_a_server_that_pushes_back_is_left_alone(server):
    tired, fresh = server(faults=1.0, kinds=("429",)), server()
    teacher = teacher_at(tired, fresh)
    for _ in range(12):
        teacher.judge(picture(0.5))
    assert fresh.answered == 12 and tired.requests["/v1/chat/completions"] <= 12


def test_random_state_is_left_alone(server):
    random.seed(5)
    state = random.getstate()
    teacher_at(server(faults=0.5, kinds=("500",))).judge(picture(0.5))
    assert random.getstate() == state


def test_own_prompts(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[point-levels-mine]\ntext = "How sharp is it?"')
    found = read_prompts(file)
    assert found["point-levels"].name == "point-levels-mine" and found["pair-words"].name == "pair-words-1"
    for text, message in (
        ("[other-1]\ntext = 'a'", "must begin with"),
        ("[point-levels-2]", "needs a text"),
        ("[", "TOML"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_prompts(file)


def test_command_from_images_to_evidence(server, images, tmp_path):
    one = server()
    (images / "broken.png").write_bytes(b"no image")
    out = tmp_path / "evidence.jsonl"
    arguments = ["label", str(images), "--server", one.address, "--teacher", "seer", "-o", str(out), "--pairs", "20"]
    dry = CliRunner().invoke(cli, [*arguments, "--dry-run"])
    assert dry.exit_code == 0 and "53 calls to make: 13 judgments, 40 comparisons" in dry.stderr and not out.exists()
    done = CliRunner().invoke(cli, [*arguments, "--price", "1", "10"])
    assert done.exit_code == 1 and "broken.png" in done.stderr and "at the price given" in done.stderr, done.output
    assert "levels " in done.stderr and "preferred 0.50 of the time" in done.stderr
    evidence = read_evidence([out])
    names = sorted(evidence.points)
    assert names == [f"{i:02}.png" for i in range(12)] and not evidence.skipped
    found = targets(evidence)
    assert spearmanr([found[n].score for n in names], range(12)).statistic > 0.99
    pairs = [(p.first, p.second) for p in evidence.pairs]
    assert len(pairs) == 40 and len(set(pairs)) == 40 and all((b, a) in pairs for a, b in pairs)
    record = json.loads(out.read_text().splitlines()[0])
    assert len(record["sha256"]) == 64 and record["prompt"] == "point-levels-1" and record["asked"] == "seer"
    # Nothing is asked twice; what failed is tried again.
    before = one.answered
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 1 and one.answered == before
    (images / "broken.png").unlink()
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    other = CliRunner().invoke(cli, [*arguments[:5], "oracle", *arguments[6:]])
    assert isinstance(other.exception, EvidenceError)


def test_the_key_is_written_nowhere(server, images, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    out = tmp_path / "evidence.jsonl"
    arguments = [
        "label",
        str(images),
        "--server",
        server(key="sk-very-secret").address,
        "--teacher",
        "seer",
        "-o",
        str(out),
    ]
    done = CliRunner().invoke(cli, [*arguments, "--key-variable", "MY_KEY"])
    assert done.exit_code == 0 and "very-secret" not in done.output + out.read_text()


def test_another_teachers_file_is_not_mixed_in(tmp_path):
    out = tmp_path / "evidence.jsonl"
    out.write_text('{"kind": "point", "image": "a.png", "score": 1, "scale": [0, 2], "asked": "other"}\n')
    with pytest.raises(EvidenceError, match="holds evidence of other, not of seer"):
        Journal(out, "seer")


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thousand")
    rng = np.random.default_rng(0)
    for i in range(1000):
        picture(rng.uniform(0.02, 0.98), side=8).save(folder / f"{i:04}.png")
    return folder


def test_a_thousand_images_and_a_faulty_server(server, thousand, tmp_path):
    one = server(faults=0.1)
    journal = Journal(tmp_path / "evidence.jsonl", "seer")
    names = [f"{i:04}.png" for i in range(1000)]
    teacher = teacher_at(one, concurrency=16)
    report = ask(teacher, point_tasks(names, journal), thousand, journal, threads=36)
    judged = Counter(json.loads(line)["image"] for line in journal.path.read_text().splitlines())
    failed = {task.images[0] for task, _ in report.failed}
    assert set(judged.values()) == {1} and set(judged) | failed == set(names) and not set(judged) & failed
    assert len(failed) <= 5  # six faults in a row, at one in ten, are one question in a million
    assert one.busiest <= 24  # of 36 threads; a busy machine tells the server late that a request has ended


def test_twenty_kills_duplicate_nothing(server, thousand, tmp_path):
    """SIGKILL as each run writes its twentieth answer, before or after it is on the disk."""
    one = server(faults=0.1, delay=0.01, kinds=("429", "500", "reset", "half"))
    out = tmp_path / "evidence.jsonl"
    arguments = ["label", thousand, "--server", one.address, "--teacher", "seer", "-o", out]
    arguments += ["--concurrency", "8", "--timeout", "2"]
    points = [f"leafiqa.teachers.journal:Journal.write:20:{('before', 'after')[i % 2]}" for i in range(20)]
    kill_at(points, *arguments)
    records = [json.loads(line)["image"] for line in out.read_text().splitlines()]
    assert sorted(records) == [f"{i:04}.png" for i in range(1000)]
    # Only what was under way when the process was killed was asked for twice.
    assert one.answered <= 1000 + 20 * 10


def test_throughput_is_what_the_server_allows(server, thousand, tmp_path):
    """Against bare requests at the same concurrency; one request in ten fails, and takes nobody else's place."""
    names, shares = [f"{i:04}.png" for i in range(400)], []
    for attempt in range(3):  # machines may be busy otherwise
        one = server(delay=0.1, faults=0.1, kinds=("429", "500", "reset", "half"))
        journal = Journal(tmp_path / f"{attempt}.jsonl", "seer")
        teacher = teacher_at(one, concurrency=8, first_wait=0.3)
        began = time.monotonic()
        report = ask(teacher, point_tasks(names, journal), thousand, journal, threads=20)
        # Requests that fail take the server as long as those that it answers.
        rate = one.requests["/v1/chat/completions"] / (time.monotonic() - began)
        assert report.answered == 400 and one.busiest <= 12  # the server learns a little late that it is done

        bare, body = server(delay=0.1), one.bodies[0]
        servers = Servers([bare.address], concurrency=8)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(servers.post, ["/chat/completions"] * 200, [body] * 200))
        shares.append(rate / (200 / (time.monotonic() - began)))
        if shares[-1] > 0.9:
            return
    pytest.fail(f"shares of what the server allows: {shares}")


def test_contact_sheets(server, images, tmp_path):
    one, out = server(), tmp_path / "evidence.jsonl"
    (images / "05.png").write_bytes(b"no image")
    arguments = ["label", str(images), "--server", one.address, "--teacher", "seer", "-o", str(out), "--sheet", "3"]
    done = CliRunner().invoke(cli, [*arguments, "--repeat", "2"])
    assert done.exit_code == 1 and done.stderr.count("05.png") >= 1, done.output
    assert "4 calls to make: 4 contact sheets" in done.stderr and one.answered == 4
    evidence = read_evidence([out])
    found = targets(evidence)
    names = sorted(found)
    assert len(names) == 11 and all(len(evidence.points[name]) == 2 for name in names)
    assert spearmanr([found[n].score for n in names], [int(n[:2]) for n in names]).statistic > 0.99
    views = [json.loads(line)["view"] for line in out.read_text().splitlines()]
    assert len(set(views)) == 4 and all(p.view in views for p in evidence.pairs)
    assert all((p.defects["blur"] > 0) == (p.score < 0.5) for name in names for p in evidence.points[name])
    assert all(p.first > p.second for p in evidence.pairs)  # ranked best first, whatever their place on the sheet
    # Each round has other company.
    company = [{p.image for ps in evidence.points.values() for p in ps if p.view == view} for view in set(views)]
    assert len({frozenset(c) for c in company}) == 4
    (images / "05.png").unlink()
    again = CliRunner().invoke(cli, [*arguments, "--repeat", "2"])
    assert again.exit_code == 0 and one.answered == 4


def test_a_sheet_of_which_a_score_is_missing_is_not_trusted(server):
    with pytest.raises(TeacherError, match="scores must hold 4 numbers"):
        teacher_at(server(mumbles=True)).sheet([picture(0.5)] * 4)
    for answer, message in (
        ({"scores": [1, 2, 300]}, "must be numbers from 0 to 100"),
        ({"scores": {"1": 1, "2": 2, "3": 3}, "ranking": [1, 1, 2]}, "each of 1 to 3 once"),
        ({"scores": [1, 2, True]}, "the answer says True"),
    ):
        with pytest.raises(TeacherError, match=message):
            read_sheet(answer, 3)
    assert read_sheet({"scores": {"1": 1, "2": 2}, "ranking": ["2", "1"]}, 2) == ([1, 2], [None, None], [1, 0])


def test_sheets_hold_everything_once_and_nothing_alone():
    names = [f"i{i}" for i in range(19)]
    sheets = deal(names, [0] * 19, 3, 1, seed=0)
    assert sorted(map(len, sheets)) == [2, 8, 9] and sorted(n for s in sheets for n in s) == sorted(names)
    assert deal(names, [1] * 18 + [0], 3, 1, seed=0) == [("i18",)]
    assert deal(names, [0] * 19, 3, 1, seed=0) == sheets


def test_a_sheet_shows_each_image_unenlarged():
    sheet = np.asarray(compose([picture(0.2), picture(1.0, side=100), picture(0.6)], 50))
    assert sheet.shape == (2 * (50 + 30) + 8, 2 * 58 + 8, 3)
    assert (sheet == [51, 90, 90]).all(-1).sum() == 32 * 32  # small ones stay small
    assert (sheet == [255, 90, 90]).all(-1).sum() == 50 * 50  # large ones are fitted in


class Planted:
    """A teacher that knows the order and may like the first place."""

    def __init__(self, quality, bias=0.0):
        self.name, self.bias, self.calls, self.lock = "planted", bias, 0, threading.Lock()
        self.quality = quality

    def judge(self, image):
        raise TeacherError("only compares")

    def compare(self, first, second):
        with self.lock:
            self.calls += 1
        gap = float(np.asarray(first)[..., 0].mean() - np.asarray(second)[..., 0].mean()) / 255
        return Answer({"first": 1 / (1 + math.exp(-12 * gap - self.bias))})


def compared(teacher, folder, names, path, budget):
    journal = Journal(path, teacher.name)
    for tasks in pair_rounds(names, journal, budget):
        ask(teacher, tasks, folder, journal, threads=4)
    return preferences(journal.evidence())


def test_a_planted_order_is_recovered_from_pairs_alone(thousand, tmp_path):
    names = [f"{i:04}.png" for i in range(100)]
    from PIL import Image

    truth = [np.asarray(Image.open(thousand / name))[0, 0, 0] for name in names]
    remarks = compared(Planted(None, bias=0.5), thousand, names, tmp_path / "pairs.jsonl", 500)
    assert len(remarks) == 500
    found = order(names, remarks)
    assert spearmanr([found[name] for name in names], truth).statistic >= 0.98


def test_a_teacher_that_prefers_the_first_place_is_not_believed(server, images, tmp_path):
    one, out = server(bias=9.0), tmp_path / "evidence.jsonl"
    arguments = ["label", str(images), "--server", one.address, "--teacher", "seer", "-o", str(out)]
    done = CliRunner().invoke(cli, [*arguments, "--pairs", "15", "--no-points"])
    assert done.exit_code == 0 and "prefers a place, not an image" in done.stderr
    assert max(p.reliability for p in preferences(read_evidence([out]))) < 0.05


def test_half_asked_pairs_are_completed_first(images, tmp_path):
    journal = Journal(tmp_path / "evidence.jsonl", "planted")
    names = [f"{i:02}.png" for i in range(12)]
    journal.write(Task("pair", ("03.png", "07.png")), Answer({"first": 0.2}), ("", ""))
    rounds = pair_rounds(names, journal, 4)
    assert next(iter(rounds)) == [Task("pair", ("07.png", "03.png"))]
    remarks = compared(Planted(None), images, names, journal.path, 4)
    assert len(remarks) == 4 and len(journal.path.read_text().splitlines()) == 8


def test_chosen_pairs_are_new_connected_and_spread_evenly():
    names = [f"i{i}" for i in range(60)]
    asked = choose_pairs(names, 80, seed=1)
    more = choose_pairs(names, 70, asked=asked, known={n: i / 10 for i, n in enumerate(names)}, seed=2)
    both = {frozenset(pair) for pair in asked + more}
    assert len(both) == 150 and all(len(pair) == 2 for pair in both)
    degree = Counter(name for pair in both for name in pair)
    assert set(degree) == set(names) and max(degree.values()) <= 2 * min(degree.values()) + 2
    reached, edge = {names[0]}, True
    while edge:
        edge = [pair for pair in asked if len(reached & set(pair)) == 1]
        reached |= {name for pair in edge for name in pair}
    assert reached == set(names)
    assert len(choose_pairs(["a", "b", "c"], 50)) == 3  # there are no more
    linked = choose_pairs(
        ["a", "b", "c", "d"], 1, known=dict(zip("abcd", (0, 1, 10, 11))), sources=dict(zip("abcd", "xxyy"))
    )
    assert set(linked[0]) == {"b", "c"}
    with pytest.raises(InputError, match="two images"):
        choose_pairs(["a", "a"], 3)


@pytest.mark.parametrize(("noise", "least"), [(None, 0.02), (0.7, 0.0)])
def test_chosen_pairs_beat_random_ones_at_equal_budget(noise, least):
    """Simulated: true qualities, answers with noise, with and without a student's prediction to begin with."""
    names = [f"i{i}" for i in range(120)]

    def accuracy(chosen, seed):
        rng = np.random.default_rng(seed)
        truth = dict(zip(names, rng.normal(0, 3, len(names))))
        prior = None if noise is None else {n: t + rng.normal(0, 3 * noise) for n, t in truth.items()}
        remarks, asked, known = [], [], prior
        for number in range(3):
            if chosen:
                pairs = choose_pairs(names, 80, known=known, known_std=2.0 / (number + 1), asked=asked, seed=seed)
            else:
                pairs = [tuple(rng.choice(names, 2, replace=False)) for _ in range(80)]
            asked += pairs
            for a, b in pairs:
                p = 1 / (1 + math.exp(-(truth[a] - truth[b]) + rng.normal(0, 0.7)))
                remarks.append(Preference(a, b, p, abs(2 * p - 1)))
            known = order(names, remarks, prior=prior)
        return spearmanr([known[n] for n in names], list(truth.values())).statistic

    gain = [accuracy(True, seed) - accuracy(False, seed) for seed in range(8)]
    assert np.mean(gain) > least
