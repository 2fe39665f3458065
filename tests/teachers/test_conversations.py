"""Evidence as an instruction-tuning set: its layout, and that a model learns from it."""

import json

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import leafiqa
from leafiqa.cli.main import cli
from leafiqa.errors import InputError, OutputError
from leafiqa.teachers.conversations import in_words, level_of
from leafiqa.teachers.prompts import read_prompts
from tests.teachers.chat_server import picture

LINES = [
    {"kind": "point", "image": "a.png", "score": 95, "scale": [0, 100], "defects": {"blur": 1, "noise": 3}},
    {"kind": "point", "image": "b.png", "score": 10, "scale": [0, 100], "defects": {}},
    {"kind": "point", "image": "c.png", "score": 50, "scale": [0, 100], "confidence": 0.0},
    {"kind": "pair", "images": ["a.png", "b.png"], "first": 0.9},
    {"kind": "pair", "images": ["b.png", "c.png"], "first": 0.5},
]


@pytest.fixture
def evidence(tmp_path):
    path = tmp_path / "evidence.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)))
    return path


def test_words():
    assert [level_of(score) for score in (0, 0.12, 0.13, 0.5, 0.8, 1)] == [
        "bad",
        "bad",
        "poor",
        "fair",
        "good",
        "excellent",
    ]
    assert (
        in_words({"noise": 1.4, "blur": 2.6, "dark": 0.4}) == "severe blur, slight noise" and in_words({}) == "nothing"
    )


def test_the_layout(evidence, tmp_path):
    out = tmp_path / "set.json"
    done = CliRunner().invoke(cli, ["evidence", str(evidence), "--conversations", str(out)])
    assert done.exit_code == 0 and "6 conversations in" in done.stderr, done.output
    for alone in (["--overwrite"], ["--prompts", str(evidence)]):
        refused = CliRunner().invoke(cli, ["evidence", str(evidence), *alone])
        assert refused.exit_code == 2 and "--conversations FILE" in refused.output
    told = json.loads(out.read_text())
    asked = read_prompts()
    short = {one["id"]: (one["image"], one["conversations"][1]["value"]) for one in told}
    assert short == {
        "point-a.png": ("a.png", "excellent"),
        "defects-a.png": ("a.png", "severe noise, slight blur"),
        "point-b.png": ("b.png", "bad"),
        "defects-b.png": ("b.png", "nothing"),
        "pair-a.png-b.png": (["a.png", "b.png"], "first"),
        "pair-b.png-a.png": (["b.png", "a.png"], "second"),
    }
    for one in told:
        count = 2 if isinstance(one["image"], list) else 1
        human, gpt = one["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt") and human["value"].count("<image>") == count
        assert human["value"].startswith("<image>\n" * count)
    assert told[0]["conversations"][0]["value"] == "<image>\n" + asked["point-levels"].text
    with pytest.raises(OutputError):
        leafiqa.export_conversations(evidence, out)
    with pytest.raises(InputError, match="least_reliability"):
        leafiqa.export_conversations(evidence, out, least_reliability=2)
    assert leafiqa.export_conversations(evidence, out, least_reliability=0.9, overwrite=True) == 4  # the pair is at .8


def test_a_few_steps_of_tuning_teach_a_tiny_model_the_levels(tmp_path):
    """As a trainer does: the conversation through the chat template, cross-entropy on the answer alone."""
    pytest.importorskip("transformers")
    from leafiqa.teachers.local import LocalTeacher
    from tests.teachers.tiny_vlm import build_tiny_vlm

    qualities = {"bad.png": 0.1, "good.png": 0.9}
    lines = []
    for name, quality in qualities.items():
        picture(quality).save(tmp_path / name)
        lines.append({"kind": "point", "image": name, "score": 100 * round(quality), "scale": [0, 100]})
    (tmp_path / "evidence.jsonl").write_text("\n".join(map(json.dumps, lines)))
    leafiqa.export_conversations(tmp_path / "evidence.jsonl", tmp_path / "set.json")
    teacher = LocalTeacher(str(build_tiny_vlm(tmp_path / "tiny")), device_map="cpu", dtype="float32")
    wanted = {"bad.png": "bad", "good.png": "excellent"}

    def likelihoods():
        return {
            name: teacher.judge(Image.open(tmp_path / name)).judgment["levels"][level] for name, level in wanted.items()
        }

    before = likelihoods()
    batches = []
    for one in json.loads((tmp_path / "set.json").read_text()):
        human, gpt = (turn["value"] for turn in one["conversations"])
        assert gpt == wanted[one["image"]]
        content = [{"type": "image"}, {"type": "text", "text": human.removeprefix("<image>\n")}]
        text = teacher._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        picture_of = [[Image.open(tmp_path / one["image"])]]
        question = teacher._processor(text=[text], images=picture_of, return_tensors="pt")
        whole = teacher._processor(text=[text + gpt], images=picture_of, return_tensors="pt")
        labels = whole["input_ids"].clone()
        labels[:, : question["input_ids"].shape[1]] = -100
        batches.append({**whole, "labels": labels})
    optimizer = torch.optim.Adam(teacher._model.parameters(), lr=2e-3)
    for _ in range(12):
        loss = sum(teacher._model(**batch).loss for batch in batches)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = likelihoods()
    assert all(after[name] > before[name] + 0.5 for name in wanted), (before, after)
