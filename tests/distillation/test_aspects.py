"""A distilled student learns why, where and how sure, without a change of its score."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import leafiqa
from leafiqa.distillation.aspects import HeldOut, defect_names, learn_aspects
from leafiqa.distillation.config import read_config
from leafiqa.distillation.data import read_source
from leafiqa.distillation.exporting import averaged_student
from leafiqa.distillation.training_loop import epoch_path
from leafiqa.errors import WeightsError
from leafiqa.training.degradations.ladders import DEGRADATIONS
from tests.distillation.test_distillation import quietly, small_run  # noqa: F401


def test_defects_are_those_that_are_caused_or_often_named():
    caused = {one.defect for one in DEGRADATIONS.values() if one.defect}
    often = {f"{i}.png": {"text": 2.0 * (i < 25), "rare": 1.0 * (i < 3)} for i in range(60)}
    assert defect_names([often, {}]) == tuple(sorted({*caused, "text"}))


def test_aspects_are_learned_and_the_score_stays(small_run):  # noqa: F811
    config = replace(read_config(small_run), epochs=1, look=64, aspects=7)
    quietly(config)
    student = averaged_student(config, epoch_path(config, 1))
    images = torch.rand(2, 3, 64, 64)
    before = student(images)
    told, steps = [], []
    sources = [read_source(config, config.sources[0])]
    found = learn_aspects(config, student, sources, told.append, lambda done, total: steps.append((done, total)))
    assert torch.equal(student(images), before) and not any(p.requires_grad for p in student.parameters())
    seen = student.explain(images)
    assert seen.cells.shape == (2, 4, 4) and all(part.isfinite().all() for part in vars(seen).values())
    assert (seen.cells - seen.logits[:, None, None]).abs().max() > 1e-4  # the map has learned something
    assert found["pictures"] == 7 == steps[-1][1] and "held-out" in found["standard_errors"] and len(told) == 1
    # The same again is the same.
    twin = averaged_student(config, epoch_path(config, 1))
    learn_aspects(config, twin, sources, told.append, lambda done, total: None)
    assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), twin.state_dict().values()))


def test_errors_found_elsewhere_widen_what_is_stated(small_run):  # noqa: F811
    config = replace(read_config(small_run), epochs=1, look=64, aspects=4)
    quietly(config)
    sources = [read_source(config, config.sources[0])]
    images = torch.rand(2, 3, 64, 64)

    def stated(error):
        student = averaged_student(config, epoch_path(config, 1))
        features = torch.randn(400, student.feature_mean.numel(), generator=torch.Generator().manual_seed(0))
        logits = student.read(features).squeeze()
        signs = torch.where(torch.arange(400) % 2 == 0, 1.0, -1.0)
        rows = [HeldOut(*row) for row in zip(logits, features, (logits + error * signs).sigmoid())]
        told = learn_aspects(config, student, sources, lambda line: None, lambda done, total: None, rows)
        return float(student.explain(images).errors.mean()), told["standard_errors"]

    (small, of_small), (large, _) = stated(0.1), stated(1.0)
    assert large > 3 * small
    held_out = len(sources[0].held_out)
    assert of_small == f"from {400 + held_out} held-out pictures"


def test_a_distilled_student_explains(small_run):  # noqa: F811
    lines = [json.loads(line) for line in (small_run.parent / "evidence.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["defects"] = {"blur": 3} if number % 2 else {}
    (small_run.parent / "evidence.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = leafiqa.distill(replace(read_config(small_run), epochs=1, look=64, aspects=6))
    assert (
        made.card.architecture["defects"] == list(defect_names([])) and made.card.training["aspects"]["pictures"] == 6
    )
    picture = np.asarray(Image.open(small_run.parent / "images" / "1.png"))
    found = made.metric.explain(picture)
    assert found.score == pytest.approx(made.metric(picture).item(), abs=1e-5)
    assert found.interval[0] < found.score < found.interval[1] and set(found.defects) == set(defect_names([]))
    several = made.metric.explain_each([picture, small_run.parent / "images" / "1.png"])
    assert [one.score for one in several] == pytest.approx([found.score] * 2, abs=1e-5)
    batch = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    assert [one.score for one in made.metric.explain_each(batch)] == pytest.approx([found.score] * 2, abs=1e-5)
    with pytest.warns(leafiqa.ImageWarning, match=r"8\.png"):
        assert made.metric.explain_each([small_run.parent / "images" / "8.png", picture])[0] is None
    for several in ([picture, picture], batch):
        with pytest.raises(leafiqa.InputError, match="explain_each"):
            made.metric.explain(several)
    with pytest.raises(leafiqa.ImageError):
        made.metric.explain(small_run.parent / "images" / "8.png")
    # What begins at it learns its own.
    again = leafiqa.distill(
        replace(
            read_config(small_run), epochs=1, look=64, aspects=0, initial=str(made.path), output=made.path.parent / "b"
        )
    )
    assert "defects" not in again.card.architecture
    with pytest.raises(WeightsError, match="tells a score and nothing else"):
        again.metric.explain(picture)
