"""Faults that were found once: numbers of rare values, many pairs, words that say too much, files read in silence."""

import re
import sqlite3
import time

import numpy as np
import pytest

import leafiqa
from leafiqa.errors import InputError, OutputError
from leafiqa.generators.best_of import best_of_curve, expected_best
from leafiqa.generators.comparing import compare_scores
from leafiqa.generators.paired_statistics import mean_interval, sign_flip_p
from leafiqa.generators.rendering import headline
from tests.conftest import invoke
from tests.generators.folders import brightness, flat, grey
from tests.generators.test_compare import samples_of


@pytest.mark.parametrize("values", [np.r_[np.zeros(98), 1.0, 1.0], np.r_[np.full(98, 0.0345), 0.2, 0.2]])
def test_rare_values_do_not_blow_up_an_interval(values):
    low, high = mean_interval(values)
    assert low <= values.mean() <= high and high - low < 6 * values.std() / 10


def test_with_many_generators_something_can_still_be_better():
    rng = np.random.default_rng(0)
    samples, scores = samples_of({f"g{g:02}": (g + rng.normal(0, 0.01, (50, 1))).tolist() for g in range(24)})
    found = compare_scores("m", samples, scores)
    assert all(pair.verdict.decision == "better" for pair in found.pairs)
    assert headline(found) == "g23 is better than all 23 others."
    assert sign_flip_p(np.full(40, 0.1) + rng.normal(0, 0.01, 40)) < 2e-5
    assert sign_flip_p(np.full(2000, 0.1) + rng.normal(0, 0.01, 2000)) < 1e-9


def test_the_headline_does_not_say_more_than_the_pairs():
    # A wins by much where B is not, and loses to B where both are.
    a_b = {"A": [[0.5 + 0.001 * i] for i in range(20)], "B": [[0.6 + 0.002 * i] for i in range(20)]}
    samples, scores = samples_of(a_b)
    more, values = samples_of({"A": [[2.0 + 0.01 * i] for i in range(20)], "C": [[1.0 + 0.003 * i] for i in range(20)]})
    from dataclasses import replace

    more = [replace(one, unit=f"x{one.unit}") for one in more]
    again, third = samples_of(
        {"B": [[0.6 + 0.002 * i] for i in range(20)], "C": [[0.5 + 0.001 * i] for i in range(20)]}
    )
    again = [replace(one, unit=f"y{one.unit}") for one in again]
    found = compare_scores("m", [*samples, *more, *again], np.concatenate([scores, values, third]))
    assert found.generators[0].name == "A" and found.pair("A", "B").better == "B"
    told = headline(found)
    assert told.startswith("No generator is clearly the best: A stands highest over all pairs, but B is better than it")


def test_two_prompts_bound_nothing_and_the_same_pictures_are_named():
    samples, scores = samples_of({"a": [[0.5], [0.7]], "b": [[0.5 + 1e-9], [0.7 - 1e-9]]})
    assert compare_scores("m", samples, scores, margin=0.1).pairs[0].verdict.decision == "cannot tell"
    samples, scores = samples_of({"a": [[0.5], [0.7], [0.1]], "b": [[0.5], [0.7], [0.1]]})
    assert "are they the same pictures?" in compare_scores("m", samples, scores).pairs[0].verdict.words


def test_ci_is_told_when_the_candidate_was_not_compared(tmp_path):
    table = tmp_path / "t.csv"
    rows = [("main", f"m{i}", 0.9) for i in range(8)] + [("cand", f"p{i}", 0.1) for i in range(8)]
    rows += [("other", f"p{i}", 0.5) for i in range(8)]
    table.write_text("image,generator,prompt,q\n" + "".join(f"{g}{p}.png,{g},{p},{q}\n" for g, p, q in rows))
    done = invoke("compare", table, "--column", "q", "--fail-if-worse", "main")
    assert done.returncode == 2 and "no prompt with a score in common with the baseline main" in done.stderr
    assert "stands highest" in done.stdout  # what was computed is not lost
    with pytest.raises(InputError, match="metric must be one of q, got 'nope'"):
        leafiqa.compare(table, columns=["q"])["nope"]


def test_places_of_one_name_are_not_put_together(tmp_path):
    for run in ("r1", "r2", "r3"):
        flat(tmp_path / run / "out", [50, 60])
    with pytest.raises(InputError, match="two places would both be called out"):
        leafiqa.compare([tmp_path / "r1" / "out", tmp_path / "r2" / "out", tmp_path / "r3"], brightness)
    for wrong in ({"a": [None]}, {"a": b"x"}, {"a": []}, {"": tmp_path}):
        with pytest.raises(InputError, match="generators must map names"):
            leafiqa.compare(wrong, brightness)
    places = {"a": tmp_path / "r1" / "out", "b": tmp_path / "r2" / "out"}
    for options, message in (({"columns": 5}, "columns"), ({"layout": ["names"]}, "layout"), ({"cache": 5}, "cache")):
        with pytest.raises(InputError, match=message):
            leafiqa.compare(places, brightness, **options)
    done = invoke("report", tmp_path / "r1" / "out" / "a=*.png", "-o", tmp_path / "p.html")
    assert "a=*.png" in done.stderr + (tmp_path / "p.html").read_text()  # a pattern, not NAME=PLACE


def test_decimal_commas_of_three_digits_and_listed_pictures(tmp_path):
    table = tmp_path / "t.csv"
    lines = [
        f"{g}{i}.png;{g};p{i};{0.3 + (g == 'a') / 4 + i / 1000:.3f}".replace(".", ",", 2)
        for g in "ab"
        for i in range(8)
    ]
    lines = [line.replace(",png", ".png") for line in lines]
    table.write_text("﻿image;generator;prompt;q\n" + "\n".join(lines), encoding="utf-8")
    found = leafiqa.compare(table, columns=["q"])
    assert found.failed == {} and found.metrics[0].generators[0].mean == pytest.approx(0.5535, abs=1e-6)
    with pytest.raises(InputError, match="listed twice with different scores"):
        table.write_text("image,generator,prompt,q\nx.png,a,p,.1\nx.png,a,p,.9\ny.png,b,p,.5\n")
        leafiqa.compare(table, columns=["q"])
    table.write_text(
        "id,image,generator,prompt,q\n" + "".join(f"{i},{g}{i}.png,{g},same,.{i}\n" for g in "ab" for i in range(4))
    )
    assert any(
        "1 prompts stand under several ids" in remark for remark in leafiqa.compare(table, columns=["q"]).remarks
    )
    table.write_text("image,generator,prompt\n" + "x.png,a,\n" * 3000 + "x.png,a,p\ny.png,b,p\n")
    with pytest.raises(InputError, match="fewer than two generators have any score"):
        leafiqa.compare(table, brightness)
    from leafiqa.generators.places import as_places, gather_samples

    remarks = gather_samples(as_places(table)).remarks
    assert len(remarks) == 1 and "3000 rows left out" in remarks[0] and len(remarks[0]) < 500


def test_what_compare_writes_it_reads_again_prompt_by_prompt(tmp_path):
    from tests.generators.folders import geneval

    for name, level in (("a", 60), ("b", 40)):
        geneval(tmp_path / name, ["a cat", "a cat", "a dog", "a cat", "a dog", "a dog"], level)
    first = leafiqa.compare({"a": tmp_path / "a", "b": tmp_path / "b"}, brightness)
    first.scores_to_csv(tmp_path / "s.csv")
    again = leafiqa.compare(tmp_path / "s.csv", columns=["brightness"])
    assert again.metrics[0].pairs[0].prompts == first.metrics[0].pairs[0].prompts == 6
    assert again.metrics[0].pairs[0].corrected_p == first.metrics[0].pairs[0].corrected_p

    def prompt(path):
        return 0.0

    with pytest.raises(InputError, match="cannot be called prompt"):
        leafiqa.compare({"a": tmp_path / "a", "b": tmp_path / "b"}, prompt)


def test_a_wrapper_is_called_itself(tmp_path, metric):
    class Wrap:
        def __init__(self):
            self.metric = metric

        def __call__(self, path):
            return brightness(path) - 1

    flat(tmp_path / "a", [10] * 6)
    flat(tmp_path / "b", [200] * 6)
    found = leafiqa.compare({"a": tmp_path / "a", "b": tmp_path / "b"}, Wrap())
    assert found.metrics[0].metric == "Wrap" and found.metrics[0].generators[0].mean < 0


def test_files_of_scores_that_are_torn_saved_again_or_of_other_weights(tmp_path, metric):
    for name in "ab":
        flat(tmp_path / name, [50, 100, 150])
        leafiqa.score(tmp_path / name, metric).to_csv(tmp_path / f"{name}.csv")
        leafiqa.score(tmp_path / name, metric).save(tmp_path / f"{name}.json")
    places = {name: tmp_path / f"{name}.csv" for name in "ab"}
    wanted = leafiqa.compare(places).metrics[0].pairs[0].prompts
    by_json = leafiqa.compare({name: tmp_path / f"{name}.json" for name in "ab"})
    assert by_json.metrics[0].pairs[0].prompts == wanted == 3
    whole = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(whole[:-20])
    torn = leafiqa.compare(places)
    assert any("its last row has no end and is left out" in remark for remark in torn.remarks)
    saved = "﻿" + re.sub(r";0\.(\d{6});", r";0,\1;", whole.replace(",", ";"))
    assert ";0," in saved
    (tmp_path / "a.csv").write_text(saved, encoding="utf-8")
    assert leafiqa.compare(places).metrics[0].pairs[0].prompts == 3
    mixed = leafiqa.compare(
        {"a": tmp_path / "a", "b": tmp_path / "b.csv"}, "leaf_lite2.general", device="cpu", cache=None
    )
    assert any("of other weights: not used" in remark for remark in mixed.remarks)
    page = leafiqa.report(tmp_path / "b.csv", tmp_path / "p.html")
    assert "3 pictures, median score" in page.read_text()
    assert invoke("report", tmp_path / "b.csv", "-o", tmp_path / "q.html").returncode == 0


def test_folders_of_styles_pair_alike_as_folders_and_as_scores(tmp_path, metric):
    for name, styles in (("a", ("photo", "anime")), ("b", ("photo",))):
        for style in styles:
            flat(tmp_path / name / style, [50, 90, 130])
        leafiqa.score(tmp_path / name, metric, recursive=True).to_csv(tmp_path / f"{name}.csv")
    folders = leafiqa.compare({"a": tmp_path / "a", "b": tmp_path / "b"}, metric)
    scores = leafiqa.compare({"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"})
    assert folders.samples.units() == scores.samples.units() and folders.metrics[0].pairs[0].prompts == 3


def test_names_of_other_systems_pair(tmp_path):
    for name, prompt in (("mac", "cafe\u0301  noir"), ("linux", "caf\u00e9 noir")):
        for number in range(2):
            grey(tmp_path / name / f"{prompt} {number}.png", 50)
    assert leafiqa.compare({n: tmp_path / n for n in ("mac", "linux")}, brightness).metrics[0].pairs[0].prompts == 2


def test_a_cache_that_came_to_harm_costs_time_and_nothing_else(tmp_path, metric, monkeypatch):
    for name in "ab":
        flat(tmp_path / name, [50, 100])
    places = {name: tmp_path / name for name in "ab"}
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE scores (something TEXT)")
    other.close()
    with pytest.raises(OutputError, match="cannot use the cache of scores"):
        leafiqa.compare(places, metric, cache=tmp_path / "other.sqlite")
    leafiqa.compare(places, metric, cache=tmp_path / "c.sqlite")
    store = sqlite3.connect(tmp_path / "c.sqlite")
    store.execute("UPDATE scores SET score = 'text'")
    store.commit()
    store.close()
    again = leafiqa.compare(places, metric, cache=tmp_path / "c.sqlite")
    assert again.failed == {} and not any("known already" in remark for remark in again.remarks)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEAFIQA_CACHE", str(tmp_path / "file" / "scores.sqlite"))
    assert leafiqa.compare(places, metric).failed == {}  # nobody asked for that place


def test_all_that_can_be_refused_is_refused_before_the_work(tmp_path, monkeypatch):
    for name in "ab":
        flat(tmp_path / name, [50, 100])
    monkeypatch.setattr("leafiqa.compare", None)
    monkeypatch.setattr("leafiqa.best", None)
    arguments = [f"{name}={tmp_path / name}" for name in "ab"]
    (tmp_path / "mine.csv").write_text("a,b\n")
    (tmp_path / "x_thumbnails").mkdir()
    for flags in (
        ["--fail-if-worse", "c"],
        ["--html", tmp_path / "x.txt"],
        ["--html", tmp_path / "x.html", "--thumbnails", "beside"],
        ["--csv", tmp_path / "y.csv", "--scores", tmp_path / "y.csv"],
        ["--csv", tmp_path / "mine.csv", "--overwrite"],
    ):
        assert invoke("compare", *arguments, *flags).returncode == 2, flags
    assert invoke("best", tmp_path / "a", "--copy-to", tmp_path / "b").returncode == 2
    assert (tmp_path / "mine.csv").read_text() == "a,b\n"


def test_best_of_many_takes_no_time_and_is_exact():
    rng = np.random.default_rng(0)
    began = time.monotonic()
    curve = best_of_curve([rng.random(2000) for _ in range(20)])
    assert time.monotonic() - began < 5 and len(curve) == 64
    scores = rng.random(300)
    drawn = [rng.choice(scores, 20, replace=False).max() for _ in range(4000)]
    assert expected_best(scores, 20) == pytest.approx(np.mean(drawn), abs=0.003)
    assert expected_best(scores, 1) == pytest.approx(scores.mean())
    assert expected_best(scores, 300) == scores.max()


def test_copies_do_not_land_among_the_pictures_and_lists_steer_no_terminal(tmp_path):
    grey(tmp_path / "a" / "a cat" / "\x1b[2J1.png", 50)
    grey(tmp_path / "a" / "a cat" / "2.png", 40)
    done = invoke("best", tmp_path / "a", "--list", "--layout", "folders")
    assert "\x1b" not in done.stdout and len(done.stdout.splitlines()) == 1
    found = leafiqa.best(tmp_path / "a", brightness, layout="folders")
    with pytest.raises(OutputError, match="lies among the pictures"):
        found.copy_to(tmp_path / "a" / "a cat" / "new")
    with pytest.raises(InputError, match="layout tells prompts apart"):
        leafiqa.best(tmp_path / "a", brightness, per="all", layout="folders")


def test_markdown_holds_no_elements(tmp_path):
    name = "B'\"><svg onload=alert(1)>|x\\|y"
    flat(tmp_path / "a", [50] * 6)
    flat(tmp_path / "b", [90] * 6)
    text = leafiqa.compare({"a": tmp_path / "a", name: tmp_path / "b"}, brightness).to_markdown()
    assert "<svg" not in text and "&lt;svg onload" in text and "\\|x\\\\\\|y" in text


def test_a_page_does_not_tell_where_it_was_made(tmp_path):
    for name in "ab":
        flat(tmp_path / name, [50, 100])
    (tmp_path / "a" / "0002.png").write_bytes(b"x")
    page = leafiqa.report(leafiqa.compare({name: tmp_path / name for name in "ab"}, brightness), tmp_path / "p.html")
    assert str(tmp_path) not in page.read_text() and "a/0002.png" in page.read_text()
