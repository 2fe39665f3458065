"""Choosing images to label: coverage of what is planted, odd candidates, the command."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leafiqa.calibration.features import Extracted
from leafiqa.calibration.selection import choose_rows, is_unrated
from leafiqa.cli.main import cli
from leafiqa.errors import InputError, OutputError
from tests.conftest import make_picture


def extracted(features, logits=None):
    features = np.asarray(features, dtype=float)
    logits = np.zeros(len(features)) if logits is None else np.asarray(logits, dtype=float)
    return Extracted(features, logits, np.arange(len(features)), [])


def select(*arguments, **options):
    return choose_rows(*arguments, **options)[0]


def test_each_kind_is_chosen_however_rare():
    """Four images of one kind among two hundred of three others: a random dozen would miss it three times in four."""
    rng = np.random.default_rng(0)
    kinds = rng.permutation(np.repeat(np.arange(4), [70, 70, 60, 4]))
    features = 10 * np.eye(4)[kinds] @ rng.normal(size=(4, 30)) + rng.normal(size=(204, 30))
    assert set(kinds[select(extracted(features), 12)]) == {0, 1, 2, 3}


def test_two_thirds_are_from_the_ends_of_the_scale():
    logits = np.random.default_rng(1).normal(size=300)
    features = np.random.default_rng(0).normal(size=(300, 20))
    rank = np.argsort(np.argsort(logits))[select(extracted(features, logits), 30)]
    assert [(rank < 60).sum(), ((rank >= 60) & (rank < 240)).sum(), (rank >= 240).sum()] == [10, 10, 10]
    stands_for = choose_rows(extracted(features, logits), 30)[1]
    assert stands_for.sum() == 300 and sorted(set(stands_for)) == [6, 18]


def test_enough_labels_are_spread_over_the_disagreement():
    """Features that are the same for all leave the choice to the disagreement: all of it is covered, not one side."""
    rng = np.random.default_rng(0)
    features, logits, above = np.zeros((400, 5)), rng.normal(size=400), rng.uniform(-1, 1, size=400)
    above[::10] = np.nan  # not judged
    few = select(extracted(features, logits), 99)
    assert few.tolist() == select(extracted(features, logits), 99, disagreement=above).tolist()
    plain, spread = (
        [select(extracted(features, logits), 120, disagreement=given, seed=seed) for seed in range(8)]
        for given in (None, above)
    )

    def widest_gap(chosen):
        known = above[chosen]
        return np.diff(np.sort(known[np.isfinite(known)])).max()

    assert all(len(set(chosen)) == 120 for chosen in spread)
    assert np.mean([widest_gap(chosen) for chosen in spread]) < 0.85 * np.mean([widest_gap(chosen) for chosen in plain])
    nothing = select(extracted(features, logits), 120, disagreement=np.full(400, np.nan))
    assert nothing.tolist() == plain[0].tolist()


def test_the_same_seed_chooses_the_same():
    features = np.random.default_rng(0).normal(size=(100, 8))
    assert select(extracted(features), 10, seed=3).tolist() == select(extracted(features), 10, seed=3).tolist()


@pytest.mark.parametrize("budget", [1, 2, 3, 9, 10])
def test_identical_images_and_whole_budgets(budget):
    alike = extracted(np.ones((10, 6)))
    assert len(set(select(alike, budget))) == budget
    two = extracted(np.repeat([[0.0, 0, 0], [5, 1, 2]], 5, axis=0))
    chosen = select(two, budget)
    assert len(set(chosen)) == budget and (budget == 1 or {c // 5 for c in chosen} == {0, 1})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12])
def test_few_candidates_and_any_budget(count):
    rng = np.random.default_rng(count)
    some = extracted(rng.normal(size=(count, 6)), rng.normal(size=count))
    for budget in range(1, count + 1):
        chosen = select(some, budget)
        assert len(set(chosen)) == budget and chosen.tolist() == sorted(chosen)


def test_budget_is_checked():
    for budget in (0, 11):
        with pytest.raises(InputError, match="budget must be from 1 to the number of readable images, 10"):
            select(extracted(np.ones((10, 3))), budget)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(8):
        Image.fromarray(make_picture(64, 64, seed=i)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path


def test_command_writes_a_table_to_fill_in(folder):
    table = folder / "ratings.csv"
    arguments = ["select", str(folder / "photos"), "--budget", "3", "-o", str(table)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and done.stdout == "" and "fill in the column mos" in done.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(row["mos"] == "" and 0 < float(row["score"]) < 1 for row in rows)
    assert all((folder / row["image"]).is_file() for row in rows)
    again = CliRunner().invoke(cli, arguments)
    assert isinstance(again.exception, OutputError) and "exists already" in str(again.exception)
    # Without ratings it is ours to replace, if asked; with one it is somebody's work.
    assert CliRunner().invoke(cli, [*arguments, "--overwrite"]).exit_code == 0
    table.write_text(table.read_text().replace(",,", ",4,", 1))
    again = CliRunner().invoke(cli, [*arguments, "--overwrite"])
    assert isinstance(again.exception, OutputError) and "not written by leafiqa" in str(again.exception)


def test_command_reports_bad_files_and_takes_evidence(folder):
    (folder / "photos" / "broken.png").write_bytes(b"no image")
    lines = [{"kind": "point", "image": f"{i}.png", "score": i, "scale": [0, 9]} for i in range(8)]
    (folder / "evidence.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ["select", str(folder / "photos"), "-n", "2", "--evidence", str(folder / "evidence.jsonl")]
    done = CliRunner().invoke(cli, [*arguments, "--evidence-images", str(folder / "photos")])
    assert done.exit_code == 1 and "broken.png" in done.stderr and len(done.stdout.splitlines()) == 3
    assert "from a budget of 100 on: chosen without it" in done.stderr
    elsewhere = CliRunner().invoke(cli, arguments)
    assert isinstance(elsewhere.exception, InputError) and "--evidence-images" in str(elsewhere.exception)
    nothing = CliRunner().invoke(cli, ["select", str(folder), "-n", "2"])
    assert isinstance(nothing.exception, InputError) and "no images found" in str(nothing.exception)


def test_a_table_with_any_rating_is_not_replaced(tmp_path):
    rows = [f"image number {i:04}.png,,0.5000,1\n" for i in range(400)]
    header, path = "image,mos,score,stands_for\n", tmp_path / "select.csv"
    for content, unrated in [
        (header + "".join(rows), True),
        (header + "".join(rows) + "last.png,4,0.5,1\n", False),  # beyond any first bytes
        (header + "last.png,4,0.5,1", False),
        (header + '"a,,b.png",4,0.5,1\n' + rows[0], False),
        ("image,mos\na.png,\n", False),
    ]:
        path.write_text(content)
        assert is_unrated(path) is unrated
