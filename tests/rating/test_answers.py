"""Answers on disk: nothing lost, nothing counted twice, nothing of others damaged; other tools' layouts."""

import json
import math

import pytest

import leafiqa
from leafiqa.errors import InputError, OutputError
from leafiqa.rating.answers import Answer, AnswerFile, read_answers
from leafiqa.rating.layouts_of_ratings import read_ratings
from tests.conftest import invoke


def answer(rater, image, value, kind="rating", other="", phase="first"):
    return Answer(
        0, rater, kind, str(image), str(other) if other else "", value, phase, 1.5, "2026-01-01T00:00:00+00:00"
    )


def test_answers_are_read_back_as_they_were_given(tmp_path):
    place = tmp_path / "ratings.csv"
    file = AnswerFile(place)
    odd = tmp_path / 'a "b", c\n=d.png'
    file.append(answer("Zoë, 1", odd, "4"))
    file.append(answer("Zoë, 1", tmp_path / "x.png", "second", "comparison", tmp_path / "y.png"))
    file.append(answer("bob", tmp_path / "x.png", "broken", "skip"))
    file.close()
    found = read_answers(place)
    assert [a.answer for a in found.answers] == [1, 2, 3] and found.problems == []
    assert found.ratings()[0].image == str(odd) and found.ratings()[0].rater == "Zoë, 1"
    assert found.comparisons()[0].other == str(tmp_path / "y.png")
    assert found.answers[2].rater == "bob"


def test_what_is_taken_back_does_not_count(tmp_path):
    file = AnswerFile(tmp_path / "r.csv")
    first = file.append(answer("a", tmp_path / "x.png", "1"))
    file.append(answer("b", tmp_path / "x.png", "2"))
    file.append(Answer(0, "b", "undo", "", value=str(first.answer)))  # another's answer cannot be taken back
    file.append(Answer(0, "a", "undo", "", value=str(first.answer)))
    file.append(answer("a", tmp_path / "x.png", "5"))
    file.close()
    assert [(a.rater, a.value) for a in read_answers(tmp_path / "r.csv").ratings()] == [("b", "2"), ("a", "5")]


def test_a_torn_line_is_cut_off_and_the_file_gone_on_with(tmp_path):
    place = tmp_path / "r.csv"
    file = AnswerFile(place)
    file.append(answer("a", tmp_path / "x.png", "1"))
    file.close()
    whole = place.read_bytes()
    place.write_bytes(whole + b'2,a,rating,"x')
    again = AnswerFile(place)
    assert len(again.answers()) == 1
    assert again.append(answer("a", tmp_path / "y.png", "2")).answer == 2
    again.close()
    assert [a.value for a in read_answers(place).ratings()] == ["1", "2"]
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        place.write_bytes(whole[:cut])
        AnswerFile(place).close()
        assert read_answers(place).problems == [] and len(read_answers(place).answers) == 0


def test_foreign_and_damaged_files_are_left_alone(tmp_path):
    place = tmp_path / "r.csv"
    place.write_text("image,mos\na.png,3\n")
    with pytest.raises(OutputError, match="not written by leafiqa"):
        AnswerFile(place)
    with pytest.raises(InputError, match="no file of ratings"):
        read_answers(place)
    AnswerFile(tmp_path / "s.csv").close()
    text = (tmp_path / "s.csv").read_text() + "1,a,rating,x.png,,9,first,,\n2,a,rating,x.png,,3,first,,\n"
    (tmp_path / "s.csv").write_text(text)
    found = read_answers(tmp_path / "s.csv")
    assert len(found.answers) == 1 and "a rating must be a number from 1 to 5, got '9'" in found.problems[0]
    with pytest.raises(InputError, match="cannot go on with"):
        AnswerFile(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == text


RATINGS = [("ann", "a.png", 4), ("ann", "b.png", 2), ("bob", "a.png", 5), ("bob", "b.png", 1.5)]


def test_layouts_of_others_are_read(tmp_path):
    expected = {(r, str(tmp_path / i), float(s)) for r, i, s in RATINGS}
    files = {
        "long.csv": "﻿Rater;Image;Score\n" + "".join(f"{r};{i};{str(s).replace('.', ',')}\n" for r, i, s in RATINGS),
        "wide.csv": "image,ann,bob\na.png,4,5\nb.png,2,1.5\n",
        "sureal.json": json.dumps(
            {
                "dis_videos": [
                    {"path": "a.png", "os": {"ann": 4, "bob": 5}},
                    {"path": "b.png", "os": {"ann": 2, "bob": 1.5}},
                ]
            }
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found = {(a.rater, a.image, a.score) for a in read_ratings(tmp_path / name).ratings()}
        assert found == expected, name
    (tmp_path / "lists.json").write_text(json.dumps({"dis_videos": [{"path": "a.png", "os": [1, 2, 9, True]}]}))
    listed = read_ratings(tmp_path / "lists.json")
    assert [(a.rater, a.score) for a in listed.ratings()] == [("rater 1", 1.0), ("rater 2", 2.0)]
    assert len(listed.problems) == 2
    (tmp_path / "p.csv").write_text(
        "Observer,Session,Scene,Condition_1,Condition_2,Selection\no,1,,a.png,b.png,1\no,1,,a.png,b.png,b.png\n"
        "o,1,,a.png,b.png,0\no,1,,a.png,b.png,7\n"
    )
    pairs = read_ratings(tmp_path / "p.csv")
    assert [a.value for a in pairs.comparisons()] == ["first", "second", "tie"] and len(pairs.problems) == 1


def test_a_program_is_never_run(tmp_path):
    (tmp_path / "dataset.py").write_text("open('ran', 'w')\n")
    with pytest.raises(InputError, match="is a program, which is never run"):
        read_ratings(tmp_path / "dataset.py")
    assert not (tmp_path / "ran").exists()
    for name, text in (("a.json", "[1]"), ("b.json", "{"), ("c.csv", "x,y\n1,2\n"), ("d.csv", "image,a\nx.png,\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError):
            read_ratings(tmp_path / name)


def test_what_is_written_in_each_layout_is_read_back(tmp_path):
    (tmp_path / "long.csv").write_text("rater,image,score\n" + "".join(f"{r},{i},{s}\n" for r, i, s in RATINGS))
    (tmp_path / "p.csv").write_text("Observer,Session,Scene,Condition_1,Condition_2,Selection\no,1,,a.png,b.png,2\n")
    for layout, name in (("sureal", "s.json"), ("wide", "w.csv"), ("long", "l.csv")):
        done = invoke("mos", tmp_path / "long.csv", "--export", tmp_path / name, "--as", layout)
        assert done.returncode == 0, done.stderr
        found = {(a.rater, a.image, a.score) for a in read_ratings(tmp_path / name).ratings()}
        assert found == {(r, str(tmp_path / i), float(s)) for r, i, s in RATINGS}
        assert invoke("mos", tmp_path / "long.csv", "--export", tmp_path / name, "--as", layout).returncode == 2
    leafiqa.export_ratings(tmp_path / "p.csv", tmp_path / "q.csv", "pwcmp")
    assert read_ratings(tmp_path / "q.csv").comparisons()[0].value == "second"
    with pytest.raises(InputError, match="there are no comparisons"):
        leafiqa.export_ratings(tmp_path / "long.csv", tmp_path / "r.csv", "pwcmp")
    with pytest.raises(InputError, match="layout must be one of"):
        leafiqa.export_ratings(tmp_path / "long.csv", tmp_path / "r.csv", "xml")
    assert math.isnan(read_ratings(tmp_path / "l.csv").ratings()[0].seconds)
