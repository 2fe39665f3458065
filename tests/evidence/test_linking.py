"""Evidence on one scale: lines through images that were judged twice."""

import json

import numpy as np
import pytest

from leafiqa.errors import EvidenceError
from leafiqa.evidence.linking import find_lines, read_on_common_scale
from leafiqa.evidence.reliability import targets


def write(path, scores):
    lines = [{"kind": "point", "image": name, "score": score, "scale": [0, 100]} for name, score in scores.items()]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def files(tmp_path):
    """Two sources, judged on scales of their own, and a part of each judged together."""
    truth = {f"{kind}{i}.png": float(v) for kind in "ab" for i, v in enumerate(np.linspace(20, 80, 60))}
    strict = write(tmp_path / "a.jsonl", {name: 0.5 * v for name, v in truth.items() if name[0] == "a"})
    lenient = write(tmp_path / "b.jsonl", {name: 0.5 * v + 50 for name, v in truth.items() if name[0] == "b"})
    common = write(tmp_path / "common.jsonl", {name: v for i, (name, v) in enumerate(truth.items()) if i % 2})
    return truth, strict, lenient, common


def test_lines_bring_two_sources_to_one_scale(files):
    truth, strict, lenient, common = files
    lines = find_lines([strict], [common])
    assert (lines[strict].slope, lines[strict].offset) == pytest.approx((2, 0)) and lines[strict].shared == 30
    line = find_lines([lenient], [common])[lenient]
    assert (line.slope, line.offset) == pytest.approx((2, -1)) and line(0.2) == 0 and line(1.1) == 1
    for file, kind in ((strict, "a"), (lenient, "b")):
        evidence = read_on_common_scale([file], [common])
        assert evidence.images == {name for name in truth if name[0] == kind}
        found = targets(evidence)
        assert all(found[name].score == pytest.approx(truth[name] / 100) for name in found)
        assert sum(map(len, evidence.points.values())) == 60 + 30  # the common judgments join in
    assert read_on_common_scale([strict], []).points["a1.png"][0].score == pytest.approx(truth["a1.png"] / 200)


def test_a_small_file_takes_the_line_of_its_source(files, tmp_path):
    truth, strict, _, common = files
    again = write(tmp_path / "again.jsonl", {name: 0.5 * truth[name] for name in ("a1.png", "a2.png")})
    lines = find_lines([strict, again], [common])
    assert lines[again] == lines[strict] or lines[again].slope == pytest.approx(2)


def test_what_cannot_be_linked_is_refused(files, tmp_path):
    truth, _, _, common = files
    alone = write(tmp_path / "alone.jsonl", {"z1.png": 1, "z2.png": 2})
    with pytest.raises(EvidenceError, match=r"alone\.jsonl: to be brought .* share at least 30"):
        find_lines([alone], [common])
    turned = write(tmp_path / "turned.jsonl", {name: 100 - v for name, v in truth.items()})
    with pytest.raises(EvidenceError, match="other way round"):
        find_lines([turned], [common])
