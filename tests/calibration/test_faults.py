"""Calibration: nothing leaks, nothing is replaced in silence, what it promises is measured on the same labels."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

import leafiqa
from leafiqa.calibration.calibrator import calibrate_metric
from leafiqa.calibration.cross_validation import (
    Choice,
    Labels,
    candidates,
    choose,
    clearly_better,
    expected,
    held_out_agreement,
)
from leafiqa.calibration.features import Extracted
from leafiqa.calibration.selection import choose_rows
from leafiqa.calibration.teacher_labels import gather
from leafiqa.evaluation.measures import agreement, spearman
from leafiqa.labels.mos_table import Labelled, MosTable, read_mos
from tests.conftest import invoke, make_picture, noisy_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures under falling amounts of noise, with MOS; every fourth belongs to another split."""
    place = tmp_path_factory.mktemp("calibration")
    lines, remarks = ["image,mos,split"], []
    for i in range(40):
        Image.fromarray(noisy_picture(i, 1.5 * i, 64, 64)).save(place / f"{i}.png")
        lines.append(f"{i}.png,{5 - i / 10},{'val' if i % 4 == 0 else 'train'}")
        remarks.append(json.dumps({"kind": "point", "image": f"{i}.png", "score": 80 - 1.5 * i, "scale": [0, 100]}))
    (place / "mos.csv").write_text("\n".join(lines) + "\n")
    (place / "evidence.jsonl").write_text("\n".join(remarks) + "\n")
    return place


def test_images_of_other_splits_are_not_learned_from_in_python_either(folder, metric, monkeypatch):
    extracted = []
    monkeypatch.setattr(
        "leafiqa.calibration.calibrator.gather",
        lambda metric, evidence, *rest, **how: (
            extracted.append(set(evidence)) or gather(metric, evidence, *rest, **how)
        ),
    )
    table = read_mos(folder / "mos.csv", split="train")
    everything = {(folder / f"{i}.png").resolve(): 0.5 for i in range(40)}
    calibrate_metric(metric, table, evidence=everything)
    leafiqa.calibrate(metric, folder / "mos.csv", split="train", evidence=folder / "evidence.jsonl")
    for images in extracted:
        assert {int(path.stem) for path in images} == {i for i in range(40) if i % 4}
    assert len(extracted) == 2


def test_the_command_line_makes_what_python_makes(folder, tmp_path, metric):
    mine = leafiqa.calibrate("leaf", folder / "mos.csv", scale=(1, 5), device="cpu")
    file = mine.save(tmp_path / "python" / "leaf_lite0.mine")
    arguments = ["--mos", folder / "mos.csv", "--scale", "1", "5", "-o", tmp_path / "line" / "leaf_lite0.mine"]
    done = invoke("calibrate", *arguments, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    cards = [json.loads((tmp_path / way / "leaf_lite0.mine.json").read_text()) for way in ("python", "line")]
    assert cards[0] == cards[1]
    told = done.stdout.splitlines()
    assert (
        told[1].startswith("rung ") and told[2].startswith("before     SRCC ") and told[3].startswith("expect     SRCC")
    )
    # What is not saved yet scores exactly as what is.
    paths = [folder / f"{i}.png" for i in range(5)]
    assert mine.metric(paths).tolist() == leafiqa.create_metric(weights=file, device="cpu")(paths).tolist()
    mos = np.array([5 - i / 10 for i in range(40)])
    own = metric([row.path for row in read_mos(folder / "mos.csv").rows]).numpy()
    assert mine.before.srcc == pytest.approx(spearman(own, mos), abs=1e-6)
    as_json = invoke("calibrate", *arguments, "--device", "cpu", "--overwrite", "--json")
    assert json.loads(as_json.stdout)["expected"] == json.loads(json.dumps(mine.to_dict()))["expected"]
    assert str(mine).splitlines() == told[1:-1]


def test_nothing_is_replaced_without_being_told_to(folder, tmp_path, metric):
    place = tmp_path / "leaf_lite0.mine"
    mine = leafiqa.calibrate(metric, folder / "mos.csv")
    file = mine.save(place)
    before = file.read_bytes()
    with pytest.raises(leafiqa.OutputError, match=r"exists already.*--overwrite"):
        mine.save(place)
    arguments = ["calibrate", "--mos", folder / "mos.csv", "-o", place, "--rung", "scale"]
    # Also not over the student that it starts from; and told so before the work.
    done = invoke(*arguments, "--weights", file)
    assert done.returncode == 2 and "exists already" in done.stderr and file.read_bytes() == before
    assert invoke(*arguments, "--weights", file, "--overwrite").returncode == 0
    for wrong, message in ((tmp_path, "is a folder"), (tmp_path / "mine", "must read arch.tag"), (3, "must be a path")):
        with pytest.raises(leafiqa.InputError, match=message):
            mine.save(wrong)


def test_arguments_that_are_none(folder, metric):
    for rungs in (("heads",), (), "scales", ("scale", "full")):
        with pytest.raises(leafiqa.InputError, match="rungs must be some of scale, head"):
            leafiqa.calibrate(metric, folder / "mos.csv", rungs=rungs)
    for scale in ((5, 1), (0, float("inf")), (1, 2, 3)):
        with pytest.raises(leafiqa.CalibrationError, match="two finite numbers that rise"):
            leafiqa.calibrate(metric, folder / "mos.csv", scale=scale)
    with pytest.raises(leafiqa.CalibrationError, match=r"10 lie\(s\) outside, 0\.png has 5"):
        leafiqa.calibrate(metric, folder / "mos.csv", scale=(0, 4))
    with pytest.raises(leafiqa.InputError, match="must be a name, a metric or a calibration"):
        leafiqa.calibrate(3, folder / "mos.csv")


def test_files_that_are_none_among_labels_and_evidence(folder, tmp_path, metric):
    """A dangling link or a pipe ended the command, or made it wait without end."""
    import os

    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    rows = [Labelled(f"{i}.png", folder / f"{i}.png", 5 - i / 10) for i in range(40)]
    rows += [Labelled(name, tmp_path / name, 3.0) for name in ("dangling.png", "pipe.png")]
    evidence = {row.path.absolute(): 0.5 for row in rows}
    result = calibrate_metric(metric, MosTable(rows[:12] + rows[-2:]), evidence=evidence)
    assert result.labels == 12 and sum("regular file" in p or "cannot read" in p for p in result.problems) >= 2
    chosen = leafiqa.select([tmp_path, *(folder / f"{i}.png" for i in range(5))], 2, metric)
    assert chosen.failed == 2 and len(chosen) == 2


def planted(n, groups, seed, noise=0.15, width=60):
    """Targets that the logits explain but for what images of a group have in common; features are noise alike."""
    rng = np.random.default_rng(seed)
    logits, names = rng.normal(0, 1, n), np.array([f"g{i % groups}" for i in range(n)])
    common = rng.normal(0, noise, groups)[np.arange(n) % groups]
    # Features of a group are alike, as those of one scene or prompt are, and say nothing of quality.
    features = rng.normal(0, 1, (groups, width))[np.arange(n) % groups] + 0.3 * rng.normal(0, 1, (n, width))
    targets = np.clip(expit(0.8 * logits) + common + rng.normal(0, 0.03, n), 0, 1)
    return Labels(logits, features, targets, np.ones(n), names)


def test_the_choice_of_rung_counts_groups_not_images():
    """With 20 groups of 10, features of noise were chosen in a third of the trials, with single images in an eighth."""
    chosen = sum(choose(planted(200, 20, seed), seed=seed).rung == "head" for seed in range(30))
    single = sum(choose(planted(200, 200, seed), seed=seed).rung == "head" for seed in range(30))
    assert chosen <= 7 and single <= 7
    better, worse = np.full(40, 0.1), np.full(40, 0.2)
    worse[:20] = 0.05  # better in one of two groups: no more than a coin
    groups = np.repeat(["a", "b"], 20)
    assert not clearly_better(better, worse, groups) and clearly_better(better, worse, np.arange(40).astype(str), 0.5)
    assert not clearly_better(better, worse, np.repeat("a", 40))


def test_the_head_alone_is_measured_as_the_head():
    """For 25 to 31 labels each held-out part had too few for the head, and the scale was measured instead."""
    rng = np.random.default_rng(0)
    n = 26
    features = rng.normal(0, 8, (n, 5))
    targets = expit(features[:, 0] / 4)  # which the logits know nothing of
    labels = Labels(rng.normal(0, 0.1, n), features, targets, np.ones(n), np.arange(n).astype(str))
    assert spearman(expected(labels, ("head",)).order, targets) > 0.6
    assert abs(spearman(expected(labels, ("scale",)).order, targets)) < 0.4
    assert all(choice.rung == "head" for choice in candidates(20, ("head",)))
    assert candidates(20, ("scale", "head")) == [Choice("scale")]


def test_the_scale_expects_what_the_student_has():
    """Folds were pooled once, so that a calibration that changes no order expected less than it began with."""
    before, promised = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 1, 20)
        targets = np.clip(expit(logits + rng.normal(0, 0.8, 20)), 0, 1)
        labels = Labels(logits, np.zeros((20, 3)), targets, np.ones(20), np.arange(20).astype(str))
        before.append(spearman(logits, targets))
        found = held_out_agreement(expected(labels, ("scale",), seed), labels, (1, 5))
        promised.append(found.srcc)
        assert found.rmse > 4 * np.std(expit(logits) - targets) * 0.5
    assert promised == pytest.approx(before, abs=1e-9)


def test_selected_labels_promise_what_all_images_show():
    """Two thirds of a selection are extremes, which any metric tells apart: weighted, they say what all images say."""
    naive, weighted, truth, covered = [], [], [], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 1, 400)
        mos = logits + rng.normal(0, 0.75, 400)
        extracted = Extracted(rng.normal(0, 1, (400, 8)), logits, np.arange(400), [])
        rows, stands_for = choose_rows(extracted, 50, seed=seed)
        truth.append(spearman(logits, mos))
        naive.append(spearman(logits[rows], mos[rows]))
        found = agreement(logits[rows], mos[rows], draws=200, seed=seed, weights=stands_for)
        weighted.append(found.srcc)
        covered += found.srcc_interval[0] <= truth[-1] <= found.srcc_interval[1]
    print(np.mean(naive), np.mean(weighted), np.mean(truth), covered)
    assert np.mean(naive) > np.mean(truth) + 0.04
    assert abs(np.mean(weighted) - np.mean(truth)) < 0.04
    assert covered >= 34  # nominally 38


def test_calibrate_weights_what_select_chose(folder, tmp_path, metric):
    chosen = leafiqa.select(folder, 24, metric)
    chosen.to_csv(tmp_path / "ratings.csv")
    lines = (tmp_path / "ratings.csv").read_text().splitlines()
    rated = [line.replace(",,", f",{5 - int(line.split('/')[-1].split('.')[0]) / 10},") for line in lines[1:]]
    (tmp_path / "ratings.csv").write_text("\n".join([lines[0], *rated]))
    rows = read_mos(tmp_path / "ratings.csv").rows
    assert (
        sum(row.stands_for for row in rows) == pytest.approx(40, rel=0.01) and len({row.stands_for for row in rows}) > 1
    )
    mine = leafiqa.calibrate(metric, tmp_path / "ratings.csv")
    assert "weighted to the images that they were selected from" in str(mine) and mine.weighted
    done = invoke("select", folder, "-n", "24", "-o", tmp_path / "line.csv")
    assert done.returncode == 0 and (tmp_path / "line.csv").read_text().splitlines()[0] == lines[0]
    assert sorted((tmp_path / "line.csv").read_text().splitlines()) == sorted(lines)


def test_names_that_are_not_utf8_survive_the_whole_way(tmp_path, metric):
    """`select` wrote such a name so that `eval` could not read its table."""
    import os

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        name = os.fsdecode(b"caf\xe9-%d.png" % i)
        noise = np.random.default_rng(i).normal(0, 4.0 * i, (64, 64, 3))
        Image.fromarray((make_picture(64, 64, 1) + noise).clip(0, 255).astype(np.uint8)).save(folder / name)
    assert invoke("select", folder, "-n", "12", "-o", tmp_path / "r.csv").returncode == 0
    text = (tmp_path / "r.csv").read_bytes()
    lines = text.splitlines()
    rated = [line.replace(b",,", b",%d," % (12 - int(line.split(b"-")[-1].split(b".")[0]))) for line in lines[1:]]
    (tmp_path / "r.csv").write_bytes(b"\n".join([lines[0], *rated]))
    assert len(read_mos(tmp_path / "r.csv").rows) == 12
    done = invoke("eval", "--mos", tmp_path / "r.csv", "--draws", "100", "--scores", tmp_path / "s.csv")
    assert done.returncode == 0, done.stderr
