"""Second opinions: each by a student that did not see what it scores; resumable; ordinary evidence."""

import json
from dataclasses import replace

import pytest
import torch

import leafiqa
from leafiqa.distillation import second_opinions as module
from leafiqa.distillation.config import read_config
from leafiqa.distillation.data import load, read_source
from leafiqa.distillation.second_opinions import collect_second_opinions, opinion_path, opinions_folder
from leafiqa.distillation.training_loop import train
from leafiqa.errors import EvidenceError
from leafiqa.labels.splits import deal_names
from leafiqa.training.processes import connect
from tests.distillation.test_distillation import small_run  # noqa: F401


def cross(config, log=lambda line: None):
    return collect_second_opinions(config, connect("cpu"), log, lambda step, total: None)


def opinions(config, fold):
    return opinion_path(opinions_folder(config), config.sources[0], fold).read_text()


def test_folds_part_the_names():
    names = [f"{i}.png" for i in range(11)]
    parts = deal_names(names, 3, seed=5)
    assert sorted(len(part) for part in parts) == [3, 4, 4]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert parts == deal_names(reversed(names), 3, seed=5) != deal_names(names, 3, seed=6)


def test_a_fold_is_left_out_of_training_altogether(small_run):  # noqa: F811
    config = replace(read_config(small_run), crossfit=3)
    known = [f"{i}.png" for i in range(9)]
    source = config.sources[0]
    for fold, names in enumerate(deal_names(known, 3, config.seed)):
        assert read_source(config, source, fold).evidence.images == set(known) - names
    assert len(load(config, 0).images) + len(load(config, 1).images) + len(load(config, 2).images) == 2 * 8


def test_second_opinions_are_of_students_that_did_not_see(small_run):  # noqa: F811
    config = replace(read_config(small_run), crossfit=2, epochs=1, keep_checkpoints=True)
    lines = []
    last = cross(config, lines.append)
    assert sum("second opinions" in line for line in lines) == 2
    folds = deal_names([f"{i}.png" for i in range(9)], 2, config.seed)
    for fold, names in enumerate(folds):
        records = [json.loads(line) for line in opinions(config, fold).splitlines()]
        assert {record["image"] for record in records} == names - {"8.png"}  # which cannot be read
        student = leafiqa.create_metric(weights=opinions_folder(config) / f"fold{fold}", device="cpu")
        for record in records:
            assert record["confidence"] == 0.5 and "without this image" in record["teacher"]
            assert record["score"] == pytest.approx(
                student(config.sources[0].images / record["image"]).item(), abs=2e-5
            )
    # The run proper believes the mean of the two, as both are as reliable, and less where they disagree.
    teacher, both = load(config), load(last)
    second = {
        json.loads(line)["image"]: json.loads(line)["score"]
        for fold in range(2)
        for line in opinions(config, fold).splitlines()
    }
    for number in range(8):
        middle = (float(teacher.targets[number]) + second[f"{number}.png"]) / 2
        assert float(both.targets[number]) == pytest.approx(middle, abs=1e-5)
        assert both.reliabilities[number] <= teacher.reliabilities[number] + 1e-6
    # Done is done.
    assert cross(config, pytest.fail) == last
    before = opinions_folder(config)
    evidence = config.sources[0].evidence[0]
    more = {"kind": "point", "image": "1.png", "score": 0.9, "scale": [0, 1]}
    evidence.write_text(evidence.read_text() + "\n" + json.dumps(more))
    # Of other evidence, another seed or other rates the opinions are others: made anew, beside these.
    for other in (config, replace(config, seed=1), replace(config, lr=1e-5), replace(config, epochs=2)):
        assert opinions_folder(other) != before


def test_interrupted_second_opinions_go_on(small_run, monkeypatch):  # noqa: F811
    """Stopped in the second training; then the first is not done again, and all ends as if undisturbed."""
    base = replace(read_config(small_run), crossfit=2, epochs=1, keep_checkpoints=True)
    whole = replace(base, output=base.output / "whole")
    cross(whole)
    config = replace(base, output=base.output / "stopped")
    trainings = []

    def stops(*arguments, left_out=None):
        trainings.append(left_out)
        if trainings == [0, 1]:
            raise KeyboardInterrupt
        return train(*arguments, left_out=left_out)

    monkeypatch.setattr(module, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        cross(config)
    cross(config)
    assert trainings == [0, 1, 1]
    for fold in range(2):
        assert opinions(config, fold) == opinions(whole, fold)
    states = [torch.load(opinions_folder(c) / "fold1" / "epoch1.pt", weights_only=True) for c in (whole, config)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not list(config.output.rglob("*.tmp"))


def test_crossfit_that_cannot_be(small_run):  # noqa: F811
    config = read_config(small_run)
    with pytest.raises(EvidenceError, match="9 images with scores, too few for crossfit = 20"):
        cross(replace(config, crossfit=20))
    with pytest.raises(EvidenceError, match="sources of different names"):
        cross(replace(config, crossfit=2, sources=config.sources * 2))
    small_run.write_text("crossfit = 1\n" + small_run.read_text())
    with pytest.raises(EvidenceError, match="2 or more, got 1"):
        read_config(small_run)
