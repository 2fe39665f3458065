"""A teacher's scores brought to the human scale by a few labels, and fine-tuning on them."""

import copy
import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.special import expit, logit

import leafiqa
from leafiqa.calibration import fine_tuning_rung as tune_module
from leafiqa.calibration.calibrator import calibrate_metric
from leafiqa.calibration.cross_validation import Labels
from leafiqa.calibration.fine_tuning import JUDGED_PACE
from leafiqa.calibration.fine_tuning_rung import Material
from leafiqa.calibration.teacher_labels import Judged, estimate_labels, gather
from leafiqa.cli.main import cli
from leafiqa.cli.progress import progress
from leafiqa.errors import CalibrationError
from leafiqa.evaluation.measures import spearman
from leafiqa.labels.mos_table import Labelled, MosTable
from tests.conftest import noisy_picture


def planted(n=30, m=400, teacher_noise=0.2, student_noise=1.0, seed=0):
    """Truths of n labelled and m judged images, as a good teacher on another scale and a poor student see them."""
    rng = np.random.default_rng(seed)
    truth = expit(rng.normal(0, 1, n + m))
    remarks = expit(0.5 * logit(truth) + 0.8 + rng.normal(0, teacher_noise, n + m))
    logits = logit(truth) + rng.normal(0, student_noise, n + m)
    features = rng.normal(0, 1, (n + m, 8))
    labels = Labels(logits[:n], features[:n], truth[:n], np.ones(n), np.arange(n).astype(str))
    return labels, Judged(remarks[:n], remarks[n:], logits[n:], features[n:], [torch.zeros(3, 8, 8)] * m), truth[n:]


def test_lent_scores_are_on_the_human_scale_and_nearer_the_truth_than_the_student():
    labels, judged, truth = planted()
    estimated, weight = estimate_labels(labels, judged, ("scale", "head"), seed=0)
    assert np.abs(estimated - truth).mean() < 0.08 < 0.12 < np.abs(judged.scores - truth).mean()
    assert spearman(estimated, truth) > spearman(judged.logits, truth) + 0.1
    assert 0.5 < weight < 1


def test_a_worthless_teacher_is_not_believed_and_weighs_less():
    labels, judged, truth = planted(student_noise=0.3)
    noise = np.random.default_rng(5).uniform(size=len(labels) + len(truth))
    worthless = Judged(noise[:30], noise[30:], judged.logits, judged.features, judged.images)
    estimated, weight = estimate_labels(labels, worthless, ("scale",), seed=0)
    assert spearman(estimated, truth) > spearman(judged.logits, truth) - 0.05  # the student's own view remains
    assert weight == pytest.approx(0.5, abs=0.05)
    # A teacher that runs the wrong way gets no negative factor: it is left out.
    turned, _ = estimate_labels(
        labels, Judged(1 - judged.of_labelled, 1 - judged.scores, *_rest(judged)), ("scale",), seed=0
    )
    assert spearman(turned, judged.logits) > 0.999


def _rest(judged):
    return judged.logits, judged.features, judged.images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty small pictures under falling amounts of noise: 14 rated, 5 of another split, all judged."""
    place = tmp_path_factory.mktemp("judged")
    rows, lines = [("image", "mos", "split")], []
    for i in range(40):
        Image.fromarray(noisy_picture(i, 1.5 * i, 64, 64)).save(place / f"{i}.png")
        lines.append(json.dumps({"kind": "point", "image": f"{i}.png", "score": 80 - 1.5 * i, "scale": [0, 100]}))
        if i % 3 == 0 or i in (1, 2, 4, 5, 7):
            # One of the other split has no score: hidden labels are not for learning either.
            rows.append((f"{i}.png", "" if i == 7 else f"{5 - i / 10}", "train" if i % 3 == 0 else "val"))
    (place / "bad.png").write_bytes(b"nothing")
    lines.append(json.dumps({"kind": "point", "image": "bad.png", "score": 5, "scale": [0, 100]}))
    (place / "evidence.jsonl").write_text("\n".join(lines) + "\n")
    with (place / "mos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return place


def test_gather_tells_rated_images_from_the_others(folder, metric, monkeypatch, tmp_path):
    evidence = {folder / f"{i}.png": i / 10 for i in range(5)} | {folder / "bad.png": 0.1}
    with pytest.raises(CalibrationError, match=r"from 10 images on .* got 1"):
        gather(metric, evidence, [folder / "3.png", folder / "9.png"])
    monkeypatch.setattr("leafiqa.calibration.teacher_labels.JUDGED_LEAST", 1)
    judged, problems = gather(metric, evidence, [folder / "3.png", folder / "9.png"])
    assert judged.of_labelled[0] == 0.3 and np.isnan(judged.of_labelled[1])
    assert judged.scores.tolist() == [0.0, 0.1, 0.2, 0.4] and len(judged.images) == 4
    assert len(problems) == 1 and problems[0].startswith("bad.png")
    # A labelled file under another name is not learned from: its label may be held out.
    (tmp_path / "copy.png").write_bytes((folder / "3.png").read_bytes())
    judged, problems = gather(metric, evidence | {tmp_path / "copy.png": 0.3}, [folder / "3.png"])
    assert len(judged.images) == 4 and any(
        line.startswith("copy.png: the same file as a labelled") for line in problems
    )
    # Nor one of an image that is held out.
    evidence = {place: score for place, score in evidence.items() if place.name in ("2.png", "3.png")}
    evidence[tmp_path / "copy.png"] = 0.3
    judged, problems = gather(metric, evidence, [folder / "2.png"], held_out=[folder / "3.png"])
    assert len(judged.images) == 0 and len(problems) == 2 and all("held-out image" in line for line in problems)


def test_labels_with_evidence_in_few_groups_are_refused_with_the_reason():
    labels, judged, _ = planted()
    only = np.full(30, np.nan)
    only[:3] = judged.of_labelled[:3]
    with pytest.raises(CalibrationError, match=r"of few groups: without some of these, 3 are left, and 5 are needed"):
        estimate_labels(labels, replace(judged, of_labelled=only), ("scale",), seed=0)


def test_tuning_learns_from_the_lent_scores(folder, metric, monkeypatch):
    """What fine-tuning is handed: labels at full weight, then the judged images at less."""
    handed = {}

    def catches(student, images, targets, weights, seed, advance, pace):
        handed.update(images=images, targets=targets, weights=weights, pace=pace)
        return student

    monkeypatch.setattr(tune_module, "fine_tune", catches)
    kept = []
    monkeypatch.setattr(tune_module, "keep_order_of_damage", lambda *given: kept.append(given) or given[0])
    labels, judged, truth = planted(m=50)
    labels = Labels(labels.logits, labels.features, labels.targets, np.full(30, 1.0), labels.groups)
    width = metric.student.feature_mean.shape[0]
    wide = Labels(labels.logits, np.zeros((30, width)), labels.targets, labels.weights, labels.groups)
    judged = replace(judged, features=np.zeros((50, width)))
    material = Material(metric.student, wide, [torch.ones(3, 8, 8)] * 30, judged, ("scale",), 0)
    material.tune()
    ((tuned, before, fit, shown, seed, _),) = kept
    assert tuned is not before is metric.student and fit.slope > 0 and len(shown) == 80 and seed == 0
    assert len(handed["images"]) == 80 and handed["pace"] == JUDGED_PACE
    assert handed["targets"][:30].tolist() == labels.targets.tolist()
    assert np.abs(handed["targets"][30:] - truth).mean() < 0.08
    assert (handed["weights"][:30] == 1).all() and 0.5 < handed["weights"][40] < 1
    # Several trainings: each in an order of its own, the mean of their weights is the student.
    orders = []

    def shifts(student, images, targets, weights, seed, advance, pace):
        orders.append(seed)
        shifted = copy.deepcopy(student)
        shifted.feature_mean.add_(seed)
        return shifted

    monkeypatch.setattr(tune_module, "fine_tune", shifts)
    student, _ = replace(material, runs=3).tune()
    assert orders == [0, 1, 2]
    # ... and a quarter of the way from where they began.
    torch.testing.assert_close(student.feature_mean, metric.student.feature_mean + 0.25, atol=1e-5, rtol=1e-5)
    labels_only, _ = replace(material, runs=3, judged=None).tune()
    torch.testing.assert_close(labels_only.feature_mean, metric.student.feature_mean + 0.25, atol=1e-5, rtol=1e-5)
    part = replace(material, runs=3).part(np.arange(30) < 20)
    assert part.runs == 1
    assert len(part.images) == 20 and len(part.judged.of_labelled) == 20 and len(part.judged.images) == 50


def test_evidence_on_the_command_line(folder, tmp_path, monkeypatch):
    """Images of another split are not learned from; the card tells how many judged images were."""
    monkeypatch.setattr(sys.modules["leafiqa.calibration.calibrator"], "FULL_LEAST", 30)
    monkeypatch.setattr(tune_module, "clearly_better", lambda errors, than, groups: True)
    monkeypatch.setattr(tune_module, "JUDGED_PACE", replace(JUDGED_PACE, epochs=1))
    learned = []
    fine_tune = tune_module.fine_tune

    def counts(student, images, *rest):
        learned.append(len(images))
        return fine_tune(student, images[:6], rest[0][:6], rest[1][:6], *rest[2:])

    monkeypatch.setattr(tune_module, "fine_tune", counts)
    out = tmp_path / "leaf_lite0.judged"
    arguments = ["calibrate", "--mos", str(folder / "mos.csv"), "--split", "train", "-o", str(out), "--device", "cpu"]
    arguments += ["--range", "1", "5", "--evidence", str(folder / "evidence.jsonl")]
    outcome = CliRunner().invoke(cli, arguments)
    assert outcome.exit_code == 0, outcome.output + repr(outcome.exception)
    assert learned[-1] == 40 - 5 and "bad.png" in outcome.output and "rung       full" in outcome.output
    training = json.loads(Path(f"{out}.json").read_text())["training"]
    assert re.search(
        r"14 images with .*, 21 images judged by a teacher \(evidence.jsonl \(sha256 \w{12}", training["data"]
    )
    card = training["calibration"]
    assert card["labels"] == 14 and card["judged_images"] == 21
    assert leafiqa.create_metric(weights=f"{out}.safetensors", device="cpu").score_range == (1.0, 5.0)
    # Names that do not join: refused, with what to look at.
    outcome = CliRunner().invoke(cli, [*arguments, "--overwrite", "--evidence-images", str(tmp_path)])
    assert isinstance(outcome.exception, CalibrationError) and "relative to the folder" in str(outcome.exception)


def test_too_few_images_for_fine_tuning_are_said(folder, metric):
    rows = [Labelled(f"{i}.png", folder / f"{i}.png", 5 - i / 10) for i in range(0, 40, 3)]
    evidence = {folder / f"{i}.png": 0.8 - i / 60 for i in range(31)}
    result = calibrate_metric(metric, MosTable(rows, []), evidence=evidence)
    assert result.judged == 0 and result.choice.rung != "full"
    assert "at least 100 images with labels or evidence, got 34" in result.problems[-1]


def test_progress_of_one_training_after_another(monkeypatch, capsys):
    monkeypatch.setattr("leafiqa.cli.progress._LINE_SECONDS", -1)
    with progress("tuning", "steps") as tell:
        for step in (0, 1, 3, 0, 2):  # the second begins anew
            tell(step, 3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"tuning: {step} of 3 steps" for step in (0, 1, 3, 0, 2)]
