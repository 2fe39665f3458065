"""Distillation: nothing broken is saved, nothing replaced is learned from, and what it did is measured."""

import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import leafiqa
from leafiqa.distillation.config import Config, Source, read_config
from leafiqa.distillation.data import load, pristine_paths, read_source
from leafiqa.distillation.exporting import student_name
from leafiqa.distillation.run import distil
from leafiqa.distillation.second_opinions import collect_second_opinions, opinion_path, opinions_folder
from leafiqa.distillation.trainer import Trainer
from leafiqa.errors import EvidenceError, OutputError, TrainingError, WeightsError
from leafiqa.model.checkpoint import load_student, pack_student, save_student, unpack_student
from leafiqa.model.places import resolve
from leafiqa.training.processes import connect
from tests.conftest import invoke, make_picture, noisy_picture
from tests.distillation.test_distillation import compared, point, quietly, rewrite, small_run  # noqa: F401


def test_one_score_beside_comparisons_trains_or_is_refused_but_makes_no_student_of_nan(small_run):  # noqa: F811
    """The standard deviation of the one scored image was NaN, and a student of NaNs was saved with a valid card."""
    rewrite(small_run, [point(0, 0.4), *(compared(a, b, 0.9) for a in range(4) for b in range(a + 1, 4))])
    made = distil(replace(read_config(small_run), epochs=1))
    assert 0 < made.metric(make_picture()).item() < 1
    assert all(value.isfinite().all() for value in made.metric.student.state_dict().values())
    rewrite(small_run, [point(0, 0.4)])
    with pytest.raises(EvidenceError, match="at least two"):
        quietly(replace(read_config(small_run), output=small_run.parent / "alone"))


def test_nothing_that_is_not_finite_is_saved_or_loaded(tmp_path, metric):
    file, card = resolve("leaf")
    fields = {name: getattr(card, name) for name in card.__dataclass_fields__ if name != "sha256"}
    for value in (float("nan"), float("inf")):
        student = load_student(file, card)
        student.head.gate.bias.data[0] = value
        with pytest.raises(WeightsError, match="holds NaN or infinity, so its training has failed"):
            save_student(student, tmp_path / "student", fields)
    assert not (tmp_path / "student").exists()
    from safetensors.torch import load, save

    broken = load(file.read_bytes())
    broken["head.gate.bias"] = torch.full_like(broken["head.gate.bias"], float("nan"))
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        unpack_student(save(broken), card, "it")


def test_what_half_precision_cannot_hold_stays_whole():
    file, card = resolve("leaf")
    student = load_student(file, card)
    norm = next(m for m in student.backbone.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))
    norm.running_var.data[0] = 1e6
    fields = {name: getattr(card, name) for name in card.__dataclass_fields__ if name != "sha256"}
    content, packed = pack_student(student, fields)
    found = unpack_student(content, packed, "it").state_dict()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_training_that_diverges_ends_with_the_reason(small_run):  # noqa: F811
    config = read_config(small_run)
    run = Trainer(config, load(config), connect("cpu"))
    losses = run.losses
    run.losses = lambda: {name: value * float("nan") for name, value in losses().items()}
    with pytest.raises(TrainingError, match=r"failed in step 1 of 6: its gradients are nan\. Lower learning rates"):
        run.advance()
    with pytest.raises(leafiqa.LeafiqaError):
        raise TrainingError("a training error is one of leafiqa's")


def test_random_numbers_of_the_caller_are_left_alone(small_run):  # noqa: F811
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(5)
    np.random.seed(5)
    leafiqa.distill(replace(read_config(small_run), epochs=1))
    assert torch.equal(torch.rand(2), expected[0]) and (np.random.rand(2) == expected[1]).all()


def test_str_is_as_good_as_path_and_wrong_fields_are_named_early(small_run):  # noqa: F811
    folder = str(small_run.parent)
    config = Config(
        sources=[Source("s", f"{folder}/images", f"{folder}/evidence.jsonl")],
        output=f"{folder}/as str",
        initial=f"{folder}/imagenet.pth",
        area=64,
        crop=48,
        epochs=1,
    )
    assert config.sources[0].evidence == (small_run.parent / "evidence.jsonl",)
    assert student_name(config) == "leaf_tf_efficientnet_lite0.as-str"  # a blank in the folder's name is no matter
    assert distil(config).path.name == "leaf_tf_efficientnet_lite0.as-str.safetensors"
    text = small_run.read_text()
    for change, message in [
        ("output = 5", "output must be a folder, got 5"),
        ('output = "{f}/table.csv"', "is a file"),
        ('sources = "x"', "sources must be tables"),
        ("holdout = 0.9", "holdout must be a share from 0 to 0.5"),
        ('initial = "no such"', "unknown model 'no such'"),
    ]:
        key = change.split()[0]
        lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
        if key == "sources":
            lines = lines[: lines.index("[[sources]]")]
        small_run.write_text("\n".join([change.replace("{f}", folder), *lines]))
        with pytest.raises(leafiqa.LeafiqaError, match=message):
            leafiqa.distill(small_run)
    for content, message in [(b'output = "caf\xe9"\n', "is not UTF-8: save it"), (b"\xff\xfeo", "damaged UTF-16")]:
        small_run.write_bytes(content)
        done = invoke("distill", small_run)
        assert done.returncode == 2 and message in done.stderr
    small_run.write_text(text, encoding="utf-16")
    assert read_config(small_run).epochs == 3


def test_the_config_is_checked_before_any_image_is_loaded(small_run, monkeypatch):  # noqa: F811
    config = read_config(small_run)
    monkeypatch.setattr("leafiqa.distillation.training_loop.load", lambda *_: pytest.fail("loaded"))
    readers = leafiqa.create_metric("leaf", device="cpu").card.architecture["experts"]
    for wrong, message in [
        ({"freeze": 99}, "freeze must be less than"),
        ({"initial": "./none.pth"}, "cannot read"),
        ({"backbone": "resnet17", "initial": "timm"}, "no timm network"),
        ({"initial": "leaf", "experts": readers + 1}, f"experts must be 0 or {readers}"),
        ({"card": {"name": "a b"}}, "must read arch.tag"),
    ]:
        with pytest.raises(leafiqa.LeafiqaError, match=message):
            distil(replace(config, **wrong))
    config.output.mkdir()
    (config.output / "leaf_lite0.test.json").write_text("{}")
    with pytest.raises(OutputError, match="exists already"):
        distil(config)


def test_a_finished_run_says_so_without_loading(small_run, monkeypatch):  # noqa: F811
    config = replace(read_config(small_run), epochs=1)
    made = distil(config)
    assert not list(config.output.glob("*.pt"))  # a hundred megabytes of checkpoints are of no more use
    assert {path.name for path in config.output.iterdir()} >= {"losses.csv", "finished.json"}
    monkeypatch.setattr("leafiqa.distillation.training_loop.load", lambda *_: pytest.fail("loaded"))
    lines = []
    again = distil(config, log=lines.append)
    assert lines == ["finished already, on this evidence and config"]
    assert again.to_dict() == made.to_dict() and again.card == made.card
    with pytest.raises(OutputError, match="exists already"):  # another run's student is not replaced
        distil(replace(config, seed=1))
    monkeypatch.undo()
    other = distil(replace(config, seed=1), overwrite=True)
    assert other.card.sha256 != made.card.sha256


def test_agreement_is_measured_on_what_was_held_out(small_run):  # noqa: F811
    folder = small_run.parent / "many"
    folder.mkdir()
    records = []
    for i in range(60):
        Image.fromarray(noisy_picture(i, 1.5 * i, 48, 48)).save(folder / f"{i}.png")
        records.append(json.dumps({"kind": "point", "image": f"{i}.png", "score": 1 - i / 60, "scale": [0, 1]}))
    (small_run.parent / "many.jsonl").write_text("\n".join(records))
    source = Source("many", folder, small_run.parent / "many.jsonl")
    config = Config((source,), small_run.parent / "measured", area=64, crop=48, look=64, epochs=1, holdout=0.2)
    of = read_source(config, source)
    assert len(of.held_out) == 12 and len(of.evidence.points) == 48 and not set(of.held_out) & set(of.evidence.points)
    assert of.held_out["3.png" if "3.png" in of.held_out else next(iter(of.held_out))] <= 1
    made = distil(config)
    assert made.before["many"].n == made.after["many"].n == 12 and made.after["many"].srcc > 0.5
    assert "before  n=12, SRCC" in str(made) and "after   n=12, SRCC" in str(made)
    metric = made.metric
    scores = metric([folder / name for name in of.held_out]).numpy()
    from leafiqa.evaluation.measures import spearman

    assert made.after["many"].srcc == pytest.approx(spearman(scores, np.array(list(of.held_out.values()))), abs=1e-6)
    # A table's other splits serve without taking anything from training.
    table = small_run.parent / "t.csv"
    table.write_text("image,split\n" + "".join(f"{i}.png,{'val' if i % 3 == 0 else 'train'}\n" for i in range(60)))
    tabled = read_source(config, replace(source, table=table))
    assert len(tabled.held_out) == 20 and len(tabled.evidence.points) == 40
    assert not read_source(replace(config, holdout=0.0), source).held_out


def second_opinions(config):
    folder = opinions_folder(config)
    last = collect_second_opinions(config, connect("cpu"), lambda line: None, lambda step, total: None)
    return folder, last


def with_hashes(config_file):
    evidence = config_file.parent / "evidence.jsonl"
    lines = [json.loads(line) for line in evidence.read_text().splitlines()]
    for line in lines:
        content = (config_file.parent / "images" / line["image"]).read_bytes()
        line["sha256"] = hashlib.sha256(content).hexdigest()
    evidence.write_text("\n".join(map(json.dumps, lines)))


def test_second_opinions_follow_the_files(small_run):  # noqa: F811
    """They learned from files that were replaced since they were judged, and lost files that had moved."""
    with_hashes(small_run)
    images = small_run.parent / "images"
    small_run.write_text(small_run.read_text().replace(f'table = "{small_run.parent}/table.csv"', ""))
    config = replace(read_config(small_run), crossfit=2, epochs=1)
    Image.fromarray(make_picture(48, 48, seed=77)).save(images / "3.png")
    (images / "deeper").mkdir()
    (images / "5.png").rename(images / "deeper" / "five.png")
    left = [set(read_source(config, config.sources[0], fold).evidence.points) for fold in range(2)]
    everything = left[0] | left[1]
    assert "3.png" not in everything and "deeper/five.png" in everything and "5.png" not in everything
    folder, last = second_opinions(config)
    records = [
        json.loads(line)
        for fold in range(2)
        for line in opinion_path(folder, config.sources[0], fold).read_text().splitlines()
    ]
    named = {record["image"] for record in records}
    assert "deeper/five.png" in named and "3.png" not in named
    for record in records:
        assert record["sha256"] == hashlib.sha256((images / record["image"]).read_bytes()).hexdigest()
    # Replaced after the opinion was formed: the run proper leaves teacher's and student's alike out.
    Image.fromarray(make_picture(48, 48, seed=78)).save(images / "1.png")
    assert "1.png" not in read_source(last, last.sources[0]).evidence.points
    assert opinions_folder(config) != folder  # and they are not taken for opinions on what is there now


def test_pristine_photographs_of_any_kind(tmp_path):
    for name in ("a.png", "b.webp", "c.tif", "._d.jpg", "e.JPG"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "f.jpg").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in pristine_paths(tmp_path, 0, False)] == ["a.png", "b.webp", "c.tif", "e.JPG", "f.jpg"]


def test_training_sees_pictures_in_their_own_shape(small_run):  # noqa: F811
    for name, size in (("0.png", (200, 50)), ("1.png", (50, 200))):
        Image.fromarray(make_picture(size[1], size[0])).save(small_run.parent / "images" / name)
    config = replace(read_config(small_run), area=128, crop=96)
    data = load(config)
    metric = leafiqa.create_metric("leaf", device="cpu")
    look = replace(metric.preprocess, area=128**2)
    shapes = {tuple(image.shape[1:]) for image in data.images}
    assert tuple(data.images[0].shape[1:]) == look.size_for(50, 200) == (64, 256) and (256, 64) in shapes
    run = Trainer(config, data, connect("cpu"))
    pictures = run.batches.draw(0).pictures
    assert {tuple(picture.shape[1:]) for picture in pictures} <= {(48, 192), (192, 48), (96, 96)}
    run.advance()


def test_the_command_line_distils_what_python_distils(small_run):  # noqa: F811
    made = leafiqa.distill(small_run)
    small_run.write_text(small_run.read_text().replace(f'output = "{small_run.parent}/out"', "output = 'other'"))
    done = invoke("distill", small_run, cwd=small_run.parent)
    assert done.returncode == 0, done.stderr
    place = small_run.parent / done.stdout.strip()
    assert json.loads(place.with_suffix(".json").read_text())["sha256"] == made.card.sha256
    assert "agreement with the teacher on held-out images of test" in done.stderr or "not known" in done.stderr


def test_odd_files_among_the_judged(small_run):  # noqa: F811
    images = small_run.parent / "images"
    for name in ("2.png", "4.png"):
        (images / name).unlink()
    os.mkfifo(images / "2.png")
    (images / "4.png").symlink_to(images / "nowhere")
    data = load(read_config(small_run))
    assert len(data.images) == 6
    assert sum("regular file" in line or "cannot read" in line for line in data.unreadable) >= 2
