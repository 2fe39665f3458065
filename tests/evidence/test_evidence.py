"""Evidence: records with every kind of fault, files cut off and added to, reliabilities in closed form."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

from leafiqa.cli.main import cli
from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import append_evidence, cite, read_evidence
from leafiqa.evidence.matching import match_to_folder
from leafiqa.evidence.records import LEVELS, RANK_STEP, Pair, Point, parse
from leafiqa.evidence.reliability import (
    of_point,
    order_consistency,
    preferences,
    severities,
    target,
    targets,
    view_agreement,
)
from leafiqa.evidence.scores import read_scores
from leafiqa.evidence.summary import summarise


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def point(image, score, **more):
    return {"kind": "point", "image": image, "score": score, "scale": [0, 100], **more}


def pair(first, second, preferred, **more):
    return {"kind": "pair", "images": [first, second], "first": preferred, **more}


def test_points_of_scores_and_of_levels():
    assert parse(point("a", 73, confidence=0.5, view="p1")) == [Point("a", 0.73, 0.5, view="p1")]
    assert parse({"kind": "point", "image": "a", "score": 2, "scale": [1, 5]})[0].score == 0.25
    sure = parse({"kind": "point", "image": "a", "levels": {"good": 0.0}})[0]
    assert (sure.score, sure.mass, sure.entropy) == (0.75, 1, 0)
    even = parse({"kind": "point", "image": "a", "levels": {name: math.log(0.1) for name in LEVELS}})[0]
    assert (even.score, even.mass, even.entropy) == pytest.approx((0.5, 0.5, 1.0))
    # A level that is missing is unknown: the others keep their ratio, the mass tells what was seen.
    part = parse({"kind": "point", "image": "a", "levels": {"fair": math.log(0.3), "good": math.log(0.1)}})[0]
    assert part.score == pytest.approx(0.75 * 0.5 + 0.25 * 0.75) and part.mass == pytest.approx(0.4)


def test_rankings_expand_to_pairs():
    pairs = parse({"kind": "ranking", "images": ["a", "b", "c"], "view": "v"})
    assert [(p.first, p.second, p.ranked, p.view) for p in pairs] == [
        ("a", "b", 1, "v"),
        ("a", "c", 2, "v"),
        ("b", "c", 1, "v"),
    ]
    assert pairs[0].preference == pytest.approx(0.5 * (1 + math.erf(RANK_STEP / math.sqrt(2))))
    assert pairs[1].preference > pairs[0].preference


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "a record is an object"),
        ({"image": "a"}, "a record is an object"),
        ({"kind": "sniff"}, "unknown kind 'sniff'"),
        (point("", 3), "image must be a name"),
        (point("a", 140), "score must be a number from 0 to 100, got 140"),
        (point("a", "7"), "score must be a number"),
        (point("a", True), "score must be a number"),
        (point("a", float("nan")), "score must be a number"),
        ({**point("a", 3), "scale": [5, 5]}, "scale must be two numbers that rise"),
        ({"kind": "point", "image": "a", "score": 3}, "scale must be two numbers"),
        (point("a", 3, confidence=1.5), "confidence must be a number from 0 to 1"),
        ({"kind": "point", "image": "a", "levels": {}}, "levels must be"),
        ({"kind": "point", "image": "a", "levels": {"great": -1}}, "levels must be"),
        ({"kind": "point", "image": "a", "levels": {"good": 0.5}}, "at most 0"),
        ({"kind": "point", "image": "a", "levels": {"good": -0.1, "fair": -0.1}}, "sum to at most 1"),
        (pair("a", "b", 2), "first must be a number from 0 to 1"),
        (pair("a", "a", 0.5), "stands twice"),
        ({"kind": "pair", "images": ["a", "b", "c"], "first": 0.5}, "must be 2 names, got 3"),
        ({"kind": "ranking", "images": ["a"]}, "at least two names"),
    ],
)
def test_records_that_are_wrong(record, message):
    with pytest.raises(ValueError, match=message):
        parse(record)


def test_files_keep_what_is_usable_and_count_the_rest(tmp_path):
    path = write(tmp_path / "e.jsonl", [point("a\u2028b", 10), point("c", 400), pair("c", "d", 0.9)])
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n\nnot json\n{"kind": "point", "ima')
    evidence = read_evidence([path])
    assert set(evidence.points) == {"a\u2028b"} and evidence.pairs == [Pair("c", "d", 0.9)]
    assert evidence.lines == 2 and evidence.torn == ["e.jsonl"]
    assert [where for where, _ in evidence.skipped] == ["e.jsonl:2", "e.jsonl:4", "e.jsonl:6"]
    assert evidence.images == {"a\u2028b", "c", "d"}
    assert read_evidence([path], keep={"a\u2028b", "c"}).pairs == []
    with pytest.raises(EvidenceError, match="none on the images asked for"):
        read_evidence([path], keep={"z"})
    with pytest.raises(EvidenceError, match="cannot read"):
        read_evidence([tmp_path / "none.jsonl"])
    with pytest.raises(EvidenceError, match=r"e.jsonl:1: no JSON"):
        (tmp_path / "e.jsonl").write_text("hello\n")
        read_evidence([path])


def test_appending_after_a_torn_line_loses_nothing(tmp_path):
    path = write(tmp_path / "e.jsonl", [point("a", 10)])
    with path.open("a") as file:
        file.write('{"kind": "po')
    append_evidence(path, [point("b", 20), pair("a", "b", 0.2)])
    evidence = read_evidence([path])
    assert set(evidence.points) == {"a", "b"} and len(evidence.pairs) == 1 and len(evidence.skipped) == 1
    before = path.read_bytes()
    with pytest.raises(ValueError, match="from 0 to 100"):
        append_evidence(path, [point("c", 30), point("d", 1000)])
    assert path.read_bytes() == before  # all or nothing


def test_reliability_of_points():
    assert of_point(Point("a", 0.5)) == 1 and of_point(Point("a", 0.5, confidence=0.3)) == 0.3
    assert of_point(Point("a", 0.5, mass=0.8, entropy=0.25)) == pytest.approx(0.6)
    single = target([Point("a", 0.4, 0.6)])
    assert (single.score, single.reliability) == (0.4, 0.6)
    agreeing = target([Point("a", 0.8, 0.5), Point("a", 0.8, 1.0)])
    assert (agreeing.score, agreeing.reliability) == pytest.approx((0.8, 0.75))
    # Half the weight 0.15 above the mean, half below: the spread that halves the reliability.
    torn = target([Point("a", 0.35, 0.6), Point("a", 0.65, 0.6)])
    assert (torn.score, torn.reliability) == pytest.approx((0.5, 0.3))
    assert target([Point("a", 0.2, 0.0), Point("a", 0.4, 0.0)]).reliability == 0


def test_a_teacher_that_likes_the_first_place_is_not_believed(tmp_path):
    names = [f"{i}.png" for i in range(12)]
    records = [pair(a, b, 0.95) for a in names for b in names if a != b]
    evidence = read_evidence([write(tmp_path / "e.jsonl", records)])
    decided = preferences(evidence)
    assert len(decided) == 66
    assert all(p.preference == pytest.approx(0.5) and p.reliability == pytest.approx(0, abs=1e-9) for p in decided)
    summary = summarise(evidence)
    assert summary.first_preferred == pytest.approx(0.95) and summary.order_consistency == pytest.approx(0.1)
    assert summary.both_orders == 66 and summary.pair_reliability == pytest.approx(0, abs=1e-9)
    # Also where it was asked in one order only: the bias of the others tells.
    lone = read_evidence([write(tmp_path / "e.jsonl", [*records, pair("x", "y", 0.95)])])
    assert next(p for p in preferences(lone) if p.first == "x").reliability == pytest.approx(0.9 * 0.1)


def test_a_consistent_teacher_is_believed(tmp_path):
    names = [f"{i}" for i in range(6)]
    records = [pair(a, b, 0.9 if a < b else 0.1) for a in names for b in names if a != b]
    evidence = read_evidence([write(tmp_path / "e.jsonl", records)])
    found, mean = order_consistency(evidence.pairs)
    assert set(found.values()) == {1.0} and mean == 1
    assert all(
        p.preference == pytest.approx(0.9) and p.reliability == pytest.approx(0.8) for p in preferences(evidence)
    )


def test_cycles_are_not_believed(tmp_path):
    records = [pair("a", "b", 1.0), pair("b", "c", 1.0), pair("c", "a", 1.0), pair("x", "y", 1.0)]
    decided = preferences(read_evidence([write(tmp_path / "e.jsonl", records)]))
    reliability = {(p.first, p.second): p.reliability for p in decided}
    assert reliability == {("a", "b"): 0, ("b", "c"): 0, ("a", "c"): 0, ("x", "y"): 1}


def test_comparisons_against_the_scores_are_believed_less(tmp_path):
    records = [point("a", 80), point("b", 40), pair("a", "b", 1.0), point("c", 30), point("d", 90), pair("c", "d", 1.0)]
    decided = preferences(read_evidence([write(tmp_path / "e.jsonl", records)]))
    assert decided[0].reliability > 0.99 and decided[1].reliability < 0.01


def test_views_whose_rankings_contradict_their_scores(tmp_path):
    records = [
        *(point(name, score, view="good") for name, score in (("a", 90), ("b", 50), ("c", 20))),
        {"kind": "ranking", "images": ["a", "b", "c"], "view": "good"},
        *(point(name, score, view="odd") for name, score in (("d", 20), ("e", 50), ("f", 90))),
        {"kind": "ranking", "images": ["d", "e", "f"], "view": "odd"},
    ]
    evidence = read_evidence([write(tmp_path / "e.jsonl", records)])
    assert view_agreement(evidence) == {"good": 1, "odd": 0}
    assert {p.reliability > 0.4 for p in preferences(evidence) if p.first in "abc"} == {True}
    assert {p.reliability for p in preferences(evidence) if p.first in "def"} == {0}
    assert targets(evidence)["a"].score == 0.9


def test_summary_command(tmp_path):
    records = [point("a", 80), point("a", 60), point("b", 40), pair("b", "c", 0.3), pair("d", "e", 0.8)]
    path = write(tmp_path / "e.jsonl", records)
    with path.open("a") as file:
        file.write('{"kind": "bad"}\n{"torn')
    outcome = CliRunner().invoke(cli, ["evidence", str(path), "--json"])
    assert outcome.exit_code == 0
    summary = json.loads(outcome.stdout)
    expected = {"lines": 5, "skipped": 1, "torn": 1, "images": 5, "points": 3, "images_with_points": 2, "repeated": 1}
    assert {name: summary[name] for name in expected} == expected
    assert summary["direct"] == 2 and summary["components"] == 2 and summary["order_consistency"] is None
    assert np.allclose(summary["score_quartiles"], [0.4, 0.475, 0.55, 0.625, 0.7])
    text = CliRunner().invoke(cli, ["evidence", str(path)])
    assert "first preferred      0.550" in text.stdout and "unknown kind 'bad'" in text.stderr and "torn" in text.stderr


def test_judgments_of_replaced_files_are_left_out_one_by_one(tmp_path):
    """A point judged again after its file was replaced stays; of pairs and rankings each side is checked."""
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    now = {name: hashlib.sha256(name.encode()).hexdigest() for name in "abc"}
    records = [
        point("a", 10, sha256="before"),
        point("a", 90, sha256=now["a"]),
        point("b", 50),
        point("gone", 40, sha256="any"),
        pair("a", "b", 0.9, sha256=[now["a"], now["b"]]),
        pair("b", "c", 0.9, sha256=[now["b"], "before"]),
        {"kind": "ranking", "images": ["a", "b", "c"], "sha256": [now["a"], now["b"], "before"]},
    ]
    matched = match_to_folder(read_evidence([write(tmp_path / "e.jsonl", records)]), tmp_path)
    left, remarks = matched.evidence, matched.remarks
    assert {name: [p.score for p in points] for name, points in left.points.items()} == {
        "a": [0.9],
        "b": [0.5],
        "gone": [0.4],
    }
    assert [(p.first, p.second, p.ranked) for p in left.pairs] == [("a", "b", 0), ("a", "b", 1)]
    assert [line.split(":")[0] for line in remarks] == ["a", "c"] and "3 judgment(s)" in remarks[1]


def test_files_that_were_moved_are_found_by_their_content(tmp_path):
    images = tmp_path / "photos"
    (images / "2024").mkdir(parents=True)
    for name in ("2024/a.jpg", "b.jpg", "c.jpg"):
        (images / name).write_bytes(name[-5:].encode())
    a, b = (hashlib.sha256(name.encode()).hexdigest() for name in ("a.jpg", "b.jpg"))
    records = [
        point("a.jpg", 10, sha256=a),
        point("a.jpg", 99, sha256="of the file that was there before"),
        point("a.jpg", 20),
        pair("a.jpg", "b.jpg", 0.2, sha256=[a, b]),
        point("lost.jpg", 50, sha256="nowhere"),
        pair("old_b.jpg", "b.jpg", 0.5, sha256=[b, b]),  # the same picture under two names
    ]
    file = write(tmp_path / "e.jsonl", records)
    matched = match_to_folder(read_evidence([file]), images)
    left, remarks = matched.evidence, matched.remarks
    assert matched.moved == {"a.jpg": "2024/a.jpg", "old_b.jpg": "b.jpg"}
    assert {name: [p.score for p in points] for name, points in left.points.items()} == {
        "2024/a.jpg": [0.1, 0.2],
        "lost.jpg": [0.5],
    }
    assert [(p.first, p.second) for p in left.pairs] == [("2024/a.jpg", "b.jpg")]
    assert remarks == [
        "a.jpg: is not the file that was judged, its sha256 differs: 1 judgment(s) left out",
        "2 judged file(s) were moved and found by their content, such as a.jpg -> 2024/a.jpg",
    ]
    assert set(read_scores([file], images)[0]) == {images / "2024" / "a.jpg", images / "lost.jpg"}
    outcome = CliRunner().invoke(cli, ["evidence", str(file), "--images", str(images), "--json"])
    found = json.loads(outcome.stdout)
    assert (found["images_in_folder"], found["scored_there"], found["compared_there"], found["missing"]) == (3, 1, 2, 1)
    assert "2 judged file(s) were moved" in outcome.stderr


def test_a_ranking_is_compared_with_the_scores_of_its_own_view(tmp_path):
    """In v the teacher scored and ranked a above b; elsewhere it scored a far lower. Views are a file's own."""
    records = [
        point("a", 90, view="v"),
        point("b", 60, view="v"),
        {"kind": "ranking", "images": ["a", "b"]} | {"view": "v"},
    ]
    one = write(tmp_path / "one.jsonl", records)
    two = write(
        tmp_path / "two.jsonl", [point("a", 10, view="v"), {"kind": "ranking", "images": ["b", "a"], "view": "v"}]
    )
    agreement = view_agreement(read_evidence([one, two]))
    assert sorted(agreement.values()) == [1.0, 1.0] and len(agreement) == 2


def test_who_judged(tmp_path):
    records = [point("a", 10, teacher="m", rater="r1"), point("b", 10, teacher="m"), point("c", 10, teacher="n")]
    evidence = read_evidence([write(tmp_path / "e.jsonl", records)], keep={"a", "b"})
    assert evidence.teachers == {"m": 2} and evidence.raters == {"r1"}
    # On a card a file that held nothing stands beside those that did: it must not end what is done by then.
    empty = write(tmp_path / "empty.jsonl", [])
    remarks = cite([tmp_path / "e.jsonl", empty])
    assert re.fullmatch(r"e.jsonl \(sha256 \w{12}, 2 by m, 1 by n\), empty.jsonl \(sha256 e3b0c44298fc\)", remarks)


def test_scores_by_file(tmp_path):
    records = [point("a", 10), point("b", 90, confidence=0.0), pair("a", "b", 0.9)]
    file = write(tmp_path / "e.jsonl", records)
    with file.open("a") as more:
        more.write('{"kind": "bad"}\n{"torn')
    scores, remarks = read_scores([file], tmp_path)
    assert scores == {(tmp_path / "a").resolve(): 0.1}
    assert (
        len(remarks) == 4
        and "e.jsonl:4: unknown kind" in remarks[0]
        and "cut off" in remarks[1]
        and "1 scores" in remarks[2]
    )
    assert remarks[3] == "1 comparisons (rankings counted pair by pair) are left out: only scores count here"
    with pytest.raises(EvidenceError, match="1 comparisons: only point-wise judgments count"):
        read_scores([write(file, records[2:])], tmp_path)


def test_defects_are_completed_from_their_file_and_averaged(tmp_path):
    """A defect that a file names somewhere was looked for everywhere in it; other files say nothing of it."""
    base = {"kind": "point", "score": 50, "scale": [0, 100]}
    first = [
        {**base, "image": "a.jpg", "defects": {"blur": 3}, "confidence": 0.75},
        {**base, "image": "b.jpg", "defects": {}},
        {**base, "image": "c.jpg"},
    ]
    second = [{**base, "image": "a.jpg", "defects": {"blur": 1, "noise": 2}, "confidence": 0.25}]
    for name, lines in (("first", first), ("second", second)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    evidence = read_evidence([tmp_path / "first.jsonl", tmp_path / "second.jsonl"])
    found = severities(evidence)
    assert found == {"a.jpg": {"blur": pytest.approx(2.5), "noise": 2.0}, "b.jpg": {"blur": 0.0}}
    assert summarise(evidence).defects == {"blur": [0, 0, 1], "noise": [0, 1, 0]}
    assert "blur 0 0 1; noise 0 1 0" in str(summarise(evidence))


@pytest.mark.parametrize("defects", [{"blur": 4}, {"blur": -1}, {"blur": "bad"}, ["blur"], {"": 1}, {"blur": True}])
def test_defects_that_are_none_are_refused(defects):
    with pytest.raises(ValueError, match=r"defects|severity"):
        parse({"kind": "point", "image": "a.jpg", "score": 1, "scale": [0, 1], "defects": defects})
