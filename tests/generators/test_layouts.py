"""Each layout in use is read as meant, an ambiguous one is refused with both readings, nothing is lost in silence."""

import json
from collections import Counter

import pytest

import leafiqa
from leafiqa.errors import InputError
from leafiqa.generators.places import as_mapping, as_places, gather_samples
from tests.generators.folders import flat, geneval, grey


def gathered(places, **options):
    return gather_samples(as_places(places), **options)


def pictures(samples):
    """Return how many pictures each generator has of each unit."""
    return Counter((sample.generator, sample.unit) for sample in samples.samples)


def test_the_same_name_in_each_folder_is_a_prompt_whatever_the_ending(tmp_path):
    flat(tmp_path / "a", [10, 20, 30])
    flat(tmp_path / "b" / "images", [10, 20, 30, 40], ".jpg")
    samples = gathered({"one": tmp_path / "a", "two": tmp_path / "b"})
    assert "names" in samples.layout
    assert samples.units()["0001"] == ["one", "two"]
    assert samples.unpaired() == {"two": ["0003"]}
    told = " ".join(samples.pairing())
    assert "3 prompts are in all generators" in told and "two: 1 prompts that no other generator has" in told


def test_geneval_is_read_with_its_prompts_and_without_its_overviews(tmp_path):
    for name in ("a", "b"):
        geneval(tmp_path / name, ["a cat", "a dog"], 50)
    (tmp_path / "b" / "00001" / "metadata.jsonl").write_text("{damaged")
    samples = gathered([tmp_path / "a", tmp_path / "b"])
    assert "geneval" in samples.layout
    assert pictures(samples) == dict.fromkeys([(g, u) for g in "ab" for u in ("00000", "00001")], 2)
    assert {sample.prompt for sample in samples.samples if sample.generator == "a"} == {"a cat", "a dog"}
    remarks = " ".join(samples.remarks)
    assert "4 pictures beside samples/ left out" in remarks and "metadata.jsonl: no prompt can be read" in remarks


def test_geneval_of_different_lists_of_prompts_is_refused(tmp_path):
    geneval(tmp_path / "a", ["a cat", "a dog"], 50)
    geneval(tmp_path / "b", ["a cat", "a frog"], 50)
    with pytest.raises(InputError, match="the number 00001 means different prompts"):
        gathered([tmp_path / "a", tmp_path / "b"])


def test_a_sentence_and_a_number_are_a_prompt_and_a_seed(tmp_path):
    for start, name in enumerate("ab"):
        for number, prompt in enumerate(["a red cup", "a red cup", "a blue bowl and a cat", "a blue bowl and a cat"]):
            grey(tmp_path / name / "samples" / f"{prompt}_{number + 10 * start:06}.png", 50)
    samples = gathered([tmp_path / "a", tmp_path / "b"])
    assert "numbered" in samples.layout
    assert pictures(samples)[("a", "a red cup")] == 2 and len(samples.units()) == 2


def test_styles_of_hpsv2_are_no_prompts_and_no_generators(tmp_path):
    for name in ("a", "b"):
        for style in ("anime", "photo"):
            flat(tmp_path / name / style, [1, 2, 3], ".jpg")
    samples = gathered([tmp_path / "a", tmp_path / "b"])
    assert set(samples.units()) == {f"{style}/{n:04}" for style in ("anime", "photo") for n in range(3)}
    with pytest.raises(InputError, match=r"styles of one generator \(HPSv2\), or generators"):
        gathered(tmp_path / "a")


def test_a_folder_for_each_prompt(tmp_path):
    for name in ("a", "b"):
        for prompt in ("a cat on a mat", "two dogs"):
            for seed in range(3):
                grey(tmp_path / name / prompt / f"{seed}.png", 50)
    samples = gathered([tmp_path / "a", tmp_path / "b"])
    assert pictures(samples)[("b", "two dogs")] == 3


@pytest.mark.parametrize(
    ("names", "first", "second"),
    [
        (["cat_000.png", "cat_001.png", "dog_002.png", "dog_003.png"], "names:", "numbered:"),
        (["cat/x.png", "cat/y.png", "dog/x.png", "dog/y.png"], "names:", "folders:"),
    ],
)
def test_two_readings_are_an_error_that_shows_both(tmp_path, names, first, second):
    for generator in "ab":
        for name in names:
            grey(tmp_path / generator / name, 50)
    with pytest.raises(InputError, match="more than one way") as raised:
        gathered([tmp_path / "a", tmp_path / "b"])
    told = str(raised.value)
    assert first in told and second in told and "4 prompts" in told and "2 prompts" in told and "--layout" in told
    wanted = second.rstrip(":")
    assert len(gathered([tmp_path / "a", tmp_path / "b"], layout=wanted).units()) == 2
    assert len(gathered([tmp_path / "a", tmp_path / "b"], layout="names").units()) == 4


def test_readings_that_come_to_the_same_are_no_question(tmp_path):
    for generator in "ab":
        grey(tmp_path / generator / "cat_000.png", 50)
        grey(tmp_path / generator / "dog_001.png", 50)
    assert len(gathered([tmp_path / "a", tmp_path / "b"]).units()) == 2


def test_running_numbers_of_one_stem_are_prompts(tmp_path):
    for generator in "ab":
        for number in range(4):
            grey(tmp_path / generator / f"img_{number:04}.png", 50)
    assert len(gathered([tmp_path / "a", tmp_path / "b"]).units()) == 4


def test_one_folder_holds_a_folder_for_each_generator(tmp_path):
    for name in ("flux", "sdxl"):
        flat(tmp_path / "out" / name, [1, 2])
    grey(tmp_path / "out" / "overview.png", 9)
    samples = gathered(tmp_path / "out")
    assert samples.generators == ["flux", "sdxl"]
    assert any("1 pictures of no generator" in remark for remark in samples.remarks)


def test_the_same_generator_twice_is_a_second_set_of_seeds(tmp_path):
    for name in ("a1", "a2", "b"):
        flat(tmp_path / name, [1, 2])
    samples = gathered({"a": [tmp_path / "a1", tmp_path / "a2"], "b": tmp_path / "b"})
    assert pictures(samples) == {("a", "0000"): 2, ("a", "0001"): 2, ("b", "0000"): 1, ("b", "0001"): 1}


def test_two_pictures_of_one_name_are_refused(tmp_path):
    grey(tmp_path / "a" / "x.png", 1)
    grey(tmp_path / "a" / "x.jpg", 1)
    flat(tmp_path / "b", [1])
    with pytest.raises(InputError, match=r"two pictures of one name: x\.(png|jpg) and x\.(png|jpg)"):
        gathered([tmp_path / "a", tmp_path / "b"])


def test_tables_and_json_lines(tmp_path):
    for name in "abcd":
        grey(tmp_path / f"{name}.png", 50)
    table = tmp_path / "pictures.csv"
    table.write_text(
        "image;Generator;prompt;seed;clip\na.png;one;a cat;1;0,5\nb.png;two;a cat;1;\nc.png;one;;1;0,2\n"
        "d.png;two;a dog;1;0,25\n"
    )
    samples = gathered(table, columns=["clip"])
    assert pictures(samples) == {("one", "a cat"): 1, ("two", "a cat"): 1, ("two", "a dog"): 1}
    assert [dict(sample.columns)["clip"] for sample in samples.samples] == [0.5, None, 0.25]
    assert any("1 rows left out: 'line 4: no prompt'" in remark for remark in samples.remarks)
    assert any("1 cells of column clip hold no number" in remark for remark in samples.remarks)
    for name in ("one", "two"):
        rows = [{"id": i, "prompt": f"p {i}", "image_path": f"{'ab'[i]}.png"} for i in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = gathered({"one": tmp_path / "one.jsonl", "two": tmp_path / "two.jsonl"})
    assert found.units() == {"p 0": ["one", "two"], "p 1": ["one", "two"]}
    with pytest.raises(InputError, match="lacks a column generator"):
        gathered(tmp_path / "one.jsonl")
    with pytest.raises(InputError, match="given without a name"):
        gathered({"one": table, "two": table})
    (tmp_path / "one.jsonl").write_text('{"id": 1\n')
    with pytest.raises(InputError, match=r"one\.jsonl, line 1: no JSON"):
        gathered({"one": tmp_path / "one.jsonl", "two": tmp_path / "two.jsonl"})


def test_arguments(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert as_mapping(["x=1", "y=2", "x=3"]) == {"x": ["1", "3"], "y": ["2"]}
    assert as_mapping([str(tmp_path / "a=b")]) == [str(tmp_path / "a=b")]
    with pytest.raises(InputError, match="a name"):
        as_mapping(["x=1", "y"])
    flat(tmp_path / "c", [1])
    for wrong, message in (
        ({"a": tmp_path / "c"}, "two generators are needed"),
        ({"a": tmp_path / "c", "b": tmp_path / "none"}, "no such file or folder"),
        ({"a": tmp_path / "c", "b": tmp_path / "c" / "0000.png"}, "neither a folder, nor a table"),
        (7, "must be a mapping"),
        ([7, 8], "must be paths"),
    ):
        with pytest.raises(InputError, match=message):
            leafiqa.compare(wrong, lambda path: 0.0)
    with pytest.raises(InputError, match="layout must be one of names, numbered, folders, geneval"):
        gathered({"a": tmp_path / "c", "b": tmp_path / "c"}, layout="flat")
    with pytest.raises(InputError, match="does not fit"):
        gathered({"a": tmp_path / "c", "b": tmp_path / "c"}, layout="geneval")
