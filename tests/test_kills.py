"""Nothing is lost: SIGKILL at every point of a distillation and a calibration at which something is half done."""

import json
from dataclasses import replace
from pathlib import Path

import torch

import leafiqa
from leafiqa.distillation.config import read_config
from leafiqa.distillation.second_opinions import opinions_folder
from tests.calibration.test_calibration import labelled  # noqa: F401
from tests.distillation.test_distillation import small_run  # noqa: F401
from tests.kill_at import kill_at

LOOP, OPINIONS = "leafiqa.distillation.training_loop", "leafiqa.distillation.second_opinions"
DISTILLING = [
    f"{LOOP}:load:1:before",
    f"{LOOP}:save_atomically:1:before",
    "os:fsync:1:before",  # the first checkpoint is written, but not in its place yet
    f"{LOOP}:save_atomically:1:after",
    "leafiqa.distillation.trainer:Trainer.advance:3:after",
    f"{LOOP}:_append:1:after",
    f"{OPINIONS}:export:1:before",
    "leafiqa.model.checkpoint:write_whole:1:after",  # weights, and no card
    f"{OPINIONS}:_score:1:before",
    f"{OPINIONS}:append_evidence:1:after",
    "leafiqa.distillation.trainer:Trainer.advance:2:before",  # in the second fold's training
    f"{OPINIONS}:_score:1:after",
    f"{LOOP}:save_atomically:2:before",
    "leafiqa.distillation.trainer:Trainer.advance:1:after",
    "os:fsync:1:after",
    "leafiqa.distillation.run:export:1:before",
    "leafiqa.model.checkpoint:write_whole:2:before",
    "leafiqa.distillation.run:_agreements:1:before",
    "leafiqa.distillation.run:_finish:1:before",
    "leafiqa.distillation.run:write_whole:1:before",
]
CALIBRATING = [
    "leafiqa.calibration.calibrator:extract:1:after",
    "leafiqa.calibration.calibrator:choose:1:before",
    "leafiqa.model.checkpoint:write_whole:1:before",
    "os:replace:1:before",  # the weights are written, but not in their place yet
]


def test_distillation(small_run):  # noqa: F811
    small_run.write_text(
        "keep_checkpoints = true\ncrossfit = 2\n" + small_run.read_text().replace("epochs = 3", "epochs = 6")
    )
    config = read_config(small_run)
    kill_at(DISTILLING, "distill", small_run)
    alone = replace(config, output=small_run.parent / "undisturbed")
    expected = leafiqa.distill(alone)
    assert json.loads((config.output / "leaf_lite0.test.json").read_text())["sha256"] == expected.card.sha256
    for part in (Path("."), Path("fold0"), Path("fold1")):
        places = [c.output if part == Path(".") else opinions_folder(c) / part for c in (config, alone)]
        states = [torch.load(place / "epoch6.pt", weights_only=True) for place in places]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), part
    for name in ("test_0.jsonl", "test_1.jsonl"):
        texts = [(opinions_folder(c) / name).read_text() for c in (config, alone)]
        assert texts[0] == texts[1]
    logs = [(c.output / "losses.csv").read_text() for c in (config, alone)]
    assert logs[0] == logs[1]


def test_calibration(labelled, tmp_path):  # noqa: F811
    out = tmp_path / "made" / "leaf_lite0.mine"
    arguments = ["calibrate", "--mos", labelled / "mos.csv", "-o", out, "--scale", "1", "5", "--device", "cpu"]
    kill_at(CALIBRATING, *arguments)
    alone = leafiqa.calibrate("leaf", labelled / "mos.csv", scale=(1, 5), device="cpu")
    alone.save(tmp_path / "alone" / "leaf_lite0.mine")
    cards = [json.loads((tmp_path / way / "leaf_lite0.mine.json").read_text()) for way in ("made", "alone")]
    assert cards[0] == cards[1]  # the weights' sha256 among the rest
    assert leafiqa.create_metric(weights=f"{out}.safetensors", device="cpu").score_range == (1.0, 5.0)


def test_a_kill_between_weights_and_card_is_noticed_and_mended(labelled, tmp_path):  # noqa: F811
    """Of a student that replaces another: new weights beside the old card are refused, and saving again mends that."""
    mine = leafiqa.calibrate("leaf", labelled / "mos.csv", scale=(1, 5), device="cpu")
    file = mine.save(tmp_path / "leaf_lite0.mine")
    other = leafiqa.calibrate("leaf", labelled / "mos.csv", scale=(0, 9), device="cpu")
    card = file.with_suffix(".json").read_text()
    other.save(file, overwrite=True)
    file.with_suffix(".json").write_text(card)
    try:
        leafiqa.create_metric(weights=file)
        raise AssertionError("loaded")
    except leafiqa.WeightsError as error:
        assert "is damaged or was changed" in str(error)
    other.save(file, overwrite=True)
    assert leafiqa.create_metric(weights=file, device="cpu").score_range == (0.0, 9.0)
