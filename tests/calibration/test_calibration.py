"""Few-shot calibration: planted truths are found, labels that cannot support it are refused, files load."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.special import expit

import leafiqa
from leafiqa.calibration.calibrator import calibrate_metric, check_labels, label_weights, pick_range
from leafiqa.calibration.cross_validation import Choice, Labels, choose, expected, held_out
from leafiqa.calibration.damage import looks_taken
from leafiqa.calibration.features import extract
from leafiqa.calibration.fine_tuning import features_of, fine_tune, predict, prepare_images
from leafiqa.calibration.fit import Fit, fit_head, fit_scale, span
from leafiqa.calibration.merging import with_fit
from leafiqa.cli.main import cli
from leafiqa.errors import CalibrationError, InputError
from leafiqa.evaluation.measures import spearman
from leafiqa.labels.copies import join_copies
from leafiqa.labels.mos_table import Labelled, MosTable, read_mos
from leafiqa.labels.splits import deal_folds
from leafiqa.model.student import Student
from leafiqa.training.augmentation import as_floats
from tests.conftest import noisy_picture


def as_labels(logits, features, targets, weights, groups=None):
    return Labels(logits, features, targets, weights, np.arange(len(targets)).astype(str) if groups is None else groups)


def planted(n, width=40, residual=0.0, noise=0.0, seed=0):
    """Logits, features and targets in which `residual` of the features adds to the logit."""
    rng = np.random.default_rng(seed)
    logits, features = rng.normal(0, 1, n), rng.normal(0, 1, (n, width))
    hidden = features[:, :3].sum(1) * residual
    targets = expit(0.7 * logits - 0.4 + hidden) + rng.normal(0, noise, n)
    return logits, features, targets.clip(0, 1), np.ones(n)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_span_holds_the_features(shape):
    features = np.random.default_rng(1).normal(size=shape)
    features[:, 3] = features[:, 2]  # rank deficient where it is tall
    found = span(features)
    np.testing.assert_allclose(found.rows @ found.back, features, atol=1e-8)
    assert found.back.shape[0] <= min(shape)
    np.testing.assert_allclose(found.back @ found.back.T, np.eye(len(found.back)), atol=1e-8)  # lengths are kept


def test_scale_finds_slope_and_offset_also_among_outliers():
    logits, _, targets, weights = planted(40)
    fit = fit_scale(logits, targets, weights)
    assert (fit.slope, fit.offset) == pytest.approx((0.7, -0.4), abs=1e-4)
    targets[:3] = 1 - targets[:3].round()  # three labels of forty quite wrong
    fit = fit_scale(logits, targets, weights)
    assert fit.slope == pytest.approx(0.7, abs=0.1) and fit.offset == pytest.approx(-0.4, abs=0.1)
    weights[:3] = 0  # or known to be worthless
    fit = fit_scale(logits, targets, weights)
    assert (fit.slope, fit.offset) == pytest.approx((0.7, -0.4), abs=1e-4)


def test_scale_never_turns_the_order_round():
    logits = np.linspace(-2, 2, 12)
    fit = fit_scale(logits, 1 - expit(logits), np.ones(12))
    assert fit.slope > 0 and (np.diff(fit.predict(logits, np.empty((12, 0)))) > 0).all()


def test_head_finds_what_the_logit_lacks_and_shrinks_to_the_scale():
    logits, features, targets, weights = planted(300, residual=0.5)
    scale = fit_scale(logits, targets, weights)
    fit = fit_head(logits, span(features), targets, weights, 1e-4, scale)
    assert fit.residual[:3] == pytest.approx(0.5, abs=0.05) and np.abs(fit.residual[3:]).max() < 0.05
    stiff = fit_head(logits, span(features), targets, weights, 1e5, scale)
    assert np.abs(stiff.residual).max() < 1e-3 and stiff.slope == pytest.approx(scale.slope, abs=0.05)


def test_choice_prefers_the_simple_rung_unless_the_other_is_better():
    for n in (10, 60, 200):
        assert choose(as_labels(*planted(n, noise=0.08, seed=n))).rung == "scale"
    labels = as_labels(*planted(200, residual=0.5, noise=0.05))
    assert choose(labels).rung == "head"
    assert choose(labels, ("scale",)).rung == "scale"
    # A few dozen labels decide between the two, but only strong ridges are worth a try; fewer do not even that.
    few = choose(as_labels(*planted(55, residual=0.5, noise=0.05)))
    assert few.rung == "head" and few.ridge >= 0.15
    assert choose(as_labels(*planted(24, residual=0.5, noise=0.05))).rung == "scale"
    # Where the head alone is allowed, no held-out part is predicted by anything else.
    assert choose(as_labels(*planted(24, residual=0.5, noise=0.05)), ("head",)).rung == "head"


def test_ridge_means_the_same_for_any_number_of_features():
    """Each feature given four times over, at half its size, is the same feature: a fourth of the pull on each."""
    logits, features, targets, weights = planted(120, residual=0.5, noise=0.05)
    scale = fit_scale(logits, targets, weights)
    once = fit_head(logits, span(features), targets, weights, 0.075, scale)
    again = np.tile(features, 4)
    many = fit_head(logits, span(again), targets, weights, 0.075, scale)
    np.testing.assert_allclose(many.predict(logits, again), once.predict(logits, features), atol=1e-4)


def test_expected_accuracy_is_about_what_new_images_show():
    promised, shown, n = [], [], 300
    for seed in range(4):
        logits, features, targets, weights = planted(2300, residual=0.4, noise=0.1, seed=seed)
        labels = as_labels(logits[:n], features[:n], targets[:n], weights[:n])
        promised.append(spearman(expected(labels).order, targets[:n]))
        fit = choose(labels).fit(labels)
        shown.append(spearman(fit.predict(logits[n:], features[n:]), targets[n:]))
    # A little careful, since the held-out fits see fewer labels.
    assert -0.05 < np.mean(promised) - np.mean(shown) < 0.02
    # Features that are noise promise nothing, whatever they fit.
    rng = np.random.default_rng(3)
    unknowable = rng.uniform(size=n)
    nothing = expected(as_labels(rng.normal(size=n), features[:n], unknowable, weights[:n]))
    assert abs(spearman(nothing.order, unknowable)) < 0.2


def test_folds_keep_groups_together_and_are_even():
    groups = np.array([f"g{i // 3}" for i in range(60)])
    fold = deal_folds(groups, 5, seed=0)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    assert np.bincount(fold).tolist() == [12] * 5
    assert len(set(deal_folds(np.array(["a"] * 5 + ["b"] * 5), 5, 0))) == 2
    predicted = held_out([Choice("scale")], as_labels(*planted(60)), fold)[Choice("scale")]
    assert len(predicted) == 60 and np.isfinite(predicted).all()


def test_copies_stay_on_one_side(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, content in zip(paths, (b"a", b"b", b"a", b"c", b"b", b"d")):
        path.write_bytes(content)
    groups, remarks = join_copies(np.array(["p", "q", "q", "r", "s", "t"]), paths)
    # 0 and 2 are one file, which joins their groups p and q; 1 and 4 are one, which joins s to them.
    assert groups[0] == groups[1] == groups[2] == groups[4] and len(set(groups)) == 3
    assert [line.split(":")[0] for line in remarks] == ["0.png, 2.png", "1.png, 4.png"]
    alone, nothing = join_copies(np.array(["p", "p", "r"]), [paths[0], paths[1], paths[3]])
    assert alone.tolist() == ["p", "p", "r"] and nothing == []


def test_weights_of_labels():
    assert label_weights([0.1, None]).tolist() == [1, 1]  # one without counts as typical
    weights = label_weights([0.1, None, 0.1, 0.4])
    assert weights[1] == weights[0] > weights[3]
    weights = label_weights([0.01, 0.2, 0.2, 2.0])
    assert weights.mean() == pytest.approx(1) and weights[0] / weights[1] == pytest.approx(2, rel=0.01)
    assert weights[3] < 0.05


@pytest.mark.parametrize(
    ("mos", "logits", "message"),
    [
        (np.arange(9.0), np.arange(9.0), "at least 10 labelled images, got 9"),
        (np.full(30, 3.0), np.arange(30.0), "nothing to learn a scale from"),
        (-np.arange(30.0), np.arange(30.0), "run against the student"),
    ],
)
def test_labels_that_cannot_support_it(mos, logits, message):
    with pytest.raises(CalibrationError, match=message):
        check_labels(mos, logits)


def test_range():
    mos = np.array([1.5, 3.5])
    assert pick_range(mos, None) == pytest.approx((1.3, 3.7)) and pick_range(mos, (1, 5)) == (1, 5)
    for wrong, message in [((5, 1), "rise"), ((2, 5), "does not hold the labels"), ((0, float("nan")), "finite")]:
        with pytest.raises(CalibrationError, match=message):
            pick_range(mos, wrong)


@pytest.mark.parametrize("experts", [1, 2])
def test_folded_weights_predict_as_the_fit(experts):
    torch.manual_seed(0)
    student = Student(experts=experts).eval()
    if experts > 1:
        torch.nn.init.normal_(student.head.gate.weight, std=0.1)
    standard = torch.randn(5, student.feature_mean.shape[0])
    rng = np.random.default_rng(0)
    first = Fit(1.7, -0.3, rng.normal(0, 0.02, standard.shape[1]))
    second = Fit(0.6, 0.1, rng.normal(0, 0.02, standard.shape[1]))
    calibrated = student
    with torch.no_grad():
        for fit in (first, Fit(2.0, 0.5), second):  # calibrated again and again
            before = calibrated.read(standard).numpy().astype(float)
            calibrated = with_fit(calibrated, fit)
            found = calibrated.read(standard).sigmoid().numpy()
            assert found == pytest.approx(fit.predict(before, standard.numpy().astype(float)), abs=1e-5)
    assert student.residual is None  # the first one is left as it was


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Thirty pictures under falling amounts of noise, with MOS from 1 to 5."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for i in range(30):
        Image.fromarray(noisy_picture(i, 2.0 * i)).save(folder / f"{i}.png")
        rows.append((f"{i}.png", f"{5 - 4 * i / 29:.3f}"))
    with (folder / "mos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *rows])
    return folder


def test_a_calibrated_student_is_one_small_file_on_the_human_scale(labelled, tmp_path, metric):
    out = tmp_path / "made" / "leaf_lite0.mine"
    before = {name: tensor.clone() for name, tensor in metric.student.state_dict().items()}
    arguments = [
        "calibrate",
        "--mos",
        str(labelled / "mos.csv"),
        "-o",
        str(out),
        "--range",
        "1",
        "5",
        "--device",
        "cpu",
    ]
    outcome = CliRunner().invoke(cli, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert all(torch.equal(before[name], tensor) for name, tensor in metric.student.state_dict().items())
    calibrated = leafiqa.create_metric(weights=f"{out}.safetensors", device="cpu")
    assert calibrated.score_range == (1.0, 5.0) and calibrated.metric_name == "leaf_lite0.mine"
    paths = [labelled / f"{i}.png" for i in range(30)]
    mos = np.array([5 - 4 * i / 29 for i in range(30)])
    scores = calibrated(paths).numpy()
    assert np.sqrt(np.mean((scores - mos) ** 2)) < 0.65 and spearman(scores, mos) > 0.8
    card = json.loads(out.with_name(out.name + ".json").read_text())
    assert card["training"]["calibration"]["labels"] == 30 and card["accuracy"] == []
    assert card["training"]["calibration"]["expected"]["srcc"] > 0.7
    assert card["training"]["initial_training"]["student"].endswith(metric.card.short_hash)
    assert card["training"]["data"] == "30 images with human scores (mos.csv)"
    assert card["description"].startswith("leaf_lite0.general on a human scale; calibrated on 30 human scores")
    # Of what it began at only what still holds: no human score was read then, and the scale was the teacher's.
    assert "0 human scores" in card["training"]["initial_training"]["label_budget"]
    assert card["limitations"] == metric.card.limitations[:-1] and "teacher" in metric.card.limitations[-1]
    assert out.with_name(out.name + ".safetensors").stat().st_size < 8e6


def test_head_rung_is_saved_and_loaded(labelled, tmp_path):
    out = tmp_path / "leaf_lite0.head"
    arguments = ["calibrate", "--mos", str(labelled / "mos.csv"), "-o", str(out), "--rung", "head", "--device", "cpu"]
    outcome = CliRunner().invoke(cli, arguments)
    assert outcome.exit_code == 0 and "rung       head" in outcome.output, outcome.output
    calibrated = leafiqa.create_metric(weights=f"{out}.safetensors", device="cpu", as_loss=True)
    assert calibrated.student.residual is not None
    picture = torch.rand(1, 3, 64, 64, requires_grad=True)
    calibrated(picture).backward()
    assert torch.isfinite(picture.grad).all() and picture.grad.abs().max() > 0


def test_what_differs_alone_is_saved_where_it_is_asked_for(labelled, tmp_path):
    table = ["calibrate", "--mos", str(labelled / "mos.csv"), "--rung", "head", "--device", "cpu"]
    scores = {}
    for name, more in (("whole", []), ("small", ["--difference"])):
        outcome = CliRunner().invoke(cli, [*table, "-o", str(tmp_path / f"leaf_lite0.{name}"), *more])
        assert outcome.exit_code == 0, outcome.output
        found = leafiqa.create_metric(weights=tmp_path / f"leaf_lite0.{name}.safetensors", device="cpu")
        scores[name] = found([labelled / f"{i}.png" for i in range(0, 30, 6)]).tolist()
    assert scores["small"] == pytest.approx(scores["whole"], abs=2e-3)
    assert (tmp_path / "leaf_lite0.small.safetensors").stat().st_size < 20_000
    shown = CliRunner().invoke(cli, ["info", "--weights", str(tmp_path / "leaf_lite0.small.safetensors")])
    assert "base       leaf_lite0.general" in shown.output
    # A student of one's own can be no base, which is said before anything is looked at.
    arguments = [*table, "--weights", str(tmp_path / "leaf_lite0.whole.safetensors"), "--difference"]
    outcome = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "leaf_lite0.again")])
    assert isinstance(outcome.exception, leafiqa.WeightsError) and "nor among the bundled ones" in str(
        outcome.exception
    )
    assert "looking" not in outcome.output


def test_unreadable_images_are_left_out_and_reported(labelled, metric, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    rows = [Labelled(f"{i}.png", labelled / f"{i}.png", 5 - i / 6) for i in range(12)]
    bad = Labelled("bad.png", tmp_path / "bad.png", 3.0)
    result = calibrate_metric(metric, MosTable([*rows, bad], ["as told before"]))
    assert result.labels == 12 and result.problems[0] == "as told before"
    assert result.problems[1].startswith("bad.png: ") and result.problems[1].endswith("left out")
    copy = tmp_path / "copy.png"
    copy.write_bytes((labelled / "3.png").read_bytes())
    result = calibrate_metric(metric, MosTable([*rows, Labelled("copy.png", copy, 4.0)]))
    assert result.labels == 13 and result.problems == ["3.png, copy.png: the same file: taken as one group"]


def test_refusals_say_why_labels_are_missing_and_what_groups_are_for(labelled, metric):
    rows = [Labelled(f"{i}.png", labelled / f"{i}.png", 5 - i / 6, group="ab"[i % 2]) for i in range(12)]
    with pytest.raises(CalibrationError, match=r"of 2 group\(s\).*leave the column group out"):
        calibrate_metric(metric, MosTable(rows))
    with pytest.raises(CalibrationError, match=r"got 5 usable ones; 1 remarks, such as x.png: no such file"):
        calibrate_metric(metric, MosTable(rows[:5], ["x.png: no such file"]))
    alone = [replace(row, group=None) for row in rows]
    with pytest.raises(CalibrationError, match="the rung head needs at least 25 labelled images, got 12"):
        calibrate_metric(metric, MosTable(alone), rungs=("head",))
    three = [replace(row, group="abc"[i % 3]) for i, row in enumerate(rows)]
    assert calibrate_metric(metric, MosTable(three)).labels == 12


def test_refusal_on_the_command_line(labelled, tmp_path):
    table = tmp_path / "mos.csv"
    table.write_text("image,mos\n" + "".join(f"{i}.png,3\n" for i in range(30)))
    arguments = ["calibrate", "--mos", str(table), "--images", str(labelled), "-o", str(tmp_path / "x.y")]
    outcome = CliRunner().invoke(cli, arguments)
    assert isinstance(outcome.exception, CalibrationError) and not (tmp_path / "x.y.safetensors").exists()
    outcome = CliRunner().invoke(cli, [*arguments[:-1], str(tmp_path)])
    assert isinstance(outcome.exception, InputError) and "is a folder" in str(outcome.exception)


def test_fine_tuning_learns_labels_that_the_features_do_not_hold(labelled, metric):
    """What the labels say is learned, and nothing but the copy changes."""
    paths = [labelled / f"{i}.png" for i in range(16)]
    images = prepare_images(metric, paths)
    assert images[0].dtype == torch.uint8 and images[0].shape[0] == 3
    small = [image[:, :64, :64] if i % 2 else image[:, :64, :96] for i, image in enumerate(images)]  # two shapes
    targets = np.linspace(0.1, 0.9, 16)  # against the noise
    with torch.no_grad():
        seen = metric.student.standardise(metric.student.features(as_floats(small[1][None], torch.device("cpu"))))
    assert features_of(metric.student, small[:2])[1] == pytest.approx(seen[0].numpy(), abs=1e-3)
    before, state = predict(metric.student, small), torch.get_rng_state()
    counted = []
    tuned = fine_tune(metric.student, small, targets, np.ones(16), advance=counted.append)
    after = predict(tuned, small)
    assert sum(counted) == 6 * 16 and torch.equal(torch.get_rng_state(), state)
    assert np.abs(after - targets).mean() < np.abs(before - targets).mean()
    assert spearman(after, targets) > spearman(before, targets)
    assert predict(metric.student, small) == pytest.approx(before, abs=1e-6)
    assert not tuned.training and not any(p.requires_grad for p in tuned.parameters())
    again = predict(fine_tune(metric.student, small, targets, np.ones(16)), small)
    assert again == pytest.approx(after, abs=1e-4)


@pytest.mark.parametrize(("better", "rung"), [(True, "full"), (False, "scale")])
def test_full_is_taken_only_if_it_is_clearly_better(labelled, metric, monkeypatch, better, rung):
    module, tune = sys.modules["leafiqa.calibration.calibrator"], sys.modules["leafiqa.calibration.fine_tuning_rung"]
    monkeypatch.setattr(module, "FULL_LEAST", 30)
    monkeypatch.setattr(module, "prepare_images", lambda metric, paths: list(paths))
    told = []

    def tunes(student, images, targets, weights, seed, advance, pace):
        advance(pace.epochs * len(images))
        return student

    def keeps(student, before, fit, images, seed, advance):
        advance(looks_taken(len(images)))
        return student

    monkeypatch.setattr(tune, "fine_tune", tunes)
    monkeypatch.setattr(tune, "keep_order_of_damage", keeps)
    monkeypatch.setattr(module, "features_of", lambda student, paths: extract(metric, paths).features)
    with (labelled / "mos.csv").open() as file:
        mos = {labelled / row["image"]: float(row["mos"]) for row in csv.DictReader(file)}
    guess = (lambda path: (mos[path] - 0.6) / 4.8) if better else (lambda path: 0.5)
    monkeypatch.setattr(tune, "predict", lambda student, paths: np.array([guess(path) for path in paths]))
    table = read_mos(labelled / "mos.csv")
    result = calibrate_metric(metric, table, rungs=("scale",), full=True, tuning=lambda *of: told.append(of))
    assert (told[-1][0] == told[-1][1]) == better and told[0][0] < told[0][1]  # of what there was to do, all is done
    assert result.choice.rung == rung
    assert (result.expected.srcc > 0.999) == better
    assert "decided whether to fine-tune" in result.expected_by
    monkeypatch.setattr(module, "FULL_LEAST", 31)
    result = calibrate_metric(metric, read_mos(labelled / "mos.csv"), rungs=("scale",), full=True)
    assert result.choice.rung == "scale" and "fine-tuning needs at least 31 images" in result.problems[-1]
