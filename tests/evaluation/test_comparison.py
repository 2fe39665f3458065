"""Agreement with human scores: values against scipy, tables with every kind of bad row, the command."""

import csv
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import kendalltau, pearsonr, spearmanr

import leafiqa
from leafiqa.cli.main import cli
from leafiqa.errors import InputError
from leafiqa.evaluation.comparison import compare
from leafiqa.evaluation.measures import agreement, fit_logistic, logistic, pearson, spearman, srcc_difference
from leafiqa.labels.mos_table import Labelled, MosTable, read_mos
from tests.conftest import make_picture


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 200)
    return mos + rng.normal(0, 0.8, 200), mos + rng.normal(0, 2.0, 200), mos


def test_correlations_are_scipys(noisy):
    good, _, mos = noisy
    rounded = good.round()  # with ties
    measured = agreement(rounded, mos, draws=200)
    assert measured.n == 200
    assert measured.srcc == pytest.approx(spearmanr(rounded, mos).statistic, abs=1e-12)
    assert measured.plcc == pytest.approx(pearsonr(rounded, mos).statistic, abs=1e-12)
    assert measured.krcc == pytest.approx(kendalltau(rounded, mos).statistic, abs=1e-12)
    assert measured.rmse == pytest.approx(np.sqrt(np.mean((rounded - mos) ** 2)), abs=1e-12)
    low, high = measured.srcc_interval
    assert low < measured.srcc < high and 0.02 < high - low < 0.2


def test_intervals_draw_whole_groups(noisy):
    """Every image fifty times over: as many images, no more knowledge."""
    good, other, mos = (np.repeat(values[:20], 50) for values in noisy)
    groups = np.repeat(np.arange(20), 50).astype(str).tolist()
    few = agreement(noisy[0][:20], noisy[2][:20], draws=400)
    alone, grouped = agreement(good, mos, draws=400), agreement(good, mos, draws=400, groups=groups)
    for name in ("srcc_interval", "plcc_interval", "krcc_interval", "rmse_interval"):
        width, narrow, wide = (np.ptp(getattr(found, name)) for found in (few, alone, grouped))
        assert narrow < 0.4 * width and wide == pytest.approx(width, rel=0.3)
        low, high = getattr(grouped, name)
        assert low < getattr(grouped, name.removesuffix("_interval")) < high
    paired = [srcc_difference(good, other, mos, draws=400, groups=of) for of in (None, groups)]
    assert paired[0]["high"] - paired[0]["low"] < 0.4 * (paired[1]["high"] - paired[1]["low"])
    # Groups of one image each are no groups.
    assert agreement(good, mos, draws=100) == agreement(good, mos, draws=100, groups=[str(i) for i in range(1000)])


def test_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth, covered = 0.6, 0
    for trial in range(60):
        a = rng.normal(size=120)
        b = truth * a + np.sqrt(1 - truth**2) * rng.normal(size=120)
        low, high = agreement(a, b, draws=300, seed=trial).plcc_interval
        covered += low <= truth <= high
    assert 51 <= covered <= 60


def test_logistic_is_recovered():
    scores = np.linspace(0, 1, 80)
    mos = logistic(scores, 4.5, 1.2, 0.4, 0.1)
    assert np.allclose(fit_logistic(scores, mos), mos, atol=1e-4)
    assert np.allclose(fit_logistic(-scores, mos), mos, atol=1e-4)  # a falling one, too
    measured = agreement(scores, mos, draws=100)
    assert measured.plcc < 0.98 and measured.plcc_mapped > 0.9999 and measured.rmse_mapped < 1e-3


def test_constant_scores_have_no_correlation(noisy):
    constant = np.full(200, 0.1 + 0.2)
    measured = agreement(constant, noisy[2], draws=100)
    assert np.isnan(measured.srcc) and np.isnan(measured.plcc) and np.isnan(measured.plcc_mapped)
    assert np.isnan(pearson(constant, constant)) and np.isnan(spearman(constant, noisy[2]))


def test_a_better_metric_is_significantly_better_and_itself_is_not(noisy):
    good, bad, mos = noisy
    found = srcc_difference(good, bad, mos, draws=500)
    assert found["difference"] == pytest.approx(spearman(good, mos) - spearman(bad, mos))
    assert 0 < found["low"] < found["difference"] < found["high"] and found["p"] < 0.01
    same = srcc_difference(good, good, mos, draws=500)
    assert same["difference"] == 0 and same["p"] == 1


def test_wrong_vectors():
    for scores, mos, message in [
        ([1, 2, 3], [1, 2], "one length"),
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, float("nan")], [1, 2, 3], "scores must be finite, got 1"),
        ([1, 2, 3], [1, 2, float("inf")], "mos must be finite"),
    ]:
        with pytest.raises(InputError, match=message):
            agreement(np.array(scores, float), np.array(mos, float))


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for i in range(6):
        strength = 6 * i
        noise = np.random.default_rng(i).normal(0, strength, (96, 128, 3))
        Image.fromarray((make_picture(seed=1) + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [("image", "mos", "group")] + [(f"{i}.png", f"{5 - i * 0.5}", "a" if i < 3 else "b") for i in range(6)]
    with (tmp_path / "mos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def test_table_keeps_what_is_usable_and_says_what_is_not(folder):
    extra = "0.png,5.0,a\n1.png,2.5,a\nmissing.png,3,a\n2.png,good,a\n3.png,nan,b\n,4,b\n4.png,inf,b\n"
    with (folder / "mos.csv").open("a") as file:
        file.write(extra)
    table = read_mos(folder / "mos.csv")
    assert [row.image for row in table.rows] == [f"{i}.png" for i in range(6)]
    assert table.rows[1].mos == pytest.approx((4.5 + 2.5) / 2) and table.rows[0].mos == 5.0
    text = "\n".join(table.problems)
    for part in (
        "0.png: stands 2 times: used once",
        "1.png: stands 2 times with different MOS",
        "missing.png: no such",
    ):
        assert part in text
    assert "MOS 'good' is no finite number" in text and "'nan'" in text and "'inf'" in text and "names no image" in text
    assert len(table.problems) == 7


def test_columns_that_are_used_if_there_are_found_however_written(folder):
    rows = [("Image", " MOS", "Group ", "MOS_SE", "Split")]
    rows += [(f"{i}.png", i, f"g{i % 2} ", 0.1 + i, "test" if i > 3 else "train") for i in range(6)]
    with (folder / "odd.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*rows, ("5.png", "", "", "", "test"), ("hidden.png", "nan", "", "", "test")])
    table = read_mos(folder / "odd.csv", split="train")
    assert [(row.group, row.standard_error) for row in table.rows] == [
        ("g0", 0.1),
        ("g1", 1.1),
        ("g0", 2.1),
        ("g1", 3.1),
    ]
    # Files of other splits are known whether or not they have a score.
    assert table.elsewhere == {folder / "4.png", folder / "5.png", folder / "hidden.png"} and not table.problems


def test_table_columns(folder):
    text = (folder / "mos.csv").read_text()
    (folder / "other.csv").write_text("\ufeff" + text.replace("image,mos", "Filename,MOS"), encoding="utf-8")
    assert len(read_mos(folder / "other.csv").rows) == 6
    (folder / "dmos.csv").write_text(text.replace("mos", "dmos"))
    with pytest.raises(InputError, match="no MOS column"):
        read_mos(folder / "dmos.csv")
    with pytest.raises(InputError, match="no column 'rating'"):
        read_mos(folder / "mos.csv", mos_column="rating")
    with pytest.raises(InputError, match="no usable row"):
        read_mos(folder / "mos.csv", images=folder / "elsewhere")
    with pytest.raises(InputError, match="cannot read"):
        read_mos(folder / "none.csv")
    with pytest.raises(InputError, match="no split column"):
        read_mos(folder / "mos.csv", split="val")


def test_compare_uses_the_images_that_all_metrics_score(tmp_path):
    table = MosTable([Labelled(str(i), tmp_path / str(i), float(i)) for i in range(12)], ["told before"])
    nan = float("nan")
    result = compare(
        table,
        {"up": lambda paths: [nan, *range(1, len(paths))], "down": lambda paths: [-float(p.name) for p in paths]},
        draws=100,
    )
    assert len(result.images) == 11 and result.problems == ["told before", "0: no score: left out"]
    assert result.agreement["up"].srcc == 1 and result.agreement["down"].srcc == -1
    assert result.differences[0]["difference"] == 2
    assert json.loads(json.dumps(result.to_dict()))["metrics"]["up"]["n"] == 11


def test_parts_groups_and_copies(folder, tmp_path):
    """Broken down by any column; copies of one file are drawn together and told; parts that are too small are told."""
    lines = ["image,mos,group,generator"]
    for i in range(24):
        name = f"p{i}.png"
        (folder / name).write_bytes((folder / "0.png").read_bytes() if i < 2 else bytes([i]) * 9)
        lines.append(f"{name},{i},,{'gan' if i < 10 else 'diffusion' if i < 20 else 'other'}")
    (folder / "parts.csv").write_text("\n".join(lines))
    table = read_mos(folder / "parts.csv", part_column="generator")
    result = compare(
        table, {"up": lambda paths: [float(p.stem[1:]) for p in paths]}, draws=100, by=lambda row: row.part
    )
    assert {part: by["up"].n for part, by in result.parts.items()} == {"diffusion": 10, "gan": 10}
    assert result.problems == [
        "p0.png, p1.png: the same file: taken as one group",
        "gan: 9 independent group(s), fewer than 10: no intervals",
        "1 part(s) of fewer than 10 images are not shown by themselves",
    ]
    assert result.over == "groups of images" and "over groups of images" in result.to_dict()["interval"]
    result.to_csv(tmp_path / "m.csv")
    rows = list(csv.DictReader((tmp_path / "m.csv").open()))
    assert [(row["part"], row["metric"], row["n"]) for row in rows] == [
        ("", "up", "24"), ("diffusion", "up", "10"), ("gan", "up", "10")
    ]  # fmt: skip
    assert all(float(row["srcc"]) == 1 and float(row["rmse"]) == 0 for row in rows)
    assert [row["krcc_low"] for row in rows] == ["1", "1", ""]  # nine independent images give no interval
    with pytest.raises(InputError, match="no column 'model'"):
        read_mos(folder / "parts.csv", part_column="model")


def test_command(folder, tmp_path):
    with (folder / "mos.csv").open("a") as file:
        file.write("bad.png,1,b\n")
    arguments = ["eval", "--mos", str(folder / "mos.csv"), "--device", "cpu", "--draws", "100"]
    outcome = CliRunner().invoke(
        cli, [*arguments, "--scores", str(tmp_path / "s.csv"), "--plot", str(tmp_path / "p.png")]
    )
    assert outcome.exit_code == 1, outcome.output  # one image has no score
    assert "6 images" in outcome.stdout and "leaf_lite0.general" in outcome.stdout and "bad.png" in outcome.stderr
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert len(rows) == 6 and float(rows[0]["leaf_lite0.general"]) > float(rows[5]["leaf_lite0.general"])
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    human = (folder / "mos.csv").read_bytes()
    found = leafiqa.evaluate(folder / "mos.csv", os.path.getsize, draws=100)
    with pytest.raises(leafiqa.OutputError, match="one of the files that are read"):
        found.scores_to_csv(folder / "mos.csv", overwrite=True)
    (tmp_path / "other.csv").write_text("image,mos,mine\na.png,1,2\n")
    with pytest.raises(leafiqa.OutputError, match="not written by leafiqa"):
        found.scores_to_csv(tmp_path / "other.csv", overwrite=True)
    assert (folder / "mos.csv").read_bytes() == human
    outcome = CliRunner().invoke(cli, [*arguments, "--json"])
    measured = json.loads(outcome.stdout)
    assert measured["metrics"]["leaf_lite0.general"]["srcc"] > 0.7
    assert len(measured["weights"]["leaf_lite0.general"]) == 64
    outcome = CliRunner().invoke(cli, [*arguments, "--metric", "leaf", "--metric", "leaf"])
    assert isinstance(outcome.exception, InputError) and "given twice" in str(outcome.exception)
