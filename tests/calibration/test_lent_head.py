"""The head, fitted to given scores and to those that a teacher's evidence lends."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.special import expit, logit

from leafiqa.calibration import lent_head
from leafiqa.calibration.calibrator import calibrate_metric
from leafiqa.calibration.cross_validation import Choice, Labels, expected
from leafiqa.calibration.lent_head import fit_lent, try_lent
from leafiqa.calibration.teacher_labels import Judged, lend
from leafiqa.cli.main import cli
from leafiqa.evaluation.measures import spearman
from leafiqa.labels.mos_table import Labelled, MosTable
from tests.conftest import noisy_picture

RUNGS = ("scale", "head")


def planted(n=30, m=600, width=60, teacher_noise=0.3, seed=0):
    """Labels that lie in sixty features as much as in the logit, of which a student's teacher knows."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (n + m, width))
    logits = rng.normal(0, 1, n + m)
    truth = expit(logits + features @ rng.normal(0, 1 / np.sqrt(width), width))
    remarks = expit(0.7 * logit(truth) + 0.5 + rng.normal(0, teacher_noise, n + m))
    labels = Labels(logits[:n], features[:n], truth[:n], np.ones(n), np.arange(n).astype(str))
    return labels, Judged(remarks[:n], remarks[n:], logits[n:], features[n:], []), truth[n:]


def test_lent_labels_come_after_the_given_ones_and_weigh_less():
    labels, judged, truth = planted()
    both = lend(labels, judged, RUNGS, 0)
    assert len(both) == 630 and both.features.shape == (630, 60)
    assert both.targets[:30].tolist() == labels.targets.tolist() and both.weights[:30].tolist() == [1] * 30
    assert both.logits[30:].tolist() == judged.logits.tolist()
    assert len(set(both.weights[30:])) == 1 and 0.5 < both.weights[30] < 1
    assert spearman(both.targets[30:], truth) > 0.9
    assert len(set(both.groups)) == 630


def test_the_head_learns_from_lent_scores_what_a_few_labels_cannot_tell_it():
    labels, judged, truth = planted()
    alone = Choice("head", 0.3).fit(labels).predict(judged.logits, judged.features)
    lent = fit_lent(labels, judged, RUNGS, 0).predict(judged.logits, judged.features)
    assert spearman(alone, truth) < 0.8 < 0.9 < spearman(lent, truth)
    simple = expected(labels, RUNGS, 0)
    fit, held_out = try_lent(labels, judged, RUNGS, 0, simple)
    assert fit is not None and fit.residual is not None
    np.testing.assert_allclose(fit.predict(judged.logits, judged.features), lent)
    before, after = (np.mean((one.predictions - labels.targets) ** 2) for one in (simple, held_out))
    assert after < 0.6 * before
    # What is in order is what predictions are, but for the folds' offsets.
    assert spearman(held_out.order, labels.targets) > spearman(simple.order, labels.targets) + 0.1


def test_labels_that_know_better_than_the_teacher_are_left_alone():
    """The teacher knows nothing of what people look at, and there are labels enough to tell."""
    labels, judged, _ = planted(n=400, width=20)
    noise = np.random.default_rng(3).uniform(size=1000)
    worthless = replace(judged, of_labelled=noise[:400], scores=noise[400:], features=judged.features[:, ::-1])
    simple = expected(labels, RUNGS, 0)
    fit, held_out = try_lent(labels, worthless, RUNGS, 0, simple)
    assert fit is None and held_out is simple


@pytest.mark.parametrize("rungs, n, m", [(("scale",), 30, 9), (RUNGS, 24, 9), (RUNGS, 30, 0)])
def test_it_is_not_tried_without_the_head_nor_with_too_few_labels_or_no_other_image(rungs, n, m, monkeypatch):
    monkeypatch.setattr(lent_head, "lend", None)
    labels, judged, _ = planted(n=n, m=m)
    simple = expected(labels, rungs, 0)
    assert try_lent(labels, judged, rungs, 0, simple) == (None, simple)


def test_held_out_labels_lend_nothing(monkeypatch):
    seen = []
    lends = lent_head.lend

    def notes(labels, judged, rungs, seed):
        seen.append((labels.targets, judged.of_labelled))
        return lends(labels, judged, rungs, seed)

    monkeypatch.setattr(lent_head, "lend", notes)
    labels, judged, _ = planted(m=100)
    try_lent(labels, judged, RUNGS, 0, expected(labels, RUNGS, 0))
    *folds, whole = seen
    assert len(folds) == 5 and len(whole[0]) == 30
    for targets, told in folds:
        kept = np.isin(labels.targets, targets)
        assert kept.sum() == 24 and told.tolist() == judged.of_labelled[kept].tolist()


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Forty pictures under falling amounts of noise, 28 of them rated, all judged, beside ten of another split."""
    place = tmp_path_factory.mktemp("lent")
    rows, lines = ["image,mos,split"], []
    for i in range(50):
        Image.fromarray(noisy_picture(i, 1.2 * i, 64, 64)).save(place / f"{i}.png")
        lines.append(json.dumps({"kind": "point", "image": f"{i}.png", "score": 90 - 1.5 * i, "scale": [0, 100]}))
        if i < 28 or i >= 40:
            rows.append(f"{i}.png,{5 - i / 13:.2f},{'train' if i < 28 else 'val'}")
    (place / "evidence.jsonl").write_text("\n".join(lines) + "\n")
    (place / "mos.csv").write_text("\n".join(rows) + "\n")
    return place


def test_calibrating_with_evidence_and_without_fine_tuning(rated, tmp_path, monkeypatch):
    """The rung is the head, the card and the report tell of what was lent, and no image is kept for training."""
    monkeypatch.setattr("leafiqa.calibration.teacher_labels.prepare_images", None)
    monkeypatch.setattr("leafiqa.calibration.calibrator.try_full", None)
    out = tmp_path / "leaf_lite0.lent"
    arguments = ["calibrate", "--mos", str(rated / "mos.csv"), "--split", "train", "-o", str(out), "--device", "cpu"]
    arguments += ["--range", "1", "5", "--evidence", str(rated / "evidence.jsonl"), "--no-full"]
    outcome = CliRunner().invoke(cli, arguments)
    assert outcome.exit_code == 0, outcome.output + repr(outcome.exception)
    assert "head (ridge 0.15), 28 labels and 12 lent scores, scale 1 to 5" in outcome.output
    training = json.loads(Path(f"{out}.json").read_text())["training"]
    assert training["calibration"]["rung"] == "head" and training["calibration"]["judged_images"] == 12
    assert "28 images with human scores" in training["data"] and "12 images judged by a teacher" in training["data"]
    assert "lent scores" in training["calibration"]["expected_by"]


def test_evidence_alone_still_asks_for_fine_tuning(rated, metric, monkeypatch):
    begun = []

    def stops(material, tuning):
        begun.append(material)
        raise RuntimeError("far enough")

    monkeypatch.setattr("leafiqa.calibration.calibrator.FULL_LEAST", 30)
    monkeypatch.setattr("leafiqa.calibration.calibrator.try_full", stops)
    rows = [Labelled(f"{i}.png", rated / f"{i}.png", 5 - i / 13) for i in range(28)]
    evidence = {rated / f"{i}.png": 0.9 - i / 60 for i in range(40)}
    with pytest.raises(RuntimeError, match="far enough"):
        calibrate_metric(metric, MosTable(rows, []), evidence=evidence)
    assert begun[0].lent and len(begun[0].judged.images) == 12
    # Labels alone are fine-tuned on only when that is asked for.
    assert calibrate_metric(metric, MosTable(rows, [])).judged == 0
    assert len(begun) == 1
