"""Rewards in the signatures in use, and the guard that hears when one is hacked."""

import numpy as np
import pytest
import torch
from PIL import Image

from leafiqa.errors import GuardWarning, ImageError, InputError
from leafiqa.integrations import RewardGuard, ddpo_reward, flow_grpo_reward, grpo_reward
from leafiqa.integrations.guard import QUANTITIES, quantities
from tests.conftest import make_picture
from tests.integrations.test_tracker import pictures


def test_ddpo(metric):
    reward = ddpo_reward(metric)
    images = pictures(count=4)
    rewards, info = reward(images, ("a",) * 4, ({},) * 4)
    assert rewards.dtype == np.float32 and info == {}
    assert rewards == pytest.approx(metric(images).numpy(), abs=1e-6)
    # The same again, alone, in half precision, as arrays and as PIL pictures.
    assert np.array_equal(reward(images, None, None)[0], rewards)
    assert reward(images[1:2], ("a",), ({},))[0] == pytest.approx(rewards[1:2], abs=1e-5)
    as_uint8 = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert reward(as_uint8, None, None)[0] == pytest.approx(rewards, abs=1e-5)
    assert reward([Image.fromarray(one) for one in as_uint8], None, None)[0] == pytest.approx(rewards, abs=1e-5)
    assert reward(images.half(), None, None)[0] == pytest.approx(rewards, abs=2e-3)


def test_flow_grpo(metric):
    factory = flow_grpo_reward("leaf")
    scores, info = factory("cpu")(pictures(count=3), ["a"] * 3, [{}] * 3)
    assert scores == pytest.approx(metric(pictures(count=3)).numpy(), abs=1e-6) and info == {}
    again, _ = flow_grpo_reward(metric)(torch.device("cpu"))(pictures(count=3), ["a"] * 3, [{}] * 3)
    assert np.array_equal(again, scores)


def test_grpo(metric):
    images = [Image.fromarray(make_picture(96, 96, seed)) for seed in range(3)]
    rewards = grpo_reward(metric)(images, prompts=["a"] * 3, label=[1, 2, 3])
    assert isinstance(rewards, list) and all(type(one) is float for one in rewards)
    assert rewards == pytest.approx(metric(images).tolist(), abs=1e-6)
    with pytest.raises(InputError, match="pictures must be a tensor, an array or a list"):
        grpo_reward(metric)(None)
    by_column = grpo_reward(metric, column="image")
    assert by_column(["x", "y", "z"], image=images, prompts=["a"] * 3) == rewards
    assert by_column.__name__ == "leafiqa_quality"
    with pytest.raises(InputError, match="there is no column 'image'"):
        by_column(["x"], prompts=["a"])


def test_a_picture_without_a_score_is_an_error(metric, tmp_path):
    reward = ddpo_reward(metric)
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(ImageError):
        reward([tmp_path / "broken.png"], None, None)
    with pytest.raises(InputError):
        reward(pictures(count=2) * torch.nan, None, None)
    with pytest.raises(InputError, match="shape"):
        reward(np.zeros((8, 8, 3), np.uint8), None, None)
    with pytest.raises(InputError, match="as_loss"):
        ddpo_reward(7)


def test_quantities_are_what_they_are_called():
    flat = torch.full((1, 3, 32, 32), 0.5)
    values = dict(zip(QUANTITIES, quantities(flat)[0].tolist()))
    assert values == pytest.approx(dict.fromkeys(QUANTITIES, 0.0), abs=1e-6)
    stripes = flat.clone()
    stripes[..., ::4] = 1.0
    busy = dict(zip(QUANTITIES, quantities(stripes)[0].tolist()))
    assert busy["edge_density"] > 0.4 and busy["fine_detail"] > 0.05 and busy["clipping"] == pytest.approx(0.25)
    assert busy["contrast"] == pytest.approx(stripes[0, 0].std().item(), abs=1e-5)
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 0.8
    coloured = dict(zip(QUANTITIES, quantities(red)[0].tolist()))
    assert coloured["saturation"] == pytest.approx(1.0)
    assert coloured["colourfulness"] == pytest.approx(0.3 * (0.8**2 + 0.4**2) ** 0.5, abs=1e-4)
    assert quantities((stripes * 255).to(torch.uint8))[0].tolist() == pytest.approx(list(busy.values()), abs=0.02)


def saturated(images):
    grey = images.mean(dim=1, keepdim=True)
    return (grey + 1.8 * (images - grey)).clamp(0, 1)


def test_the_guard_hears_coarse_hacking_and_is_quiet_without():
    prompts = [str(number) for number in range(32)]
    images = pictures(count=32)
    guard = RewardGuard(images, prompts)
    quiet = guard.check(pictures(count=32), prompts)
    assert quiet.alarms == [] and quiet.drifts == pytest.approx(dict.fromkeys(QUANTITIES, 0.0), abs=1e-5)
    for name, hacked in (("saturation", saturated(images)), ("fine_detail", (images + 0.2 * torch.randn_like(images)))):
        heard = RewardGuard(images, prompts).check(hacked.clamp(0, 1), prompts)
        assert any(alarm.startswith(f"{name} is higher than before") for alarm in heard.alarms), heard
    blurred = RewardGuard(images, prompts).check(pictures(4, 32), prompts)
    assert any(alarm.startswith("fine_detail is lower") for alarm in blurred.alarms)


def test_with_prompts_smaller_drifts_are_heard():
    images = pictures(count=32)
    prompts = [str(number) for number in range(32)]
    grey = images.mean(dim=1, keepdim=True)
    changed = (grey + 1.08 * (images - grey)).clamp(0, 1)
    with_prompts = RewardGuard(images, prompts, limit=0.5).check(changed, prompts)
    without = RewardGuard(images[:16], limit=0.5).check(changed[16:])
    assert any(alarm.startswith("saturation is higher") for alarm in with_prompts.alarms)
    assert not any(alarm.startswith("saturation") for alarm in without.alarms)


def test_a_few_pictures_are_no_alarm_and_many_small_batches_are_one(metric):
    images = pictures(count=32)
    prompts = [str(number) for number in range(32)]
    reward = ddpo_reward(metric, guard=RewardGuard(images, prompts))
    hacked = saturated(images)
    alarms = []
    with pytest.warns(GuardWarning, match="the reward may be hacked: .*saturation is higher"):
        for start in range(0, 32, 4):
            _, info = reward(hacked[start : start + 4], tuple(prompts[start : start + 4]), None)
            alarms.append(bool(info["alarms"]))
            assert set(info["guard"]) == set(QUANTITIES)
    assert alarms[:3] == [False] * 3 and alarms[-1]


def test_grpo_tells_the_guard_the_prompts(metric):
    images = pictures(count=16)
    prompts = [str(number) for number in range(16)]
    reward = grpo_reward(metric, column="image", guard=RewardGuard(images, prompts, limit=0.3))
    grey = images.mean(dim=1, keepdim=True)
    with pytest.warns(GuardWarning, match="saturation is higher"):
        reward(["x"] * 16, image=(grey + 1.08 * (images - grey)).clamp(0, 1), prompts=prompts)


def test_the_guards_arguments():
    for wrong in (None, []):
        with pytest.raises(InputError):
            RewardGuard(wrong)
    with pytest.raises(InputError, match="at least 3 by 3"):
        RewardGuard(torch.rand(16, 3, 2, 2))
    with pytest.raises(InputError, match="NaN"):
        RewardGuard(pictures(count=16)).check(pictures(count=2) * torch.nan)
    with pytest.raises(InputError, match="at least one picture"):
        RewardGuard(pictures(count=16)).check([])
    with pytest.raises(InputError, match="at least 16 pictures, got 3"):
        RewardGuard(pictures(count=3))
    with pytest.raises(InputError, match="limit must be a number above 0"):
        RewardGuard(pictures(count=16), limit=0)
    with pytest.raises(InputError, match="prompts must be as many as pictures, 16"):
        RewardGuard(pictures(count=16), ["a"])
    with pytest.raises(InputError, match="prompts must be as many as pictures, 2"):
        RewardGuard(pictures(count=16)).check(pictures(count=2), ["a"])
