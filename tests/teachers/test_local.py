"""A transformers model as teacher: a tiny one of a real architecture, built on the spot."""

import json
import math
from importlib import metadata

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("transformers")

import leafiqa
from leafiqa.cli.main import cli
from leafiqa.errors import TeacherUnusable
from leafiqa.evidence.records import LEVELS
from leafiqa.teachers.batches import Batches
from leafiqa.teachers.local import LocalTeacher, first_tokens
from tests.conftest import make_picture
from tests.teachers.chat_server import picture
from tests.teachers.tiny_vlm import build_tiny_qwen, build_tiny_vlm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_vlm(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture(scope="module")
def teacher(folder):
    return LocalTeacher(str(folder), device_map="cpu", dtype="float32", batch=4)


def test_levels_are_the_next_tokens_probabilities(teacher):
    """Against the model called by hand, without padding or batch."""
    image = picture(0.8)
    text = teacher._processor.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": teacher._prompts["point-levels"].text}],
            }
        ],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = teacher._processor(text=[text], images=[[image]], return_tensors="pt")
    with torch.no_grad():
        probabilities = teacher._model(**inputs).logits[0, -1].softmax(0)
    answer = teacher.judge(image)
    assert answer.asked == {"teacher": "tiny", "prompt": "point-levels-1", "method": "logits", "max_side": 1024}
    encode = teacher._processor.tokenizer.encode
    for level in LEVELS:
        ids = {
            encode(f"{space}{word}", add_special_tokens=False)[0]
            for word in (level, level.capitalize())
            for space in ("", " ")
        }
        expected = math.log(sum(float(probabilities[i]) for i in ids))
        assert answer.judgment["levels"][level] == pytest.approx(expected, abs=1e-3)


def test_batches_are_equal_to_single_calls(teacher):
    questions = [(picture(q),) for q in (0.1, 0.4, 0.7, 0.95)]
    together = teacher._answer(questions)
    alone = [teacher._answer([question])[0] for question in questions]
    assert together[0] != together[2]
    for a, b in zip(together, alone):
        assert a == pytest.approx(b, abs=1e-4)


def test_padding_changes_nothing(tmp_path):
    if int(metadata.version("transformers").split(".")[0]) < 5:
        pytest.skip("the tiny Qwen2-VL is built with the configuration of transformers 5")
    """A small and a large image are questions of different length: what is added to the shorter one is not seen."""
    teacher = LocalTeacher(str(build_tiny_qwen(tmp_path / "qwen")), device_map="cpu", dtype="float32")
    questions = [(picture(0.3, side=28),), (picture(0.8, side=112),), (picture(0.5, side=56),)]
    together = teacher._answer(questions)
    alone = [teacher._answer([question])[0] for question in questions]
    assert together[0] != pytest.approx(together[1], abs=1e-2)
    for a, b in zip(together, alone):
        assert a == pytest.approx(b, abs=1e-3)


def test_comparisons_depend_on_the_order_shown(teacher):
    one, other = teacher.compare(picture(0.9), picture(0.2)), teacher.compare(picture(0.2), picture(0.9))
    assert 0 < one.judgment["first"] < 1 and one.judgment["first"] != other.judgment["first"]
    assert one.judgment["mass"] > 0 and one.asked["prompt"] == "pair-words-1"


def test_level_words_must_be_told_apart(tmp_path):
    alike = build_tiny_vlm(tmp_path / "letters", alike=True)
    teacher = LocalTeacher(str(alike), device_map="cpu")  # single letters tell the levels apart ...
    with pytest.raises(TeacherUnusable, match="begins 'first' and 'fair' alike"):
        first_tokens(teacher._processor.tokenizer, ("first", "fair"))  # ... but not these


def test_what_cannot_be_loaded_is_said(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TeacherUnusable, match="cannot load"):
        LocalTeacher(str(tmp_path), device_map="cpu")


def test_an_error_reaches_those_who_asked_and_nobody_else():
    def answer(batch):
        if 3 in batch:
            raise ValueError("three")
        return [2 * number for number in batch]

    batches = Batches(answer, kind=lambda number: number % 2, size=4)
    assert batches.ask(2) == 4 and batches.ask(1) == 2
    with pytest.raises(ValueError, match="three"):
        batches.ask(3)
    assert batches.ask(4) == 8


def test_from_images_to_a_students_score(folder, tmp_path):
    """Label, distil, score: every command, with a teacher of random weights."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(8):
        picture(i / 8).save(images / f"{i}.png")
    evidence = tmp_path / "evidence.jsonl"
    done = CliRunner().invoke(
        cli,
        ["label", str(images), "--teacher", str(folder), "-o", str(evidence), "--pairs", "6", "--device", "cpu"],
    )
    assert done.exit_code == 0, done.output
    kinds = [json.loads(line)["kind"] for line in evidence.read_text().splitlines()]
    assert kinds.count("point") == 8 and kinds.count("pair") == 12
    config = tmp_path / "mine.toml"
    config.write_text(
        f'output = "{tmp_path}/mine"\narea = 64\ncrop = 64\nlook = 64\nepochs = 1\nbatch = 4\n'
        f'[[sources]]\nimages = "{images}"\nevidence = ["{evidence}"]\n[card]\nname = "leaf_lite0.mine"\n'
    )
    done = CliRunner().invoke(cli, ["distill", str(config)])
    assert done.exit_code == 0, done.output
    student = tmp_path / "mine" / "leaf_lite0.mine.safetensors"
    done = CliRunner().invoke(cli, ["score", str(images), "--weights", str(student), "--format", "jsonl"])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 8
    assert 0 <= leafiqa.create_metric(weights=student)(make_picture()).item() <= 1
