"""Evidence that is odd, hostile or large; ratings by several people; judgments from elsewhere."""

import itertools
import json
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leafiqa
from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import read_evidence, restrict
from leafiqa.evidence.foreign_tables import read_judgments
from leafiqa.evidence.matching import match_to_folder
from leafiqa.evidence.records import Pair, Point, parse
from leafiqa.evidence.reliability import target, targets
from tests.conftest import invoke


def rating(image, rater, score):
    return Point(image, score, rater=rater)


def test_more_raters_are_believed_more():
    """One rater's reliability was 1.00, the mean of thirty .46."""
    rng = np.random.default_rng(0)
    found = []
    for count in (1, 2, 5, 10, 30, 100):
        scores = np.clip(rng.normal(0.6, 0.2, count), 0, 1)
        found.append(target([rating("a", f"r{i}", score) for i, score in enumerate(scores)]).reliability)
    assert found == sorted(found) and found[0] < 0.5 and 0.85 < found[4] < 0.98
    # One person who rates thirty times is one person.
    again = target([rating("a", "r0", 0.6)] * 30)
    assert again.reliability == pytest.approx(target([rating("a", "r0", 0.6)]).reliability)
    # Raters who agree are believed sooner than raters who do not.
    agree, differ = ([rating("a", str(i), 0.5 + gap * (-1) ** i) for i in range(6)] for gap in (0.02, 0.4))
    assert target(agree).reliability > target(differ).reliability + 0.1


def test_how_far_raters_are_apart_is_learned_from_all_images(tmp_path):
    rng, point = np.random.default_rng(0), {"kind": "point", "scale": [0, 1]}

    def told(apart):
        lines = []
        for i, r in itertools.product(range(40), range(5)):
            score = float(np.clip(rng.normal(0.5, apart), 0, 1))
            lines.append({**point, "image": f"{i}.png", "score": score, "rater": f"r{r}"})
        (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return np.mean([of.reliability for of in targets(read_evidence(tmp_path / "e.jsonl")).values()])

    assert told(0.05) > told(0.15) > told(0.35)


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/passwd", "..", "C:\\x.png", "a\\..\\..\\x", "a\0b"]
)
def test_names_do_not_lead_out_of_the_folder(name, tmp_path):
    for record in (
        {"kind": "point", "image": name, "score": 1, "scale": [0, 2]},
        {"kind": "pair", "images": ["a.png", name], "first": 0.5},
        {"kind": "ranking", "images": [name, "a.png"]},
    ):
        with pytest.raises(ValueError, match="leads out of the images' folder"):
            parse(record)
    table = tmp_path / "t.csv"
    table.write_text(f"image,score\na.png,1\nb.png,2\n{name.replace(chr(0), '')},3\n")
    if "\0" not in name:
        records, problems = read_judgments(table, "scores")
        assert len(records) == 2 and "leads out" in problems[0]


def test_a_long_ranking_is_quick_and_still_tells_the_order():
    names = [f"{i:04}.png" for i in range(1500)]
    began = time.monotonic()
    pairs = parse({"kind": "ranking", "images": names})
    assert time.monotonic() - began < 1 and len(pairs) < 25_000
    assert all(pair.first < pair.second and pair.preference > 0.5 for pair in pairs)
    assert {(pair.first, pair.second) for pair in pairs} >= set(itertools.pairwise(names))
    assert max(pair.ranked for pair in pairs) >= 512
    short = parse({"kind": "ranking", "images": names[:20]})
    assert len(short) == 20 * 19 / 2


def test_pipes_and_dangling_links_in_the_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere")
    records = [
        {"kind": "point", "image": name, "score": 1, "scale": [0, 2], "sha256": "gone"}
        for name in ("moved.png", "pipe.png", "dangling.png")
    ]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, records)))
    matched = match_to_folder(read_evidence(tmp_path / "e.jsonl"), folder)
    assert set(matched.evidence.points) == {"moved.png", "pipe.png", "dangling.png"} and matched.moved == {}
    summary = leafiqa.summarise_evidence(tmp_path / "e.jsonl", folder)
    assert summary.coverage == {"images_in_folder": 1, "scored_there": 0, "compared_there": 0, "missing": 3}
    found = json.loads(invoke("evidence", tmp_path / "e.jsonl", "--images", folder, "--json").stdout)
    assert found == json.loads(json.dumps(summary.to_dict()))


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    )
    | st.fixed_dictionaries(
        {"kind": st.sampled_from(["point", "pair", "ranking", "x"])},
        optional={
            "image": st.text(max_size=5),
            "images": st.lists(st.text(max_size=3), max_size=4),
            "score": st.floats() | st.text(max_size=2),
            "scale": st.lists(st.floats(allow_nan=False), max_size=3),
            "first": st.floats(),
            "confidence": st.floats() | st.none(),
            "levels": st.dictionaries(st.sampled_from(["bad", "good", "odd"]), st.floats(), max_size=3),
            "sha256": st.lists(st.text(max_size=2), max_size=3) | st.text(max_size=3),
            "rater": st.text(max_size=3) | st.integers(),
        },
    )
)
def test_any_line_is_judgments_or_an_error_that_says_why(tmp_path_factory, record):
    try:
        judgments = parse(record)
    except ValueError as error:
        assert str(error)
        return
    for one in judgments:
        share = one.score if isinstance(one, Point) else one.preference
        assert 0 <= share <= 1 and isinstance(one, (Point, Pair))
    path = tmp_path_factory.mktemp("lines") / "e.jsonl"
    path.write_text(json.dumps(record) + "\n")
    evidence = read_evidence(path)
    assert sum(map(len, evidence.points.values())) + len(evidence.pairs) == len(judgments)
    assert restrict(evidence, evidence.images).points == evidence.points


@pytest.mark.parametrize("scale", ["0 inf", "nan 1", "5 1", "1 1"])
def test_scales_that_are_none(scale, tmp_path):
    (tmp_path / "t.csv").write_text("image,score\na,1\nb,2\n")
    arguments = ["--kind", "scores", "-o", tmp_path / "o.jsonl", "--scale", *scale.split()]
    done = invoke("import", tmp_path / "t.csv", *arguments)
    assert done.returncode == 2 and "scale must be two finite numbers that rise" in done.stderr


def test_tables_from_elsewhere_in_other_forms(tmp_path):
    (tmp_path / "t.csv").write_text("image;score;confidence\na;1,5;0,5\nb;2,5;\nc;2;55\nd;2;high\n")
    done = invoke("import", tmp_path / "t.csv", "--kind", "scores", "-o", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(r["image"], r["score"], r.get("confidence")) for r in records] == [("a", 1.5, 0.5), ("b", 2.5, None)]
    assert "confidence '55.0' is no number from 0 to 1: left out" in done.stderr and "confidence 'high'" in done.stderr
    with pytest.raises(leafiqa.OutputError, match=r"exists already; name another file$"):
        leafiqa.import_judgments(tmp_path / "t.csv", tmp_path / "o.jsonl", kind="scores")
    remarks = leafiqa.import_judgments(tmp_path / "t.csv", tmp_path / "p.jsonl", kind="scores")
    assert (tmp_path / "p.jsonl").read_text() == (tmp_path / "o.jsonl").read_text() and len(remarks) == 2


def test_errors_are_public():
    assert issubclass(leafiqa.TeacherError, leafiqa.LeafiqaError) and issubclass(EvidenceError, leafiqa.LeafiqaError)
    for name in leafiqa.__all__:
        assert getattr(leafiqa, name).__doc__, name
        assert name in dir(leafiqa)
