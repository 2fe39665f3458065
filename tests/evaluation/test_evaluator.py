"""Evaluation in Python: metrics of any kind, columns of scores, what is not known is not said."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import leafiqa
from leafiqa.evaluation.comparison import compare
from leafiqa.evaluation.measures import agreement, kendall, pearson, root_mean_square, spearman, srcc_difference
from leafiqa.evaluation.scorers import as_scorer
from leafiqa.labels.mos_table import Labelled, MosTable
from tests.conftest import invoke, noisy_picture


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Thirty pictures under falling amounts of noise, with MOS from 1 to 5, another metric's scores, and a part."""
    folder = tmp_path_factory.mktemp("evaluator")
    lines = ["image,mos,brisque,generator"]
    for i in range(30):
        Image.fromarray(noisy_picture(i, 2.0 * i)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{5 - 4 * i / 29:.3f},{100 - i},{'abc'[i // 10]}")
    (folder / "mos.csv").write_text("\n".join(lines) + "\n")
    return folder


def noise_metrics(groups):
    rng = np.random.default_rng(0)
    n = 60
    return rng.normal(size=n), rng.normal(size=n), rng.normal(size=n), [f"g{i % groups}" for i in range(n)]


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_few_groups_give_no_interval_and_no_p(groups, tmp_path):
    """One group of all rows gave an interval without width, and p = .001 between two metrics of noise."""
    first, second, mos, names = noise_metrics(groups)
    found = agreement(first, mos, draws=200, groups=names)
    for name in ("srcc", "plcc", "krcc", "rmse"):
        assert math.isfinite(getattr(found, name)) and all(map(math.isnan, getattr(found, f"{name}_interval")))
    paired = srcc_difference(first, second, mos, draws=200, groups=names)
    assert math.isfinite(paired["difference"]) and all(math.isnan(paired[name]) for name in ("low", "high", "p"))
    rows = [Labelled(f"{i}", tmp_path / f"{i}", mos[i], group=names[i], part="all") for i in range(len(mos))]
    result = compare(
        MosTable(rows),
        {"a": lambda paths: first.tolist(), "b": lambda paths: second.tolist()},
        draws=200,
        by=lambda row: row.part,
    )
    text = str(result)
    assert f"at least 10 independent groups of images, and there are {groups}" in " ".join(result.problems)
    assert any(f"all: {groups} independent group(s)" in line for line in result.problems)
    assert "p=" not in text and "[" not in text
    assert json.loads(json.dumps(result.to_dict()))["differences"][0]["p"] is None


def test_ten_groups_give_intervals_as_wide_as_they_are_few():
    first, _, mos, names = noise_metrics(10)
    low, high = agreement(first, mos, draws=400, groups=names).srcc_interval
    assert low < high
    false = sum(
        srcc_difference(*[np.random.default_rng([seed, k]).normal(size=60) for k in range(3)], draws=200, groups=names)[
            "p"
        ]
        < 0.05
        for seed in range(60)
    )
    assert false <= 9  # nominally three


def test_weighted_measures_are_those_of_the_population():
    """The same figures as if each image stood there as often as its weight says."""
    rng = np.random.default_rng(3)
    scores, mos, weights = rng.normal(size=25).round(1), rng.normal(size=25), rng.integers(1, 5, 25)
    repeated = [np.repeat(values, weights) for values in (scores, mos)]
    for measure in (spearman, pearson, root_mean_square, kendall):
        assert measure(scores, mos, weights.astype(float)) == pytest.approx(measure(*repeated), abs=1e-9)
        assert measure(scores, mos, np.ones(25)) == pytest.approx(measure(scores, mos), abs=1e-9)


class Brightness(torch.nn.Module):
    """As torchmetrics' are: takes tensors, keeps a state, says which way is better."""

    higher_is_better = False

    def __init__(self):
        super().__init__()
        self.seen = 0

    def reset(self):
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        assert images.shape[:2] == (1, 3) and images.dtype == torch.float32 and 0 <= images.min() <= images.max() <= 1
        return images.mean()


def test_metrics_of_any_kind(labelled, metric):
    table = leafiqa.evaluate(
        labelled / "mos.csv",
        ["leaf", "leaf_lite0.photo-10", Brightness(), lambda path: -int(path.split("/")[-1][:-4])],
        columns=["brisque"],
        by="generator",
        device="cpu",
        draws=200,
    )
    assert list(table.agreement) == ["leaf_lite0.general", "leaf_lite0.photo-10", "Brightness", "<lambda>", "brisque"]
    assert table.agreement["<lambda>"].srcc == 1 and table.agreement["brisque"].srcc == pytest.approx(1)
    paths = [labelled / f"{i}.png" for i in range(30)]
    mos = np.array([5 - 4 * i / 29 for i in range(30)]).round(3)
    assert table.agreement["leaf_lite0.general"].srcc == pytest.approx(spearman(metric(paths).numpy(), mos), abs=1e-6)
    bright = [-np.asarray(Image.open(path)).mean() / 255 for path in paths]
    assert table.agreement["Brightness"].srcc == pytest.approx(spearman(np.array(bright), mos), abs=0.02)
    assert "Brightness: lower is better: its scores are turned round" in table.problems
    # The means of three generators are in order; RMSE between scales says nothing, and that is said.
    assert table.systems["<lambda>"] == {"n": 3, "srcc": pytest.approx(1), "plcc": pytest.approx(1, abs=1e-3)}
    assert "brisque" in table.on_another_scale and "not on the scale of the MOS" in str(table)
    assert set(table.parts) == {"a", "b", "c"} and len(table.weights) == 2
    table.to_csv(labelled / "m.csv", overwrite=True)
    assert (labelled / "m.csv").read_text().startswith("part,metric,n,srcc")


def test_the_command_line_says_the_same(labelled):
    arguments = ["--mos", labelled / "mos.csv", "--column", "brisque", "--by", "generator", "--device", "cpu"]
    done = invoke("eval", *arguments, "--metric", "leaf", "--draws", "200", "--json")
    table = leafiqa.evaluate(
        labelled / "mos.csv", "leaf", columns=["brisque"], by="generator", device="cpu", draws=200
    ).to_dict()
    found = json.loads(done.stdout)
    assert done.returncode == 0 and {name: found[name] for name in table} == json.loads(json.dumps(table))


def test_a_failing_callable_costs_its_images_only(labelled):
    def moody(path):
        if path.endswith("/3.png"):
            raise RuntimeError("no")
        return float(len(path))

    table = leafiqa.evaluate(labelled / "mos.csv", moody, draws=100)
    assert len(table.images) == 29 and any("RuntimeError: no" in problem for problem in table.problems)


def test_what_is_no_metric(labelled):
    for wrong, message in ((3, "must be a name"), (labelled / "x.safetensors", "a place is no metric")):
        with pytest.raises(leafiqa.InputError, match=message):
            as_scorer(wrong)
    with pytest.raises(leafiqa.InputError, match="given twice"):
        leafiqa.evaluate(labelled / "mos.csv", ["leaf", "leaf_lite0.general"], device="cpu")
    with pytest.raises(leafiqa.InputError, match="no column 'niqe'"):
        leafiqa.evaluate(labelled / "mos.csv", "leaf", columns=["niqe"])


def test_a_student_judged_by_its_own_labels_is_noticed(labelled, metric):
    mine = leafiqa.calibrate(metric, labelled / "mos.csv", scale=(1, 5))
    table = leafiqa.evaluate(labelled / "mos.csv", [metric, mine], draws=100)
    remarks = [problem for problem in table.problems if "flatter" in problem]
    assert remarks == ["leaf_lite0.calibrated was calibrated on 30 of these 30 images: its figures here flatter it"]
    assert "leaf_lite0.calibrated" not in table.on_another_scale and "leaf_lite0.general" in table.on_another_scale


def test_preconditions_are_checked_before_the_work(labelled, monkeypatch):
    def never(*arguments, **options):
        pytest.fail("scored before the outputs were looked at")

    monkeypatch.setattr("leafiqa.evaluation.evaluator.compare", never)
    (labelled / "there.csv").write_text("image,mos\n")
    for options, message in (
        (["-o", labelled / "none" / "x.csv"], "there is no folder"),
        (["--scores", labelled / "there.csv"], "exists already"),
        (["--plot", labelled / "x.pdf"], "ends in .png"),
        (["--plot", labelled / "none" / "x.png"], "there is no folder"),
        (["--plot", labelled / "0.png", "--overwrite"], "exists already"),
    ):
        done = invoke("eval", "--mos", labelled / "mos.csv", *options)
        assert done.returncode == 2 and message in done.stderr, options
    import builtins

    original = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    done = invoke("eval", "--mos", labelled / "mos.csv", "--plot", labelled / "p.png")
    assert done.returncode == 2 and "pip install matplotlib" in done.stderr
