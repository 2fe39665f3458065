"""Comparing generators: numbers by hand, verdicts in words, bad input, nothing scored twice, the command line."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import leafiqa
from leafiqa.errors import InputError, OutputError
from leafiqa.generators.comparing import compare_scores
from leafiqa.generators.samples import Sample
from tests.conftest import invoke, make_picture
from tests.generators.folders import brightness, flat, grey

PICTURES = Path(leafiqa.__file__).parent / "cli" / "pictures"


def samples_of(scores):
    """Return samples and scores of `{generator: [[scores of a prompt's pictures], ...]}`."""
    samples, values = [], []
    for generator, prompts in scores.items():
        for number, of in enumerate(prompts):
            for seed, score in enumerate(of):
                samples.append(Sample(f"{generator}/{number}_{seed}.png", generator, f"p{number}", f"p{number}"))
                values.append(score)
    return samples, np.array(values, dtype=np.float64)


def test_numbers_are_those_one_gets_by_hand():
    samples, scores = samples_of(
        {"a": [[0.2, 0.4], [0.5], [0.9], [0.1]], "b": [[0.4], [0.5], [0.6], [math.nan]], "c": [[math.nan]]}
    )
    found = compare_scores("m", samples, scores, below=0.45)
    a, b, c = (next(of for of in found.generators if of.name == name) for name in "abc")
    assert a.mean == pytest.approx((0.3 + 0.5 + 0.9 + 0.1) / 4)  # prompts count alike, not pictures
    assert (a.prompts, a.images, a.failed, a.below) == (4, 5, 0, 0.6)
    assert a.median == pytest.approx(0.4) and a.worst == pytest.approx(np.percentile([0.2, 0.4, 0.5, 0.9, 0.1], 5))
    assert (b.prompts, b.failed) == (3, 1) and (c.images, c.failed) == (0, 1) and math.isnan(c.mean)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.prompts) == ("a", "b", 3)
    differences = np.array([-0.1, 0.0, 0.3])
    assert pair.difference == pytest.approx(differences.mean())
    assert pair.won == pytest.approx(0.5)  # one won, one lost, one tied
    assert pair.effect == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert pair.correlation == pytest.approx(np.corrcoef([0.3, 0.5, 0.9], [0.4, 0.5, 0.6])[0, 1])
    assert [one.unit for one in pair.prompt_differences] == ["p0", "p1", "p2"]
    assert pair.seen_from("b") == (pytest.approx(-pair.difference), (-pair.interval[1], -pair.interval[0]))
    assert [of.name for of in found.generators] == ["a", "b", "c"] and "c" not in found.ranks


def test_pictures_of_one_prompt_are_not_counted_as_independent():
    """Sixteen seeds of ten prompts: the interval is that of ten numbers, three times as wide as that of 160."""
    rng = np.random.default_rng(0)
    prompts = {g: rng.normal(0.5, 0.1, (10, 1)) + rng.normal(0, 0.02, (10, 16)) for g in "ab"}
    samples, scores = samples_of({g: of.tolist() for g, of in prompts.items()})
    pair = compare_scores("m", samples, scores).pairs[0]
    naive = 1.96 * np.hypot(prompts["a"].std(), prompts["b"].std()) / math.sqrt(160)
    assert (pair.interval[1] - pair.interval[0]) / 2 > 3 * naive


def verdict(differences, margin=None, **others):
    """Return the verdict on two generators whose prompts differ by these numbers."""
    base = np.linspace(0.3, 0.6, len(differences))
    scores = {"a": [[x] for x in base + differences], "b": [[x] for x in base]}
    found = compare_scores("m", *samples_of({**scores, **others}), margin=margin)
    return found.pair("a", "b").verdict


def test_verdicts():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 40)
    noise -= noise.mean()
    assert verdict(0.1 + noise).words == "a is better than b"
    assert verdict(noise - 0.1).decision == "better" and verdict(noise - 0.1).words == "b is better than a"
    assert verdict(0.01 + noise / 100, margin=0.05).words == "a is better than b, though by less than 0.05"
    assert verdict(noise, margin=0.05).words == "no difference larger than 0.05 between a and b"
    open_ = verdict(0.02 + noise, margin=0.005)
    deviation = np.std(noise, ddof=1)
    needed = (1.96 + 0.8416) ** 2 * (deviation / 0.02) ** 2 - 40
    assert open_.decision == "cannot tell" and open_.more_prompts == pytest.approx(needed, rel=0.06)
    assert open_.words == f"cannot tell yet: about {open_.more_prompts} more prompts would"
    assert verdict(np.full(5, 0.2) + noise[:5] / 9).words == (
        "cannot tell with 5 prompts: p cannot fall below 0.062 whatever their scores; at least 6 prompts are needed"
    )
    assert "one prompt tells nothing about others" in verdict(np.array([0.3])).words
    assert verdict(np.zeros(8)).decision == "no difference"


def test_with_more_pairs_more_prompts_are_needed():
    differences = np.full(7, 0.2) + np.linspace(0, 0.01, 7)
    assert verdict(differences).decision == "better"
    others = {name: [[0.5 + 0.01 * i * n] for i in range(7)] for n, name in enumerate("cdef")}
    found = verdict(differences, **others)
    assert found.decision == "cannot tell" and "at least 10 prompts are needed" in found.words


def test_generators_with_other_prompts_are_ordered_by_what_they_share():
    """b has harder prompts of its own, which lower its mean; on shared ones it is better."""
    samples, scores = samples_of({"a": [[0.5]] * 6, "b": [[0.6]] * 6})
    hard = [Sample(f"b/h{i}.png", "b", f"h{i}", f"h{i}") for i in range(6)]
    found = compare_scores("m", [*samples, *hard], np.append(scores, [0.1] * 6))
    assert [of.name for of in found.generators] == ["b", "a"]
    assert found.generators[0].mean < found.generators[1].mean


def folders(tmp_path, count=12):
    levels = np.linspace(60, 160, count).astype(int)
    flat(tmp_path / "a", levels + 40)
    flat(tmp_path / "b", levels + np.arange(count) % 3)
    flat(tmp_path / "c", levels + np.arange(count) % 2)
    return {name: tmp_path / name for name in "abc"}


def test_any_callable_and_several_metrics_whose_agreement_is_shown(tmp_path):
    places = folders(tmp_path)

    def darkness(path):
        return 1 - brightness(path)

    found = leafiqa.compare(places, [brightness, darkness])
    assert found["brightness"].pair("a", "b").verdict.words == "a is better than b"
    assert found["darkness"].pair("a", "b").verdict.words == "b is better than a"
    (agreement,) = found.agreement
    assert agreement.srcc == pytest.approx(-1) and agreement.opposed == 2
    assert any("call opposite generators better in 2 pair" in remark for remark in found.remarks)
    rng = np.random.default_rng(0)
    random = {str(path): float(rng.random()) for name in "abc" for path in sorted((tmp_path / name).iterdir())}
    again = leafiqa.compare(places, [brightness, lambda path: brightness(path) ** 2, Random(random)])
    assert any(remark.startswith("Random stands alone") for remark in again.remarks)
    with pytest.raises(InputError, match="the metric brightness is given twice"):
        leafiqa.compare(places, [brightness, brightness])


class Random:
    """A metric that says nothing."""

    def __init__(self, scores):
        self.scores = scores

    def __call__(self, path):
        return self.scores[path]


def test_columns_of_others_get_the_same_statistics(tmp_path):
    table = tmp_path / "t.csv"
    lines = ["image,generator,prompt,pickscore"]
    for number in range(10):
        for name, level in (("a", 100), ("b", 50)):
            grey(tmp_path / f"{name}{number}.png", level)
            lines.append(f"{name}{number}.png,{name},p{number},{20 + number + (name == 'b') + number % 3 / 10}")
    table.write_text("\n".join(lines))
    found = leafiqa.compare(table, brightness, columns=["pickscore"])
    assert found.metrics[0].pairs[0].verdict.words == "a is better than b"
    assert found["pickscore"].pairs[0].first == "b" and found["pickscore"].pairs[0].won == 1
    only = leafiqa.compare(table, columns=["pickscore"])
    assert [result.metric for result in only.metrics] == ["pickscore"]
    with pytest.raises(InputError, match=r"lacks the column\(s\) clip"):
        leafiqa.compare(table, brightness, columns=["clip"])
    with pytest.raises(InputError, match="lists of pictures, not for folders"):
        leafiqa.compare({"a": tmp_path, "b": tmp_path}, columns=["clip"])


def test_unequal_folders_failed_pictures_and_generators_of_nothing_else(tmp_path):
    places = folders(tmp_path)
    (tmp_path / "b" / "0003.png").write_bytes(b"broken")
    (tmp_path / "c" / "0011.png").unlink()
    (tmp_path / "d").mkdir()
    for number in range(3):
        (tmp_path / "d" / f"{number:04}.png").write_bytes(b"")
    found = leafiqa.compare({**places, "d": tmp_path / "d"}, brightness)
    result = found.metrics[0]
    assert result.pair("a", "b").prompts == 11 and result.pair("a", "c").prompts == 11
    assert result.pair("a", "d") is None and result.generators[-1].name == "d" and result.generators[-1].failed == 3
    assert len(found.failed) == 4
    told = " ".join(found.remarks)
    assert "d: 3 of 3 pictures have no score" in told and "b: 1 of 12 pictures have no score" in told
    assert "several generators but not in all" in told
    with pytest.raises(InputError, match="fewer than two generators have any score"):
        leafiqa.compare({"a": tmp_path / "a", "d": tmp_path / "d"}, brightness)


def test_no_shared_prompt_is_an_error_that_says_what_to_do(tmp_path):
    flat(tmp_path / "a", [1, 2])
    grey(tmp_path / "b" / "x.png", 3)
    with pytest.raises(
        InputError, match=r"no two generators share a prompt.*a has '0000', b has 'x'.*image, generator"
    ):
        leafiqa.compare({"a": tmp_path / "a", "b": tmp_path / "b"}, brightness)


def test_the_noise_floor_and_the_best_of_n_need_several_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for seeds in ("1", "2"):
        for name in "ab":
            flat(tmp_path / f"{name}{seeds}", rng.integers(50, 200, 20))
    found = leafiqa.compare({"a": [tmp_path / "a1", tmp_path / "a2"], "b": tmp_path / "b1"}, brightness)
    of = {one.name: one for one in found.metrics[0].generators}
    assert of["a"].noise > 0.02 and math.isnan(of["b"].noise)
    assert len(of["a"].best_of) == 2 and of["a"].best_of[1] > of["a"].best_of[0] == pytest.approx(of["a"].mean)
    assert len(of["b"].best_of) == 1
    assert "noise floor" in str(found) and "best of N, a" in str(found)


@pytest.fixture
def real(tmp_path):
    """Two generators of real pictures: six parts of photographs, and the same ones blurred."""
    photographs = [Image.open(path).convert("RGB") for path in sorted(PICTURES.glob("*.*")) if path.suffix != ".txt"][
        :2
    ]
    for number in range(6):
        whole = photographs[number % 2]
        left, side = number * 20, min(whole.size) - 60
        image = whole.crop((left, 10 * number, left + side, 10 * number + side)).resize((256, 256))
        for name, radius in (("sharp", 0), ("soft", 3)):
            (tmp_path / name).mkdir(exist_ok=True)
            image.filter(ImageFilter.GaussianBlur(radius)).save(tmp_path / name / f"{number}.png")
    return {"sharp": tmp_path / "sharp", "soft": tmp_path / "soft"}


def test_nothing_is_scored_twice(real, metric, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "scores.sqlite"
    first = leafiqa.compare(real, metric, cache=cache)
    assert not any("known already" in remark for remark in first.remarks)

    def never(*arguments, **options):
        raise AssertionError("scored again")

    monkeypatch.setattr(
        "leafiqa.generators.scoring_samples.score_files", lambda m, paths, *rest: iter(map(never, paths))
    )
    (real["soft"] / "0.png").rename(real["soft"] / "00.png")
    (real["sharp"] / "0.png").rename(real["sharp"] / "00.png")
    again = leafiqa.compare(real, metric, cache=cache)
    assert any("12 scores were known already" in remark for remark in again.remarks)
    assert again.metrics[0].pairs[0].difference == pytest.approx(first.metrics[0].pairs[0].difference, abs=1e-9)
    with pytest.raises(AssertionError, match="scored again"):
        leafiqa.compare(real, metric, cache=None)
    with pytest.raises(AssertionError, match="scored again"):  # other weights, other scores
        leafiqa.compare(real, "leaf_lite2.general", cache=cache, device="cpu")
    Image.fromarray(make_picture(seed=99)).save(real["soft"] / "3.png")
    with pytest.raises(AssertionError, match="scored again"):
        leafiqa.compare(real, metric, cache=cache)


def test_a_cache_that_cannot_be_used_says_what_to_do(real, metric, tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(OutputError, match=r"cannot use the cache of scores .*--no-cache"):
        leafiqa.compare(real, metric, cache=tmp_path / "text")


def test_files_of_scores_are_taken_as_they_are(real, metric, tmp_path, monkeypatch):
    for name, folder in real.items():
        leafiqa.score(folder, metric).to_csv(tmp_path / f"{name}.csv")
    leafiqa.score(list(real.values()), metric).to_csv(tmp_path / "both.csv")
    wanted = leafiqa.compare(real, metric, cache=None).metrics[0].pairs[0]
    monkeypatch.setattr("leafiqa.generators.scoring_samples.score_files", None)
    for places in ({name: tmp_path / f"{name}.csv" for name in real}, tmp_path / "both.csv"):
        found = leafiqa.compare(places)
        assert found.metrics[0].metric == "leaf_lite0.general"
        pair = found.metrics[0].pairs[0]
        assert (pair.first, pair.prompts) == ("sharp", 6)
        assert pair.difference == pytest.approx(wanted.difference, abs=2e-6)
    Image.fromarray(make_picture(seed=50)).save(real["soft"] / "2.png")
    changed = leafiqa.compare(tmp_path / "both.csv")
    assert list(changed.failed.values()) == ["the picture changed since it was scored: score it again"]
    rows = (tmp_path / "soft.csv").read_text().replace("leaf_lite0.general", "leaf_other.tag")
    (tmp_path / "soft.csv").write_text(rows)
    with pytest.raises(InputError, match="no metric is in the scores of every generator"):
        leafiqa.compare({name: tmp_path / f"{name}.csv" for name in real})


def test_the_command(real, tmp_path):
    arguments = [f"{name}={folder}" for name, folder in real.items()]
    done = invoke("compare", *arguments, "--below", "0.5", cwd=tmp_path)
    assert done.returncode == 0
    assert "sharp is better than soft" in done.stdout and "below 0.5" in done.stdout
    assert "6 prompts are in all generators" in done.stderr
    told = json.loads(invoke("compare", *arguments, "--json").stdout)
    assert told["metrics"][0]["pairs"][0]["verdict"]["decision"] == "better"
    assert told["metrics"][0]["pairs"][0]["prompts_won"][0]["difference"] > 0
    outputs = {"--csv": "g.csv", "--differences": "d.csv", "--scores": "s.csv", "--html": "p.html"}
    flags = [part for flag, name in outputs.items() for part in (flag, tmp_path / name)]
    assert invoke("compare", *arguments, *flags).returncode == 0
    with (tmp_path / "g.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["generator"] for row in rows] == ["sharp", "soft"] and rows[0]["rank_worst"] == "1"
    with (tmp_path / "d.csv").open() as file:
        assert next(csv.DictReader(file))["verdict"] == "sharp is better than soft"
    # What it writes it reads again: a table with the scores as a column.
    again = leafiqa.compare(tmp_path / "s.csv", columns=["leaf_lite0.general"])
    assert again.metrics[0].pairs[0].first == "sharp"
    refused = invoke("compare", *arguments, *flags)
    assert refused.returncode == 2 and "exists already" in refused.stderr
    assert invoke("compare", *arguments, *flags, "--overwrite").returncode == 0


def test_ci_gets_an_exit_status(real):
    arguments = [f"{name}={folder}" for name, folder in real.items()]
    worse = invoke("compare", *arguments, "--fail-if-worse", "sharp")
    assert worse.returncode == 3 and "sharp is better than soft, by 0." in worse.stderr
    assert invoke("compare", *arguments, "--fail-if-worse", "soft").returncode == 0
    assert invoke("compare", *arguments, "--fail-if-worse", "sharp", "--by", "0.9").returncode == 0
    wrong = invoke("compare", *arguments, "--fail-if-worse", "shrp")
    assert wrong.returncode == 2 and "must be one of sharp, soft, got shrp" in wrong.stderr
    assert invoke("compare", *arguments, "--by", "0.9").returncode == 2
    assert invoke("compare", *arguments, "--json", "--latex").returncode == 2


def test_tables_for_papers(tmp_path):
    found = leafiqa.compare({"a_1 & co": folders(tmp_path)["a"], "b|c": tmp_path / "b"}, brightness)
    latex = found.to_latex()
    assert (
        r"1 & a\_1 \& co & 0." in latex and r"\caption{Image quality by brightness" in latex and "12 prompts" in latex
    )
    markdown = found.to_markdown()
    assert "| 1 | a\\_1 &amp; co |" in markdown and "b\\|c" in markdown
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_pandas(), pandas.DataFrame)


def test_arguments_are_checked(tmp_path):
    places = folders(tmp_path)
    for wrong, message in (
        ({"seed": -1}, "seed must be a whole number"),
        ({"below": "x"}, "below must be a finite number"),
        ({"margin": -1}, "margin must be a number from 0 on"),
        ({"columns": "clip"}, "columns must be a list"),
        ({"metric": []}, "metric must be a metric or several"),
        ({"metric": "leaf", "weights": "x"}, "give metric or weights"),
    ):
        with pytest.raises(InputError, match=message):
            leafiqa.compare(places, **{"metric": brightness, **wrong})


def test_a_hundred_thousand_rows(tmp_path):
    """Ten thousand prompts in five generators with two seeds: seconds, and the same numbers as by hand."""
    rng = np.random.default_rng(0)
    table = tmp_path / "big.csv"
    prompts = rng.normal(0.5, 0.1, 10_000)
    with table.open("w") as file:
        file.write("image,generator,prompt,seed,q\n")
        for g in range(5):
            scores = prompts[:, None] + 0.01 * g + rng.normal(0, 0.1, (10_000, 2))
            for number, of in enumerate(scores.round(5).tolist()):
                for seed, score in enumerate(of):
                    file.write(f"g{g}/{number}_{seed}.png,g{g},p{number},{seed},{score}\n")
    import tracemalloc

    tracemalloc.start()
    found = leafiqa.compare(table, columns=["q"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [of.name for of in found.metrics[0].generators] == ["g4", "g3", "g2", "g1", "g0"]
    assert found.metrics[0].pairs[0].difference == pytest.approx(0.01, abs=0.004)
    assert peak < 600e6
