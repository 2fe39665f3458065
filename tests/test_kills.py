"""Nothing is lost: SIGKILL at twenty random moments of a distillation and of a calibration."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

import leafiqa
from leafiqa.distillation.config import read_config
from tests.calibration.test_calibration import labelled  # noqa: F401
from tests.distillation.test_distillation import small_run  # noqa: F401


def kill_often(longest, *arguments):
    """Run a command under twenty kills and once more; return how many runs were killed before their end."""
    script = Path(__file__).with_name("kill_often.py")
    done = subprocess.run(
        [sys.executable, str(script), str(longest), "20", *map(str, arguments)],
        capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1].removeprefix("killed "))


def test_distillation(small_run):  # noqa: F811
    small_run.write_text(small_run.read_text().replace("epochs = 3", "epochs = 8\ncrossfit = 2"))
    config = read_config(small_run)
    killed = kill_often(2.5, "distill", small_run)
    assert killed >= 10
    alone = replace(config, output=small_run.parent / "undisturbed")
    done = subprocess.run(
        [sys.executable, "-m", "leafiqa", "distill", str(_copy(small_run, alone.output))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for part in (".", "crossfit/fold0", "crossfit/fold1"):
        states = [torch.load(c.output / part / "epoch8.pt", weights_only=True) for c in (config, alone)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), part
    for name in ("test_0.jsonl", "test_1.jsonl"):
        texts = [(c.output / "crossfit" / name).read_text() for c in (config, alone)]
        assert texts[0] == texts[1]
    assert not list(config.output.rglob("*.tmp"))


def _copy(config, output):
    other = config.with_name("undisturbed.toml")
    other.write_text(config.read_text().replace(f'output = "{config.parent}/out"', f'output = "{output}"'))
    return other


def test_calibration(labelled, tmp_path):  # noqa: F811
    out = tmp_path / "made" / "leaf_lite0.mine"
    arguments = ["calibrate", "--mos", labelled / "mos.csv", "-o", out, "--range", "1", "5", "--device", "cpu"]
    assert kill_often(1.5, *arguments) >= 5
    alone = tmp_path / "alone" / "leaf_lite0.mine"
    command = [sys.executable, "-m", "leafiqa", *map(str, arguments[:4]), str(alone), *map(str, arguments[5:])]
    assert subprocess.run(command, capture_output=True).returncode == 0
    cards = [json.loads(path.with_name("leaf_lite0.mine.json").read_text()) for path in (out, alone)]
    assert cards[0] == cards[1]  # the weights' sha256 among the rest
    assert leafiqa.create_metric(weights=f"{out}.safetensors", device="cpu").score_range == (1.0, 5.0)
    assert {path.name for path in out.parent.iterdir()} == {"leaf_lite0.mine.json", "leaf_lite0.mine.safetensors"}
