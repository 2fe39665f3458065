"""Scores of a column, in the form of the column."""

import io

import numpy as np
import pytest
from PIL import Image

import leafiqa
from leafiqa.errors import ImageWarning, InputError
from leafiqa.integrations import score_column
from tests.conftest import make_picture

TOLERANCE = 1e-4


@pytest.fixture
def files(tmp_path):
    for number in range(3):
        Image.fromarray(make_picture(40, 50, number)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def expected(files, metric):
    return metric(sorted(files.glob("*.png"))).numpy()


def test_pandas_keeps_its_index(files, expected):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"path": ["0.png", None, "1.png", "none.png"]}, index=[7, 3, 5, 1])
    with pytest.warns(ImageWarning, match="2 of 4 images have no score .NaN.: row 1: no image") as told:
        table["quality"] = score_column(table["path"], folder=files)
    assert told[0].filename == __file__
    assert table["quality"].dtype == np.float32 and list(table["quality"].isna()) == [False, True, False, True]
    np.testing.assert_allclose(table["quality"][[7, 5]], expected[:2], atol=TOLERANCE)


def test_polars_has_nulls(files, expected):
    polars = pytest.importorskip("polars")
    content = polars.Series([(files / "2.png").read_bytes(), b"no picture", (files / "0.png").read_bytes()])
    with pytest.warns(ImageWarning, match="1 of 3"):
        found = score_column(content)
    assert found.name == "score" and found.dtype == polars.Float32 and found.null_count() == 1
    np.testing.assert_allclose(found.drop_nulls().to_numpy(), expected[[2, 0]], atol=TOLERANCE)


def test_lists_and_dicts_of_the_datasets_library(files, expected):
    cells = [{"bytes": (files / "0.png").read_bytes(), "path": None}, {"bytes": None, "path": str(files / "1.png")}]
    np.testing.assert_allclose(score_column(cells), expected[:2], atol=TOLERANCE)
    by_torch = score_column(iter([files / "2.png"]), leafiqa.create_metric("leaf", device="cpu"))
    np.testing.assert_allclose(by_torch, expected[2:], atol=1e-6)
    assert score_column([]).shape == (0,)


def test_what_is_no_column_is_refused(files):
    for wrong in ("a.png", b"", 5, {"a": 1}):
        with pytest.raises(InputError, match="images must be a column"):
            score_column(wrong)
    with pytest.raises(InputError, match=r"row 0 must be a path or the bytes.*decode=False"):
        score_column([io.BytesIO()])
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match="one column, got a table"):
        score_column(pandas.DataFrame({"a": ["x.png"]}))
