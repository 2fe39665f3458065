"""The recipe: losses in closed form, evidence with faults, ladders, and a run that is killed and goes on."""

import copy
import csv
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kendalltau

import leafiqa
from leafiqa.distillation.checks import check_evidence
from leafiqa.distillation.config import read_config
from leafiqa.distillation.curves import plot_curves
from leafiqa.distillation.data import load, read_source
from leafiqa.distillation.exporting import _data, export
from leafiqa.distillation.run import distil
from leafiqa.distillation.start import architecture, begin, gate_is_new
from leafiqa.distillation.trainer import Trainer
from leafiqa.distillation.training_loop import read_checkpoint, save_atomically, train
from leafiqa.errors import EvidenceError, TrainingError
from leafiqa.model.checkpoint import save_student
from leafiqa.model.student import Student, pool_mean_std
from leafiqa.training.averaging import average_states, between
from leafiqa.training.batch_norm_folding import fold_batch_norm
from leafiqa.training.degradations.ladders import DEGRADATIONS, ladder
from leafiqa.training.degradations.nothing import null_image
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss
from leafiqa.training.processes import connect
from tests.conftest import make_picture


def test_point_loss_closed_form():
    targets, ones = torch.tensor([0.2, 0.7]), torch.ones(2)
    assert point_loss(targets, targets, ones) == 0
    # 0.05 off is quadratic: 0.05**2 / (2 * 0.1); 0.4 off is linear: 0.4 - 0.05
    assert point_loss(torch.tensor([0.25, 0.3]), targets, ones).item() == pytest.approx((0.0125 + 0.35) / 2, abs=1e-6)
    assert point_loss(torch.tensor([0.25, 0.3]), targets, torch.tensor([7.0, 0.0])).item() == pytest.approx(0.0125)
    assert point_loss(targets + 1, targets, torch.zeros(2)) == 0
    scores = torch.tensor([0.5, 0.5], requires_grad=True)
    point_loss(scores, targets, ones).backward()
    assert scores.grad[0] > 0 > scores.grad[1]


def test_fidelity_loss_closed_form():
    one = torch.ones(1)
    assert preference(torch.zeros(1), 0.1).item() == 0.5
    assert preference(torch.tensor([0.1 * math.sqrt(2)]), 0.1).item() == pytest.approx(0.841345, abs=1e-5)
    assert fidelity_loss(torch.zeros(1), torch.tensor([0.5]), one).item() == pytest.approx(0, abs=1e-6)
    # p = 1/2, g = 1: 1 - sqrt(1/2)
    assert fidelity_loss(torch.zeros(1), one, one).item() == pytest.approx(1 - math.sqrt(0.5), abs=1e-3)
    gap = torch.tensor([0.03, -0.2])
    weights = torch.tensor([1.0, 3.0])
    agree = fidelity_loss(gap, preference(gap, 0.1), weights, 0.1)
    assert agree.item() == pytest.approx(0, abs=1e-6)
    mirrored = fidelity_loss(-gap, torch.tensor([0.3, 0.9]), weights)
    assert fidelity_loss(gap, torch.tensor([0.7, 0.1]), weights).item() == pytest.approx(mirrored.item(), abs=1e-6)
    # Beside a usual weight of 0.5, pairs of weight 0.1 count a fifth; by themselves they count fully.
    little = torch.full((2,), 0.1)
    whole = fidelity_loss(gap, torch.tensor([0.7, 0.1]), little)
    assert fidelity_loss(gap, torch.tensor([0.7, 0.1]), little, 0.1, 0.5).item() == pytest.approx(whole.item() / 5)
    difference = torch.zeros(1, requires_grad=True)
    fidelity_loss(difference, torch.tensor([0.9]), one).backward()
    assert difference.grad < 0  # a larger difference is wanted


def test_pooling_is_finite_on_constant_features():
    features = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    pooled = pool_mean_std(features)
    assert pooled[0, :2].tolist() == [3, 3] and pooled[0, 2:].max() < 0.01
    pooled.sum().backward()
    assert features.grad.isfinite().all()
    wave = torch.tensor([1.0, -1.0]).repeat(8).reshape(1, 1, 4, 4)
    assert pool_mean_std(wave)[0].tolist() == pytest.approx([0, 1], abs=1e-4)


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_ladders_get_further_from_the_picture(name):
    picture = make_picture(128, 128)
    steps = ladder(picture, name, seed=3)
    assert len(steps) == 6 and all(step.shape == picture.shape and step.dtype == np.uint8 for step in steps)
    errors = [float(np.square(step.astype(float) - picture).mean()) for step in steps]
    assert errors[0] == 0 and errors == sorted(errors) and errors[1] > 0
    assert all((a == b).all() for a, b in zip(steps, ladder(picture, name, seed=3)))


def test_null_images_have_the_size_asked_for():
    rng = np.random.default_rng(0)
    assert {null_image(50, rng).shape for _ in range(40)} == {(50, 50, 3)}


@pytest.fixture
def small_run(tmp_path):
    """Config of a run small enough for a test, on images with evidence and a train/val table."""
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for index in range(10):
        Image.fromarray(make_picture(48, 48, seed=index)).save(images / f"{index}.png")
        lines.append(
            {"kind": "point", "image": f"{index}.png", "score": 10 * index, "scale": [0, 100], "confidence": 0.5}
        )
    (images / "8.png").write_bytes(b"broken")
    (tmp_path / "evidence.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("image", "split"), *((f"{i}.png", "val" if i == 9 else "train") for i in range(10))])
    torch.manual_seed(0)
    state = {k: v for k, v in Student().backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "imagenet.pth")
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
output = "{tmp_path}/out"
initial = "{tmp_path}/imagenet.pth"
area = 64
crop = 48
epochs = 3
batch = 4
ladders = 1
aspects = 0
warmup = 2
bf16 = false
[[sources]]
name = "test"
images = "{images}"
evidence = ["{tmp_path}/evidence.jsonl"]
table = "{tmp_path}/table.csv"
[card]
name = "leaf_lite0.test"
"""
    )
    return config


def test_only_train_images_that_can_be_read_are_used(small_run):
    data = load(read_config(small_run))
    assert data.targets.tolist() == pytest.approx([0.1 * i for i in range(8)])
    assert len(data.unreadable) == 1 and data.unreadable[0].startswith("8.png")


def test_a_file_that_was_replaced_since_it_was_judged_is_left_out(small_run):
    evidence = small_run.parent / "evidence.jsonl"
    lines = [json.loads(line) for line in evidence.read_text().splitlines()]
    for line in lines:
        line["sha256"] = hashlib.sha256((small_run.parent / "images" / line["image"]).read_bytes()).hexdigest()
    evidence.write_text("\n".join(map(json.dumps, lines)))
    Image.fromarray(make_picture(48, 48, seed=77)).save(small_run.parent / "images" / "3.png")
    data = load(read_config(small_run))
    assert data.targets.tolist() == pytest.approx([0.1 * i for i in range(8) if i != 3])
    assert [line.split(":")[0] for line in data.unreadable] == [
        "3.png",
        "8.png",
    ] and "sha256 differs" in data.unreadable[0]


def quietly(config):
    return train(config, connect(config.device), lambda line: None, lambda step, total: None)


def test_a_killed_run_ends_as_an_undisturbed_one(small_run, tmp_path):
    config = read_config(small_run)
    expected = quietly(config).state_dict()
    killed = replace(config, output=tmp_path / "killed")
    killed.output.mkdir()
    run = Trainer(killed, load(killed), connect("cpu"))
    for _ in range(3):
        run.advance()
    save_atomically({"config": killed.fingerprint(), **run.state()}, killed.output / "checkpoint.pt")
    # What the killed run had logged after its checkpoint is taken again, so it must not stand twice.
    (killed.output / "losses.csv").write_text("step,point\n2,0.5\n4,0.5\n5,0.")
    torch.manual_seed(99)  # another process starts elsewhere
    resumed = quietly(killed).state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    steps = [line.split(",")[0] for line in (killed.output / "losses.csv").read_text().splitlines()]
    assert steps == ["step", "2", "6"]
    initial = begin(config).student.state_dict()
    frozen, learned = "backbone.conv_stem.weight", "backbone.blocks.5.0.conv_pw.weight"
    assert torch.equal(expected[frozen], initial[frozen]) and not torch.equal(expected[learned], initial[learned])
    # Finished: the same command changes nothing.
    again = quietly(killed).state_dict()
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    with pytest.raises(EvidenceError, match=r"another config \(lr differ\)"):
        read_checkpoint(replace(killed, lr=1e-3))


@pytest.mark.parametrize("passes", [2, 5])
def test_passes_give_the_same_gradients(small_run, passes):
    config = read_config(small_run)
    data = load(config)
    gradients = []
    for number in (1, passes):
        run = Trainer(replace(config, passes=number), data, connect("cpu"))
        losses = run.losses()
        run.cache.backward(torch.stack(list(losses.values())).sum())
        gradients.append({name: p.grad for name, p in run.student.named_parameters() if p.requires_grad})
    whole, parts = gradients
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()), msg=name)
    assert any(name.startswith("backbone") and value.abs().max() > 0 for name, value in whole.items())


def test_a_run_may_go_on_with_other_passes(small_run):
    config = replace(read_config(small_run), epochs=1)
    quietly(config)
    assert read_checkpoint(replace(config, passes=3)) is not None


def on_two_processes(*arguments, code="from leafiqa.cli.main import main"):
    """Run leafiqa as `torchrun --nproc_per_node 2` does, over gloo; each process says how many there are.

    In double precision: Adam takes full steps also where a gradient is nothing but rounding, so that in single
    precision a batch computed in two parts ends a little elsewhere, whoever computes it.
    """
    program = (
        "import os, sys, torch; torch.set_default_dtype(torch.float64)\n"
        f"{code}; from leafiqa.training import processes as p\n"
        "made = p.SeveralProcesses.__init__\n"
        "def tell(self, device):\n"
        "    made(self, device); assert torch.distributed.get_backend() == 'gloo'\n"
        "    assert torch.distributed.get_world_size() == self.count == 2\n"
        "    os.write(1, f'rank {self.rank} of {self.count}\\n'.encode())\n"
        "p.SeveralProcesses.__init__ = tell\n"
        f"sys.argv = ['leafiqa', *{list(arguments)!r}]\n"
        "main()\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no_python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*torchrun, sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=environment
    )


def on_one_process(config):
    torch.set_default_dtype(torch.float64)
    try:
        return quietly(config).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)


def assert_same(found, expected, config):
    """Two runs ended with the same weights, to 1e-5, and learned something."""
    start = begin(config).student.state_dict()
    assert max(float((found[name] - start[name]).abs().max()) for name in start if "blocks.5" in name) > 1e-4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0, msg=name)


def test_ladders_of_a_step_are_where_they_say(small_run):
    """Each shows one image as it is and degraded, cut at one place; its own costs decide what its score should be."""
    pristine = small_run.parent / "pristine"
    pristine.mkdir()
    Image.fromarray(make_picture(90, 90, seed=5)).save(pristine / "a.png")
    config = replace(
        read_config(small_run), ladders=3, damage_weight=0.3, stored=96, pristine=pristine, pristine_holdout=0
    )
    data = load(config)
    assert {tuple(image.shape) for image in data.images} == {(3, 96, 96)}
    run = Trainer(config, data, connect("cpu"))
    batch = run.batches.draw(0)
    assert len(batch.ladders) == 4 and len(batch.pictures) == 4 + 3 * 2 + 3 + 1
    assert {tuple(picture.shape) for picture in batch.pictures} == {(3, 48, 48)}
    assert sorted(place for shown in batch.ladders for place in shown.places[1:]) == [4, 5, 6, 7, 8, 9, 11, 12]
    for shown in batch.ladders:
        assert shown.levels[0] == 0 < shown.levels[1] < shown.levels[2] <= 5
        if shown.image is not None:
            assert batch.chosen[shown.places[0]] == shown.image
        whole, mild, strong = (batch.pictures[place].float() for place in shown.places)
        assert 0 < (whole - strong).abs().mean() < 110 and not torch.equal(mild, strong)
    scores = torch.full((len(batch.pictures),), 0.4)
    for shown in batch.ladders:
        if shown.image is not None:
            left = 1 - DEGRADATIONS[shown.name].cost * shown.levels
            scores[list(shown.places)] = (data.targets[shown.image] * left).float()
    assert run._damage_loss(scores, batch) == pytest.approx(0, abs=1e-10)
    assert run._damage_loss(scores + 0.05, batch) == pytest.approx(0.0125, rel=1e-3)
    assert run._ladder_loss(-scores, batch) > run._ladder_loss(scores, batch)
    assert set(run.losses()) >= {"point", "pair", "ladder", "damage", "null"}


def test_a_single_new_reader_from_a_student_of_several(small_run):
    small_run.write_text(re.sub("initial = .*", 'initial = "leaf"\nexperts = 1', small_run.read_text()))
    config = read_config(small_run)
    start = begin(config)
    assert not start.trained_head and isinstance(start.student.head, torch.nn.Sequential)
    leaf = leafiqa.create_metric("leaf", device="cpu")
    known = leaf.student.backbone.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in start.student.backbone.state_dict().items())
    readers = leaf.card.architecture["experts"]
    with pytest.raises(EvidenceError, match=f"experts must be 0 or {readers}"):
        begin(replace(config, experts=readers - 1))


def test_two_processes_killed_and_resumed_end_as_one(small_run):
    pytest.importorskip("accelerate")
    small_run.write_text("keep_checkpoints = true\n" + small_run.read_text())
    config = read_config(small_run)
    expected = on_one_process(replace(config, output=small_run.parent / "one"))
    # Both die in the fourth step, as a machine does; a checkpoint is written in each.
    dies = (
        "import leafiqa.distillation.training_loop as t; t._CHECKPOINT_SECONDS = -1; "
        "from leafiqa.cli.main import main; "
        "from leafiqa.distillation.trainer import Trainer; advance = Trainer.advance; "
        "Trainer.advance = lambda self: os._exit(9) if self.step == 3 else advance(self)"
    )
    killed = on_two_processes("distill", str(small_run), code=dies)
    assert killed.returncode != 0 and (config.output / "checkpoint.pt").exists()
    assert not (config.output / "finished.json").exists()
    done = on_two_processes("distill", str(small_run))
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search("going on from step [123] of 6", done.stderr), done.stderr[-2000:]
    assert_same(torch.load(config.output / "epoch3.pt", weights_only=True), expected, config)


def test_two_processes_end_as_one(small_run):
    """Nine images a step on two processes: shares of five and four."""
    pytest.importorskip("accelerate")
    config = read_config(small_run)
    expected = on_one_process(replace(config, output=small_run.parent / "one"))
    small_run.write_text("keep_checkpoints = true\n" + small_run.read_text())
    done = on_two_processes("distill", str(small_run))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if not line.startswith("rank ")]
    assert sorted(set(done.stdout.splitlines()) - set(lines)) == ["rank 0 of 2", "rank 1 of 2"]
    assert len(lines) == 1 and lines[0].endswith("leaf_lite0.test.safetensors")  # once, by the first process
    found = torch.load(config.output / "epoch3.pt", weights_only=True)
    assert_same(found, expected, config)
    alone = np.genfromtxt(small_run.parent / "one" / "losses.csv", delimiter=",", names=True)
    shared = np.genfromtxt(config.output / "losses.csv", delimiter=",", names=True)
    assert shared["point"] == pytest.approx(alone["point"], rel=1e-3)


def test_export_is_loaded_by_create_metric(small_run, tmp_path):
    config = read_config(small_run)
    student = quietly(config)
    card = export(config, config.output / "epoch3.pt", tmp_path / "student")
    metric = leafiqa.create_metric(weights=tmp_path / "student", device="cpu")
    assert metric.metric_name == card.name == "leaf_lite0.test" and card.training["epochs_done"] == 3
    assert card.training["label_budget"] == "0 human scores" and str(tmp_path) not in card.to_json()
    picture = torch.from_numpy(make_picture(320, 320).copy()).permute(2, 0, 1)[None].float() / 255
    stored = student.half().float().eval()  # weights are stored in half precision
    assert metric(picture).item() == pytest.approx(stored(metric.preprocess.resize(picture)).sigmoid().item(), abs=1e-5)


def test_comparisons_alone_teach_a_student(small_run):
    """A planted order, told by pairs only, is learned; a single pair is enough to run."""
    names = [f"{i}.png" for i in range(8)]
    records = [
        {"kind": "pair", "images": [a, b], "first": 0.95 if a < b else 0.05} for a in names for b in names if a != b
    ]
    text = (
        small_run.read_text()
        .replace("epochs = 3", "epochs = 60\npairs = 6\nnull_weight = 0.0")
        .replace("ladders = 1", "ladders = 0")
    )
    small_run.write_text(text)
    evidence = small_run.parent / "evidence.jsonl"
    evidence.write_text("\n".join(map(json.dumps, records)))
    config = read_config(small_run)
    data = load(config)
    assert not data.targets.isfinite().any() and len(data.pairs) == 28 and len(data.unreadable) == 0
    student = quietly(config)
    with torch.no_grad():
        scores = student(torch.stack(data.images)[..., 8:56, 8:56].float() / 255).tolist()
    assert kendalltau(range(8), [-score for score in scores]).statistic > 0.8
    evidence.write_text(json.dumps(records[0]))
    quietly(replace(config, output=config.output / "single", epochs=1))
    with pytest.raises(EvidenceError, match="comparisons only"):
        load(replace(config, pairs=0))


def rewrite(config, records):
    (config.parent / "evidence.jsonl").write_text("\n".join(map(json.dumps, records)))


def point(number, score, confidence=0.5):
    return {"kind": "point", "image": f"{number}.png", "score": score, "scale": [0, 1], "confidence": confidence}


def compared(a, b, first):
    return {"kind": "pair", "images": [f"{a}.png", f"{b}.png"], "first": first}


def contradictory():
    """Each pair in both orders, the one shown first preferred without exception."""
    return [compared(a, b, 1.0) for a in range(4) for b in range(4) if a != b]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([point(i, 0.75) for i in range(6)], "all 6 scores are 0.75 and there are no compared pairs"),
        ([point(i, i / 10, 0.0) for i in range(6)], "none of the 6 scores and 0 compared pairs is believed"),
        (contradictory(), "none of the 0 scores and 6 compared pairs is believed"),
    ],
)
def test_evidence_that_teaches_nothing_is_refused_before_training(small_run, records, message):
    rewrite(small_run, records)
    config = read_config(small_run)
    with pytest.raises(EvidenceError, match=message):
        quietly(config)
    assert not (config.output / "checkpoint.pt").exists()


def test_doubtful_evidence_is_used_and_counted(small_run):
    rewrite(small_run, [*(point(i, 0.75) for i in range(6)), compared(0, 1, 0.9), compared(1, 0, 0.2)])
    config = read_config(small_run)
    first = small_run.parent / "images" / "0.png"
    (small_run.parent / "images" / "5.png").write_bytes(first.read_bytes())
    assert check_evidence(load(config), config) == [
        "all 6 scores are 0.75: only the compared pairs tell an order",
        "6 images are few: below 20 the student stays about where it began",
        "1 of 6 images are copies of others: each counts on its own",
    ]
    rewrite(small_run, [*contradictory(), point(0, 0.2), point(1, 0.9)])
    remarks = check_evidence(load(config), config)
    assert remarks[0] == (
        "6 of 6 compared pairs are undecided, contradicted or not believed (reliability below 0.05): they hardly count"
    )
    assert check_evidence(load(config), replace(config, reliability_power=0.0)) == remarks[1:]
    rewrite(small_run, [point(f"no/{i}", i / 10) for i in range(6)])
    with pytest.raises(EvidenceError, match="no usable evidence on its train images; do names in evidence"):
        load(config)
    untabled = replace(config, sources=(replace(config.sources[0], table=None),))
    with pytest.raises(EvidenceError, match=r"no image with evidence could be read.*names are relative to"):
        load(untabled)


def test_a_run_does_not_go_on_with_other_evidence(small_run):
    config = read_config(small_run)
    quietly(config)
    evidence = small_run.parent / "evidence.jsonl"
    before = evidence.read_text()
    evidence.write_text(before + "\n" + json.dumps(point(2, 0.9)))
    with pytest.raises(EvidenceError, match="is of a run on other evidence or images"):
        quietly(config)
    evidence.write_text(before)
    picture = small_run.parent / "images" / "3.png"
    kept = picture.read_bytes()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(picture)  # other pixels under the same name, no sha256 recorded
    with pytest.raises(EvidenceError, match="is of a run on other evidence or images"):
        quietly(config)
    picture.write_bytes(kept)
    quietly(config)
    picture.unlink()
    with pytest.raises(EvidenceError, match="is of a run on other evidence or images"):
        quietly(config)


def test_an_epoch_is_a_pass_over_all_evidence_and_a_short_run_warms_up(small_run):
    pairs = [compared(a, b, 0.8) for a in range(6) for b in range(a + 1, 6)]
    rewrite(small_run, [*(point(i, i / 10) for i in range(6)), *pairs])
    config = replace(read_config(small_run), pairs=2, warmup=80)
    run = Trainer(config, load(config), connect("cpu"))
    assert run.steps_per_epoch == 15 // 2 and run.total == 21 and run.optimisation.warmup == 4
    shown = []
    for run.optimisation.step in range(7):
        shown.append(run.batches.draw(run.step).chosen.tolist())
    # Each image once in an epoch, spread over its steps.
    assert sorted(i for part in shown for i in part) == list(range(6)) and max(map(len, shown)) == 1
    run = Trainer(replace(config, pairs=0), load(replace(config, pairs=0)), connect("cpu"))
    assert run.steps_per_epoch == 1 and len(run.batches.draw(0).chosen) == config.batch


def test_scores_and_pairs_share_the_weight_by_number_and_trust(small_run):
    # A teacher that prefers the first image shown, nearly always: its pairs pull as little as they are believed.
    biased = [compared(a, b, 0.94 + 0.001 * (a < b)) for a in range(6) for b in range(6) if a != b]
    rewrite(small_run, [*(point(i, i / 10, 0.5) for i in range(6)), *biased])
    config = replace(read_config(small_run), pairs=4)
    run = Trainer(config, load(config), connect("cpu"))
    assert run.factors["compared"] == pytest.approx(run.pair_trust.sum().item() / (3 + run.pair_trust.sum().item()))
    assert run.factors["compared"] < 0.01
    # Without scores they are all there is, and count fully.
    rewrite(small_run, [compared(a, b, 0.8 + 0.1 * (a < b)) for a in range(6) for b in range(6) if a != b])
    assert Trainer(config, load(config), connect("cpu")).factors["compared"] == pytest.approx(1)
    # One good comparison beside two doubtful scores, and beside many scores.
    rewrite(small_run, [point(0, 0.1, 0.1), point(1, 0.9, 0.1), compared(0, 1, 0.01), compared(1, 0, 0.99)])
    run = Trainer(config, load(config), connect("cpu"))
    assert run.factors["compared"] == pytest.approx(0.98 / 1.18, abs=0.02)
    assert run.factors["point"] == pytest.approx(1 - run.factors["compared"])
    rewrite(small_run, [*(point(i, i / 10) for i in range(8)), compared(0, 7, 0.01)])
    run = Trainer(config, load(config), connect("cpu"))
    assert run.factors["compared"] == pytest.approx(0.98 / (8 * 0.5 + 0.98), abs=0.01)


def test_few_scores_beside_many_comparisons_count_as_many_as_they_are(small_run):
    """A step that shows one of them makes up for the steps that show none."""
    pairs = [compared(a, b, 0.8) for a in range(6) for b in range(a + 1, 6)]
    rewrite(small_run, [point(0, 0.1), point(5, 0.9), *pairs])
    config = replace(read_config(small_run), pairs=2)
    run = Trainer(config, load(config), connect("cpu"))
    assert run.steps_per_epoch == 15 // 2 and 0 < run.factors["compared"] < 1
    assert run.factors["point"] == pytest.approx((1 - run.factors["compared"]) * 7 / 2)
    counts = []
    for run.optimisation.step in range(7):
        counts.append(len(run.batches.draw(run.step).chosen))
    mean = sum(run.factors["point"] * (count > 0) for count in counts) / len(counts)
    assert mean == pytest.approx(1 - run.factors["compared"])


def test_learning_rates_are_gentler_from_a_student(small_run):
    config = read_config(small_run)
    assert config.rates == (1.5e-4, 1e-3)
    assert replace(config, initial="leaf").rates == (5e-5, 3e-4)
    assert replace(config, initial="leaf", lr=2e-4).rates == (2e-4, 3e-4)
    run = Trainer(config, load(config), connect("cpu"))
    run.advance()
    # The first of two steps of warm-up, at the beginning of the decay.
    warm = 1 / run.optimisation.warmup
    assert run.optimisation.rates == pytest.approx((1.5e-4 * warm, 1e-3 * warm))


def test_curves_have_a_column_for_each_loss_from_the_beginning(small_run):
    """Few scores beside many comparisons: their loss comes later than the others."""
    pairs = [compared(a, b, 0.8) for a in range(6) for b in range(a + 1, 6)] * 3
    rewrite(small_run, [point(0, 0.1), point(1, 0.9), *pairs])
    config = replace(read_config(small_run), pairs=1, epochs=2)
    quietly(config)
    with (config.output / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "point", "pair", "compared", "ladder", "null"]
    assert all(None not in row and None not in row.values() for row in rows)
    assert plot_curves(config.output / "losses.csv", config.output / "losses.png")


def test_in_python_as_on_the_command_line(small_run, tmp_path):
    """One call from a config made in Python to a student with its card; who judged stands on it."""
    records = [{**point(i, i / 10), "teacher": "a-model", **({"rater": f"r{i}"} if i < 3 else {})} for i in range(6)]
    rewrite(small_run, records)
    config = replace(read_config(small_run), epochs=1, card={})
    lines = []
    made = distil(config, log=lines.append)
    card = made.card
    assert card.name == f"leaf_{config.backbone}.{config.output.name}" and "6 images" in lines[0]
    assert leafiqa.create_metric(weights=config.output / f"{card.name}.safetensors").card == card
    assert card.teacher == {"judged_by": {"a-model": 6}}
    assert card.training["label_budget"] == "ratings by 3 people are among the evidence"
    assert re.fullmatch(
        r"test: 6 images with scores, 0 comparisons, of evidence.jsonl \(sha256 [0-9a-f]{12}, 6 by a-model\)",
        card.training["data"],
    )
    with pytest.raises(EvidenceError, match=r"\[card\] has unknown fields \['licenses'\]"):
        replace(config, card={"licenses": {}})
    with pytest.raises(EvidenceError, match=r"limitations in \[card\] must be a list, got 'none'"):
        replace(config, card={"limitations": "none"})
    with pytest.raises(EvidenceError, match="backbone 'resnet17' is no timm network"):
        distil(replace(config, backbone="resnet17", initial="timm", output=tmp_path / "none"))


def test_a_card_cites_the_evidence_that_put_all_on_one_scale(small_run):
    rewrite(small_run, [point(i, i / 10) for i in range(6)])
    config = read_config(small_run)
    evidence = [read_source(config, source).evidence for source in config.sources]
    shared = config.sources[0].evidence[0]
    assert "common scale" not in _data(config, evidence)
    told = _data(replace(config, common=(shared,)), evidence)
    assert re.search(r"; on the common scale of evidence.jsonl \(sha256 [0-9a-f]{12}", told)


def test_points_of_a_source_weigh_what_its_config_says(small_run):
    """Without weight they are left to the pair-wise loss; beside another source only their ratio matters."""
    text = small_run.read_text()
    small_run.write_text(text.replace("[[sources]]", "[[sources]]\npoint_weight = 0"))
    config = read_config(small_run)
    losses = Trainer(config, load(config), connect("cpu")).losses()
    assert losses["point"].item() == 0 and losses["pair"].item() > 0
    small_run.write_text(text.replace("[[sources]]", "[[sources]]\npoint_weight = -1"))
    with pytest.raises(EvidenceError, match="point_weight of source 'test' must be a number from 0 on, got -1"):
        read_config(small_run)


def test_a_bad_photograph_among_the_pristine_costs_its_ladders_only(small_run):
    folder = small_run.parent / "pristine"
    folder.mkdir()
    (folder / "bad.png").write_bytes(b"nothing")
    deep = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    config = replace(read_config(small_run), pristine=folder, pristine_holdout=0)
    data = load(config)
    assert sum(line.startswith("bad.png: ") for line in data.unreadable) == 1
    assert len(data.pristine) == 1
    assert data.pristine[0].float().mean() == pytest.approx(127, abs=5)  # sixteen bits are not cut off to two greys


def test_a_card_tells_what_its_beginning_has_seen(small_run, tmp_path):
    small_run.write_text(re.sub("initial = .*", 'initial = "leaf_lite0.photo-10"', small_run.read_text()))
    config = replace(read_config(small_run), epochs=1)
    quietly(config)
    card = export(config, config.output / "epoch1.pt", tmp_path / "student")
    begun = leafiqa.create_metric("leaf_lite0.photo-10").card
    assert (
        card.training["label_budget"] == begun.training["label_budget"] and "260 human" in card.training["label_budget"]
    )
    assert card.training["initial_training"]["student"] == f"{begun.name} {begun.short_hash}"
    assert card.training["initial_training"]["calibration"]["labels"] == 260
    assert card.training["initial_training"]["teacher"] == begun.teacher and card.teacher == {}


def test_a_student_of_leafiqa_can_be_the_start(small_run):
    small_run.write_text(re.sub("initial = .*", 'initial = "leaf"', small_run.read_text()))
    config = read_config(small_run)
    start = begin(config)
    known = leafiqa.create_metric("leaf").student.state_dict()
    assert start.trained_head and all(
        torch.equal(value, known[name]) for name, value in start.student.state_dict().items()
    )
    quietly(replace(config, epochs=1))
    assert (config.output / "epoch1.pt").exists()
    with pytest.raises(EvidenceError, match="make them the same"):
        begin(replace(config, backbone="resnet18"))


def test_a_run_trains_one_backbone(small_run, tmp_path):
    names, stages = ["resnet10t", "tf_efficientnet_lite0"], (1, 2)
    card = leafiqa.create_metric("leaf").card
    fields = {name: getattr(card, name) for name in ("preprocess", "score")}
    fields |= {"name": "pair.mine", "architecture": {"backbone": names, "stages": list(stages), "hidden": 16}}
    save_student(Student(tuple(names), stages, 16), tmp_path, fields)
    config = replace(read_config(small_run), initial=str(tmp_path / "pair.mine.safetensors"))
    with pytest.raises(
        EvidenceError, match="several backbones, resnet10t, tf_efficientnet_lite0, and a run trains one"
    ):
        begin(config)


def test_experts_begin_as_copies_of_the_one_reader(small_run):
    config = replace(read_config(small_run), epochs=1)
    quietly(config)
    export(config, config.output / "epoch1.pt", config.output)
    known = leafiqa.create_metric(weights=config.output, device="cpu").student
    config = replace(config, initial=str(config.output), experts=3)
    grown = begin(config).student.eval()
    assert len(grown.head.experts) == 3
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grown(images), known(images), atol=1e-4, rtol=1e-4)
    assert gate_is_new(config) and not gate_is_new(replace(config, experts=0))


def test_a_gate_learns_to_tell_sources_apart(small_run):
    """Two sources, one of red and one of blue pictures, each with its own reader."""
    folder = small_run.parent
    config = read_config(small_run)
    sources = []
    for number, colour in enumerate([(200, 40, 40), (40, 40, 200)]):
        (folder / f"set{number}").mkdir()
        lines = []
        for i in range(8):
            Image.new("RGB", (64, 64), colour).save(folder / f"set{number}" / f"{i}.png")
            lines.append(json.dumps({"kind": "point", "image": f"{i}.png", "score": 10 * i, "scale": [0, 100]}))
        (folder / f"set{number}.jsonl").write_text("\n".join(lines))
        evidence = (folder / f"set{number}.jsonl",)
        sources.append(replace(config.sources[0], name=str(number), images=folder / f"set{number}", evidence=evidence))
    config = replace(config, sources=tuple(sources), experts=2, ladders=0, epochs=20, output=folder / "gated")
    student = quietly(config)
    pictures = torch.tensor([[200.0, 40, 40], [40, 40, 200]])[:, :, None, None].expand(2, 3, 48, 48) / 255
    with torch.no_grad():
        gate = student.head.gate(student.standardise(student.features(pictures))).softmax(1)
    assert gate[0, 0] > 0.7 and gate[1, 1] > 0.7
    card = export(config, config.output / "epoch20.pt", config.output)
    assert card.architecture["experts"] == 2
    metric = leafiqa.create_metric(weights=config.output, device="cpu")
    torch.testing.assert_close(metric.student.head.gate.weight, student.head.gate.weight, atol=1e-3, rtol=1e-3)
    # Students that have a gate keep it.
    later = replace(config, initial=str(config.output), experts=0, output=folder / "later", epochs=1)
    assert not gate_is_new(later)
    assert torch.equal(begin(later).student.head.gate.weight, metric.student.head.gate.weight)
    with pytest.raises(EvidenceError, match="experts must be 0 or 2"):
        begin(replace(later, experts=3))


def test_scales_of_sources_are_reconciled(small_run):
    """The same images under a strict and a lenient teacher end on one scale, in the order each gave them."""
    folder = small_run.parent
    config = read_config(small_run)
    sources = []
    for name, power in (("strict", 3.0), ("lenient", 0.3)):
        lines = [
            {"kind": "point", "image": f"{i}.png", "score": (i / 9) ** power, "scale": [0, 1]}
            for i in range(10)
            if i != 8
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        sources.append(replace(config.sources[0], name=name, evidence=(folder / f"{name}.jsonl",), table=None))
    config = replace(config, sources=tuple(sources), initial="leaf", reconcile=True, epochs=1)
    data = load(config)
    before = (data.targets[:9] - data.targets[9:]).abs().mean()
    run = Trainer(config, data, connect("cpu"))
    after = (run.data.targets[:9] - run.data.targets[9:]).abs().mean()
    assert after < 0.4 * before
    for part in (slice(0, 9), slice(9, 18)):
        assert run.data.targets[part].diff().min() >= 0 and data.targets[part].diff().min() >= 0
    # A resumed run keeps the scales that it began with.
    resumed = Trainer(config, data, connect("cpu"), {"config": config.fingerprint(), **run.state()})
    assert torch.equal(resumed.data.targets, run.data.targets)
    with pytest.raises(EvidenceError, match="reconcile needs an initial student"):
        small_run.write_text("reconcile = true\n" + small_run.read_text())
        read_config(small_run)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto"])
def test_other_backbones(small_run, backbone):
    config = replace(
        read_config(small_run), backbone=backbone, epochs=1, freeze=1, initial=f"{small_run.parent}/other.pth"
    )
    torch.manual_seed(0)
    torch.save(Student(**architecture(config)).backbone.state_dict(), config.initial)
    quietly(config)
    card = export(config, config.output / "epoch1.pt", config.output)
    metric = leafiqa.create_metric(weights=config.output, device="cpu")
    assert metric.preprocess.mean == (0.485, 0.456, 0.406) and 0 < metric(make_picture()).item() < 1
    assert len(card.architecture["stages"]) == 4
    with pytest.raises(TrainingError, match="freeze must be less than the 4 blocks"):
        quietly(replace(config, freeze=9, output=config.output / "frozen"))


def test_initial_weights_that_do_not_fit(small_run, tmp_path):
    config = read_config(small_run)
    for content, message in [({"a": torch.zeros(3)}, "holds 1 tensors"), ({}, "holds 0 tensors")]:
        torch.save(content, tmp_path / "wrong.pth")
        with pytest.raises(EvidenceError, match=message):
            begin(replace(config, initial=str(tmp_path / "wrong.pth")))
    (tmp_path / "wrong.pth").write_bytes(b"nonsense")
    for path in ("wrong.pth", "none.pth"):
        with pytest.raises(EvidenceError, match="cannot read"):
            begin(replace(config, initial=str(tmp_path / path)))


def test_frozen_statistics_make_training_independent_of_company():
    torch.manual_seed(0)
    student = Student(dropout=0.0).train()
    images = torch.rand(3, 3, 64, 64)
    together = student(images)
    alone = torch.cat([student(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_config_errors(small_run, tmp_path):
    text = small_run.read_text()
    small_run.write_text("epoch = 3\n" + text)
    with pytest.raises(EvidenceError, match=r"unknown fields \['epoch'\]"):
        read_config(small_run)
    small_run.write_text("epochs = 3")
    with pytest.raises(EvidenceError, match="lacks"):
        read_config(small_run)
    with pytest.raises(EvidenceError, match="cannot read"):
        read_config(tmp_path / "missing.toml")
    for change, message in [
        ("epochs = 'three'", "epochs must be a int"),
        ("epochs = 0", "epochs must be a number from 1 on"),
        ("crop = 640", "crop 640 must not exceed area 64"),
        ("ema = 1.5", "ema must be from 0 to below 1"),
        ("lr = nan", "lr must be a number"),
        ("seed = -1", "seed must be a number from 0"),
        ("reliability_power = -1.0", "reliability_power must be a number from 0"),
        ("pristine = 'nowhere'", "pristine must be a folder"),
    ]:
        key = change.split()[0]
        small_run.write_text(change + "\n" + re.sub(rf"(?m)^{key} = .*\n", "", text))
        with pytest.raises(EvidenceError, match=message):
            read_config(small_run)
    small_run.write_text(text.replace(f'evidence = ["{tmp_path}/evidence.jsonl"]', 'evidence = "evidence.jsonl"'))
    with pytest.raises(EvidenceError, match="evidence must be a list of files"):
        read_config(small_run)
    small_run.write_text(text)
    table = tmp_path / "table.csv"
    table.write_text("\ufeff" + table.read_text(), encoding="utf-8")  # as spreadsheets write it
    assert len(load(read_config(small_run)).images) == 8
    written = table.read_text(encoding="utf-8-sig")
    table.write_text(re.sub("^.*image,", "Image ,", written).replace("split", " Split", 1))
    assert len(load(read_config(small_run)).images) == 8
    table.write_text("name,part\n0.png,train\n")
    with pytest.raises(EvidenceError, match="must have rows with columns image and split"):
        load(read_config(small_run))


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet18"])
def test_folded_batch_norm_is_the_same_function_with_the_same_gradients(backbone):
    torch.manual_seed(0)
    plain = Student(backbone).backbone.double().eval()
    for norm in (m for m in plain.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
    folded, images = copy.deepcopy(plain), torch.rand(2, 3, 96, 96).double()
    before = list(folded.state_dict())
    assert fold_batch_norm(folded, images) >= 20 and list(folded.state_dict()) == before
    totals = [sum(feature.square().mean() for feature in model(images)) for model in (plain, folded)]
    for total in totals:
        total.backward()
    assert totals[0].item() == pytest.approx(totals[1].item(), rel=1e-10)
    for expected, found in zip(plain.parameters(), folded.parameters()):
        torch.testing.assert_close(expected.grad, found.grad, rtol=1e-6, atol=1e-10)


def test_average_of_states():
    first, second = (
        {"a": torch.tensor([1.0, 3.0]), "n": torch.tensor(5)},
        {"a": torch.tensor([2.0, 5.0]), "n": torch.tensor(9)},
    )
    mean = average_states([first, second])
    assert mean["a"].tolist() == [1.5, 4.0] and mean["n"] == 5
    for wrong, message in [
        ([], "nothing to average"),
        ([first, {"a": torch.zeros(3), "n": first["n"]}], "one architecture"),
    ]:
        with pytest.raises(TrainingError, match=message):
            average_states(wrong)


def test_a_part_of_the_way_between_states():
    start, end = {"a": torch.tensor([1.0, 3.0]), "n": torch.tensor(5)}, {"a": torch.tensor([2.0, 5.0])}
    end = {**end, "n": torch.tensor(9), "new": torch.tensor([4.0])}
    state = between(start, end, 0.25)
    assert state["a"].tolist() == [1.25, 3.5] and state["n"] == 9 and state["new"].tolist() == [1.0]
    with pytest.raises(TrainingError, match="one architecture"):
        between({"a": torch.zeros(1)}, end, 0.25)
