"""Quality through training: means, paired differences, what is kept, resuming, several processes, loggers."""

import json
import math
import time

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

import leafiqa
from leafiqa.errors import ImageError, InputError
from leafiqa.integrations import QualityTracker, to_tensorboard, to_wandb
from tests.conftest import make_picture

PROMPTS = [f"prompt {number}" for number in range(8)]


def pictures(blur=0, count=8):
    """Pictures `(count, 3, 96, 96)`, blurred by so many passes."""
    made = torch.stack(
        [torch.from_numpy(make_picture(96, 96, seed)).permute(2, 0, 1).float() / 255 for seed in range(count)]
    )
    for _ in range(blur):
        made = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(made, (2, 2, 2, 2), mode="reflect"), 5, 1)
    return made


@pytest.fixture
def tracker(metric):
    return QualityTracker(metric, worst=3)


def test_each_validation_is_held_against_first_best_and_previous(tracker, metric):
    levels = [3, 0, 1]
    scores = [metric(pictures(blur)).numpy().astype(np.float64) for blur in levels]
    found = []
    for step, blur in enumerate(levels):
        images = pictures(blur)
        tracker.update(images[:5], PROMPTS[:5])
        tracker.update(images[5:], PROMPTS[5:])
        found.append(tracker.compute(100 * step))
    assert found[0].differences == [] and found[0].best
    assert found[2].mean == pytest.approx(scores[2].mean(), abs=1e-5)
    best = int(np.argmax([of.mean() for of in scores[:2]]))
    for which, then in (("first", 0), ("best", best), ("previous", 1)):
        one = found[2].against(which)
        assert one.step == 100 * then and one.prompts == 8
        assert one.difference == pytest.approx((scores[2] - scores[then]).mean(), abs=1e-5)
    low, high = found[2].interval
    half = 2.3646 * scores[2].std(ddof=1) / math.sqrt(8)  # Student's t of seven degrees of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)
    assert [one.score for one in found[2].worst] == pytest.approx(sorted(scores[2])[:3], abs=1e-5)
    assert max(found[2].worst[0].image.size) == 96
    assert "step 200" in str(found[2]) and "against first (step 0)" in str(found[2])


def test_one_earlier_validation_is_tested_once(tracker):
    for step, blur in enumerate((0, 4)):
        tracker.update(pictures(blur), PROMPTS)
        found = tracker.compute(step)
    assert {one.p for one in found.differences} == {found.against("first").p}


def test_a_resumed_training_goes_on(metric):
    tracker, resumed = QualityTracker(metric), QualityTracker(metric)
    tracker.update(pictures(2), PROMPTS)
    tracker.compute(10)
    state = tracker.state_dict()
    assert state == json.loads(json.dumps(state))
    resumed.load_state_dict(state)
    for one in (tracker, resumed):
        one.update(pictures(0), PROMPTS)
    wanted, found = tracker.compute(20), resumed.compute(20)
    assert found.differences == wanted.differences and found.against("first").step == 10


def test_nothing_is_scored_in_silence_by_nothing(tracker, tmp_path):
    with pytest.raises(InputError, match="nothing was scored"):
        tracker.compute(0)
    with pytest.raises(InputError, match="prompts must be as many as pictures, 8"):
        tracker.update(pictures(), PROMPTS[:3])
    with pytest.raises(InputError, match="must hold at least one picture"):
        tracker.update([])
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(ImageError):
        tracker.update([tmp_path / "broken.png"])
    tracker.update(pictures(), None)
    tracker.compute(5)
    tracker.update(pictures())
    with pytest.raises(InputError, match="step must not be before 5"):
        tracker.compute(4)
    assert tracker.compute(5).against("previous").step == 5  # one step may be validated twice
    with pytest.raises(InputError, match="state must be what state_dict"):
        tracker.load_state_dict({})
    with pytest.raises(InputError, match="as_loss"):
        QualityTracker(leafiqa.create_metric("leaf", as_loss=True))


def one_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    tracker = QualityTracker("leaf", device="cpu", worst=2)
    rows = slice(0, 3) if rank == 0 else slice(3, 8)
    tracker.update(pictures()[rows], PROMPTS[rows])
    found = tracker.compute(1)
    torch.save((found.mean, found.images, [one.score for one in found.worst]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path, metric):
    mp.spawn(one_process, (str(tmp_path),), nprocs=2)
    alone = QualityTracker(metric, worst=2)
    alone.update(pictures(), PROMPTS)
    wanted = alone.compute(1)
    for rank in range(2):
        mean, images, worst = torch.load(tmp_path / f"{rank}.pt")
        assert mean == pytest.approx(wanted.mean, abs=1e-5) and images == 8
        assert worst == pytest.approx([one.score for one in wanted.worst], abs=1e-5)


def validation(tracker):
    tracker.update(pictures(2), PROMPTS)
    tracker.compute(1)
    tracker.update(pictures(), PROMPTS)
    return tracker.compute(2)


def test_tensorboard(tracker, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    found = validation(tracker)
    with SummaryWriter(str(tmp_path)) as writer:
        to_tensorboard(found, writer)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (mean,) = events.Scalars("quality/mean")
    assert (mean.step, mean.value) == (2, pytest.approx(found.mean, abs=1e-6))
    assert {"quality/low", "quality/high", "quality/against_first"} <= set(events.Tags()["scalars"])
    assert len(events.Tags()["images"]) == 3
    with pytest.raises(InputError, match="SummaryWriter"):
        to_tensorboard(found, print)


def test_weights_and_biases(tracker, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    found = validation(tracker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=str(tmp_path), project="test") as run:
        to_wandb(found, run)
        run.log({"loss": 0.1}, step=3)  # a step is written when the next one comes
        until = time.monotonic() + 20
        while "quality/mean" not in dict(run.summary) and time.monotonic() < until:
            time.sleep(0.1)
        assert run.summary["quality/mean"] == pytest.approx(found.mean)
        assert run.summary["quality/against_first"] == pytest.approx(found.against("first").difference)
    assert len(list(tmp_path.rglob("media/images/quality/*.png"))) == 3
    with pytest.raises(InputError, match=r"wandb\.init"):
        to_wandb(found, None)
