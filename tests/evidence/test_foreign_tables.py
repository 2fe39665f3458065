"""Judgments made elsewhere become evidence; what cannot be used is said."""

import json

import pytest
from click.testing import CliRunner

from leafiqa.cli.main import cli
from leafiqa.errors import InputError, OutputError
from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.foreign_tables import read_judgments
from leafiqa.evidence.reliability import preferences, targets


def imported(tmp_path, kind, text, *options, name="table.csv"):
    table, out = tmp_path / name, tmp_path / "evidence.jsonl"
    table.write_text(text)
    done = CliRunner().invoke(cli, ["import", str(table), "--kind", kind, "-o", str(out), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return read_evidence([out]), done.stderr


def test_scores(tmp_path):
    text = "image,score,confidence\na.png,2,0.9\nb.png,8,\nc.png,nan,\n,3,\nd.png,11,\n"
    evidence, remarks = imported(tmp_path, "scores", text, "--scale", "0", "10")
    found = targets(evidence)
    assert {n: (round(t.score, 3), t.reliability) for n, t in found.items()} == {
        "a.png": (0.2, 0.9),
        "b.png": (0.8, 1.0),
    }
    assert "row 3: c.png" in remarks and "row 4: no image" in remarks and "11 is outside 0 to 10" in remarks


def test_scores_where_lower_is_better(tmp_path):
    evidence, _ = imported(tmp_path, "scores", "image,score\na.png,20\nb.png,70\nc.png,45\n", "--lower-better")
    assert {n: t.score for n, t in targets(evidence).items()} == pytest.approx(
        {"a.png": 1.0, "b.png": 0.0, "c.png": 0.5}
    )


def test_votes(tmp_path):
    text = "first,second,winner\na,b,first\nb,a,b\na,c,tie\na,c,2\nd,d,first\na,b,maybe\n"
    evidence, remarks = imported(tmp_path, "votes", text)
    found = {(p.first, p.second): p.preference for p in preferences(evidence)}
    assert found == {("a", "b"): 0.5, ("a", "c"): 0.25}  # one vote each way, asked in both orders; a tie and a loss
    assert "row 5" in remarks and "row 6: winner 'maybe'" in remarks


def test_rankings(tmp_path):
    text = "view,image,rank\n1,a,2\n1,b,1\n1,c,3\n2,a,1\n3,a,1\n3,b,1\n"
    evidence, remarks = imported(tmp_path, "rankings", text)
    assert [(p.first, p.second) for p in evidence.pairs] == [("b", "a"), ("b", "c"), ("a", "c")]
    assert "view 2: holds one image" in remarks and "view 3: two images share a rank" in remarks


def test_ratings_of_several_people(tmp_path):
    rows = [
        {"image": i, "rater": r, "rating": v}
        for i, r, v in (("a", "x", 5), ("a", "y", 5), ("b", "x", 1), ("b", "y", 4))
    ]
    text = "\n".join(map(json.dumps, rows))
    evidence, _ = imported(tmp_path, "ratings", text, "--scale", "1", "5", name="table.jsonl")
    found = targets(evidence)
    assert found["a"].score == 1 and found["b"].score == pytest.approx(0.375)
    assert found["a"].reliability > found["b"].reliability  # they disagree about b


def test_refusals(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,value\na,1\n")
    with pytest.raises(InputError, match=r"lacks the column\(s\) score"):
        read_judgments(table, "scores", teacher="t")
    table.write_text("image,score\na,1\n")
    with pytest.raises(InputError, match="must rise, got 1 to 1"):
        read_judgments(table, "scores", teacher="t")
    with pytest.raises(InputError, match="kind must be one of"):
        read_judgments(table, "points", teacher="t")
    table.write_text("")
    with pytest.raises(InputError, match="lacks the column"):
        read_judgments(table, "votes", teacher="t")
    (tmp_path / "t.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match="one JSON object a line"):
        read_judgments(tmp_path / "t.jsonl", "votes", teacher="t")
    (tmp_path / "out.jsonl").write_text("")
    table.write_text("image,score\na,1\nb,2\n")
    done = CliRunner().invoke(cli, ["import", str(table), "--kind", "scores", "-o", str(tmp_path / "out.jsonl")])
    assert isinstance(done.exception, OutputError) and "exists already" in str(done.exception)
