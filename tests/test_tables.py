"""Tables as people and spreadsheets write them: recognised, or an error that names the row."""

import pytest

import leafiqa
from leafiqa.labels.mos_table import read_mos
from leafiqa.tables import read_table, safe_cell, to_number

ROWS = [{"image": "a.png", "mos": "3.7"}, {"image": "b.png", "mos": "4"}]


@pytest.mark.parametrize(
    "content",
    [
        b"image,mos\na.png,3.7\nb.png,4\n",
        b"\xef\xbb\xbfimage,mos\r\na.png,3.7\r\nb.png,4\r\n",
        b"image,mos\ra.png,3.7\rb.png,4\r",
        "image,mos\na.png,3.7\nb.png,4\n".encode("utf-16"),
        b"image;mos\na.png;3.7\nb.png;4\n",
        b"image\tmos\na.png\t3.7\nb.png\t4\n",
        b'\n"image", "mos"\n"a.png", "3.7"\n\n"b.png", "4"\n',
        b"image,mos,\na.png,3.7,\nb.png,4,\n",
    ],
)
def test_usual_forms_are_recognised(content, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert read_table(path).rows == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,mos\np.png,3,7\n", r"line 2: 3 cells under 2 columns: p\.png,3,7.*decimals with a point"),
        ("image,mos\na.png,1\nb.png,2,x\n", r"line 3: 3 cells"),
        ("image,mos,mos\na.png,1,2\n", r"column 'mos' stands twice"),
        ('image,mos\n"a.png,1\n', "line 2"),
        ("image,mos\na\0.png,1\n", "NUL"),
    ],
)
def test_what_would_lose_a_number_is_an_error(text, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(leafiqa.InputError, match=message):
        read_table(path)


def test_every_table_is_read_so(tmp_path, metric):
    """MOS, judgments from elsewhere, train tables, known data sets: a decimal too many is an error in each."""
    from leafiqa.distillation.config import Source
    from leafiqa.distillation.data import read_splits
    from leafiqa.labels.datasets import read_dataset

    table, evidence = tmp_path / "t.csv", tmp_path / "e.jsonl"
    evidence.write_text("")
    table.write_text("image,mos,score,split\na.png,3,7,train,x\n")
    for read in (
        lambda: leafiqa.calibrate(metric, table),
        lambda: leafiqa.evaluate(table, metric),
        lambda: leafiqa.import_judgments(table, tmp_path / "o.jsonl", kind="scores"),
        lambda: read_splits(Source("s", tmp_path, evidence, table=table)),
    ):
        with pytest.raises(leafiqa.LeafiqaError, match="line 2: 5 cells under 4 columns"):
            read()
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\na.png,b.png,3,7,1\n")
    with pytest.raises(leafiqa.InputError, match="line 2: 5 cells under 4 columns"):
        read_dataset(tmp_path)


def test_decimal_commas_and_numbers():
    assert to_number("3,7") == 3.7 and to_number("1,234") is None and to_number("1,234", decimal_comma=True) == 1.234
    assert to_number("-1e3") == -1000 and to_number(".5") == 0.5 and to_number(" 2. ") == 2
    for no in ("1_0", "nan", "inf", "", None, "0x10", "\u0661", True, float("inf"), "3 7", "1,2,3"):
        assert to_number(no) is None, no


def test_semicolons_with_decimal_commas(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "t.csv").write_text("image;MOS;mos_std\na.png;3,75;0,5\n")
    row = read_mos(tmp_path / "t.csv").rows[0]
    assert (row.mos, row.standard_error) == (3.75, 0.5)


def test_unrated_rows_are_counted_not_listed(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.png").write_bytes(b"")
    lines = [f"{i}.png,{i if i < 3 else ''}" for i in range(30)]
    (tmp_path / "t.csv").write_text("image,mos\n" + "\n".join([*lines, f"{'x' * 300}.png,1", "3.png,good"]))
    table = read_mos(tmp_path / "t.csv")
    assert len(table.rows) == 3
    assert table.problems[-1] == "27 row(s) have no MOS yet: left out" and len(table.problems) == 3
    assert "no such file" in table.problems[0] and "line 33, 3.png: MOS 'good'" in table.problems[1]


def test_cells_are_no_formulas():
    assert safe_cell("=1+1;.png") == "./=1+1;.png" and safe_cell("@x") == "./@x" and safe_cell("a=b.png") == "a=b.png"
