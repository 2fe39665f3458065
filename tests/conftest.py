"""Fixtures: the bundled metric, small pictures, the image sets where they are."""

import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from leafiqa.cli.main import cli
from leafiqa.cli.memory import keep_freed_memory
from leafiqa.errors import LeafiqaError

# As the command line does: hundreds of small forward passes take half the time.
keep_freed_memory()

DATA = Path(os.environ.get("LEAFIQA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def scores_kept_apart(tmp_path_factory):
    """Keep the tests' scores out of the user's cache."""
    os.environ["LEAFIQA_CACHE"] = str(tmp_path_factory.mktemp("cache") / "scores.sqlite")


def pytest_collection_modifyitems(items):
    skip_data = pytest.mark.skip(reason=f"image sets not found in {DATA}; set LEAFIQA_DATA")
    skip_cuda = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "data" in item.keywords and not DATA.is_dir():
            item.add_marker(skip_data)
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip_cuda)


@pytest.fixture(scope="session")
def data_folder():
    return DATA


@pytest.fixture(scope="session")
def metric():
    import leafiqa

    return leafiqa.create_metric("leaf", device="cpu")


@pytest.fixture(scope="session")
def loss_metric():
    import leafiqa

    return leafiqa.create_metric("leaf", device="cpu", as_loss=True)


def invoke(*arguments, stdin=None, cwd=None):
    """Run a command in this process, as `leafiqa.cli.main.main` does: much faster than a process of its own."""
    before = os.getcwd()
    os.chdir(cwd or before)
    try:
        with warnings.catch_warnings():
            found = CliRunner().invoke(cli, list(map(str, arguments)), input=stdin)
    finally:
        os.chdir(before)
    code, errors = found.exit_code, found.stderr
    if isinstance(found.exception, LeafiqaError):
        code, errors = 2, f"{errors}leafiqa: {found.exception}\n"
    elif found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return subprocess.CompletedProcess(arguments, code, found.stdout, errors)


def make_picture(height=96, width=128, seed=0):
    """A smooth colourful picture with detail, `(H, W, 3)` uint8."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    fine = rng.normal(0, 12, (height, width, 1))
    return (np.asarray(coarse) + fine).clip(0, 255).astype(np.uint8)


def noisy_picture(number, deviation, height=96, width=128):
    """One of three pictures under noise of its own, of a standard deviation in levels of 255, `(H, W, 3)` uint8."""
    noise = np.random.default_rng(number).normal(0, deviation, (height, width, 3))
    return (make_picture(height, width, number % 3) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def picture():
    return make_picture()
