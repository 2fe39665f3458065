"""QualityScore keeps the promises of torchmetrics' metrics, two processes together included."""

import copy
import os
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

import leafiqa
from leafiqa.errors import InputError
from tests.conftest import make_picture

pytest.importorskip("torchmetrics")


def batches():
    return [
        torch.stack([torch.from_numpy(make_picture(48, 64, 10 * b + i)).permute(2, 0, 1) for i in range(b + 1)])
        for b in range(3)
    ]


@pytest.fixture(scope="module")
def expected(metric):
    return torch.cat([metric(batch) for batch in batches()])


def test_mean_and_all_scores(expected):
    from leafiqa.integrations.torchmetrics import QualityScore

    mean, every = QualityScore(), QualityScore(reduction="none")
    for batch in batches():
        mean.update(batch)
        every.update(batch.float() / 255)
    assert mean.compute().item() == pytest.approx(expected.mean().item(), abs=1e-6)
    torch.testing.assert_close(every.compute(), expected, atol=1e-5, rtol=0)
    mean.reset()
    every.reset()
    with pytest.warns(UserWarning):
        assert mean.compute().isnan() and every.compute().shape == (0,)
    assert mean.higher_is_better and not mean.is_differentiable


def test_millions_of_scores_lose_nothing_in_single_precision():
    from leafiqa.integrations.torchmetrics import QualityScore

    quality = QualityScore()
    given = torch.nn.Identity()
    given.device = quality.device
    quality.metric = given
    batch = torch.full((1000,), 0.1)
    for _ in range(3000):
        quality.update(batch)
    assert quality.compute().item() == pytest.approx(0.1, abs=1e-7)


def test_forward_returns_the_batch_and_accumulates(expected):
    from leafiqa.integrations.torchmetrics import QualityScore

    quality = QualityScore()
    found = [quality(batch).item() for batch in batches()]
    assert found == pytest.approx([part.mean().item() for part in expected.split([1, 2, 3])], abs=1e-6)
    assert quality.compute().item() == pytest.approx(expected.mean().item(), abs=1e-6)


def test_inside_collections_copies_and_pickles(expected):
    from torchmetrics import MetricCollection

    from leafiqa.integrations.torchmetrics import QualityScore

    both = MetricCollection({"mean": QualityScore(), "all": QualityScore(reduction="none")})
    both.update(batches()[2])
    twin = pickle.loads(pickle.dumps(copy.deepcopy(both)))
    assert twin.compute()["mean"].item() == pytest.approx(expected[3:].mean().item(), abs=1e-6)
    quality = QualityScore()
    assert quality.state_dict() == {} and list(quality.parameters()) == []
    quality.half().set_dtype(torch.float16)
    quality.update(batches()[0])
    assert quality.compute().item() == pytest.approx(expected[0].item(), abs=2e-3)


def test_what_is_wrong_is_said():
    from leafiqa.integrations.torchmetrics import QualityScore

    with pytest.raises(InputError, match="'mean' or 'none', got 'sum'"):
        QualityScore(reduction="sum")
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        QualityScore().update(torch.full((1, 3, 8, 8), 7.0))
    with pytest.raises(leafiqa.UnknownModelError):
        QualityScore("leaf9")


PROCESS = """
import sys, torch
import torch.distributed as distributed
from leafiqa.integrations.torchmetrics import QualityScore
from tests.integrations.test_torchmetrics import batches
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", rank=rank, world_size=2)
mean, every = QualityScore(), QualityScore(reduction="none")
for batch in (batches()[:1], batches()[1:])[rank]:  # one picture here, five there
    mean.update(batch)
    every.update(batch)
print(mean.compute().item(), *every.compute().tolist())
distributed.destroy_process_group()
"""


def test_two_processes_compute_what_one_does(expected):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(port)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    for output in outputs:
        mean, *scores = map(float, output.split())
        assert mean == pytest.approx(expected.mean().item(), abs=1e-5)  # of images, not of processes' means
        np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
