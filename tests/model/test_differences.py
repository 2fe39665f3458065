"""A student stored as what differs from another one."""

import copy
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import leafiqa
from leafiqa.labels.mos_table import read_mos
from leafiqa.model.card import read_card
from leafiqa.model.checkpoint import load_student, pack_student, save_student, unpack_student, write_student
from leafiqa.model.differences import bases, difference, whole
from leafiqa.model.registry import bundled
from tests.conftest import make_picture


@pytest.fixture(scope="module")
def leaf():
    file, card = bundled("leaf")
    return load_student(file, card), card


def fields_of(card, **changes):
    fields = {name: getattr(card, name) for name in card.__dataclass_fields__ if name != "sha256"}
    return {**fields, "name": "leaf_lite0.test", **changes}


def moved(student, share, seed=0):
    """Return a copy whose weights lie a share of their size elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + share * value.std() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and value.numel() > 1 and "running" not in name
        else value.clone()
        for name, value in student.state_dict().items()
    }
    other = copy.deepcopy(student)
    other.load_state_dict(state)
    return other.eval()


def arrays_of(state):
    return {name: value.float().numpy() for name, value in state.items()}


def whole_onto(known, stored):
    """What should come of stored arrays on a state, one by one."""
    found = dict(known)
    for name, value in stored.items():
        kind, _, own = name.rpartition(":")
        if kind == "moved":
            found[own] = known[own] + torch.from_numpy(value.astype(np.float32) * stored[f"step:{own}"])
        elif kind == "":
            found[name] = torch.from_numpy(value.astype(np.float32))
    return found


def test_what_is_not_moved_takes_no_room(leaf):
    student, card = leaf
    content, packed = pack_student(student, fields_of(card), base=card)
    assert len(content) < 1000 and packed.base == {"name": card.name, "sha256": card.sha256}
    again = unpack_student(content, packed, "it")
    for name, value in student.state_dict().items():
        assert torch.equal(value.float(), again.state_dict()[name].float()), name


def test_moved_weights_come_back_within_half_a_step(leaf):
    student, card = leaf
    other = moved(student, 0.02)
    content, packed = pack_student(other, fields_of(card), base=card)
    again = unpack_student(content, packed, "it")
    assert len(content) < 0.55 * bundled("leaf")[0].stat().st_size
    base = student.state_dict()
    for name, value in other.state_dict().items():
        if not value.is_floating_point() or value.numel() < 4096:
            continue
        far = (value - base[name]).abs()
        off = (value - again.state_dict()[name]).abs()
        assert off.max() <= 0.51 * max(0.25 * far.square().mean().sqrt(), far.max() / 127) + 1e-7, name
    images = torch.from_numpy(np.stack([make_picture(seed=seed) for seed in range(6)])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        mine, theirs, first = (one(images).sigmoid() for one in (again, other, student))
    assert (mine - theirs).abs().max() < 0.2 * (theirs - first).abs().max() + 1e-4


def test_arrays_new_changed_and_gone():
    base = {"same": np.ones(3, np.float32), "small": np.ones(3, np.float32), "gone": np.ones(2, np.float32)}
    now = {"same": np.ones(3, np.float32), "small": np.full(3, 2.0, np.float32), "new": np.full(1, 1e6, np.float32)}
    stored = difference(now, base)
    assert set(stored) == {"small", "new"} and stored["new"].dtype == np.float32 and stored["small"].dtype == np.float16


def test_a_tensor_that_has_only_its_name_from_the_base_is_not_rounded_to_steps():
    rng = np.random.default_rng(0)
    base, other = (rng.normal(0, size, (80, 80)).astype(np.float32) for size in (1.0, 0.5))
    near = base + rng.normal(0, 0.5, base.shape).astype(np.float32)
    assert set(difference({"w": other}, {"w": base})) == {"w"}
    assert set(difference({"w": near}, {"w": base})) == {"moved:w", "step:w"}


def test_a_calibration_of_the_head_is_kilobytes(leaf, tmp_path, data_folder):
    table = read_mos(data_folder / "biq2021" / "mos.csv", split="train")
    table = dataclasses.replace(table, rows=table.rows[:60])
    found = leafiqa.calibrate("leaf", table, rungs=("head",), device="cpu")
    small = found.save(tmp_path / "leaf_lite0.small", difference=True)
    large = found.save(tmp_path / "leaf_lite0.whole")
    assert small.stat().st_size < 20_000 < 5_000_000 < large.stat().st_size
    pictures = [make_picture(seed=seed) for seed in range(4)]
    expected = leafiqa.create_metric(weights=large, device="cpu")(pictures)
    got = leafiqa.create_metric(weights=small, device="cpu")
    assert got(pictures).tolist() == pytest.approx(expected.tolist(), abs=5e-4)
    assert got.explain(pictures[0]).defects == pytest.approx(found.metric.explain(pictures[0]).defects, abs=1e-2)
    pytest.importorskip("onnxruntime")
    onnx = leafiqa.create_metric(weights=small, backend="onnx")
    assert onnx(pictures).tolist() == pytest.approx(got(pictures).tolist(), abs=1e-4)


def test_a_difference_from_a_difference(leaf, tmp_path):
    student, card = leaf
    one, other = moved(student, 0.02), moved(student, 0.03, seed=1)
    content, first = pack_student(one, fields_of(card, name="leaf_lite0.first"), base=card)
    write_student(content, first, tmp_path)
    known = unpack_student(content, first, "it").state_dict()
    stored = difference(arrays_of(other.state_dict()), arrays_of(known))
    content = save(stored)
    told = fields_of(card, base={"name": first.name, "sha256": first.sha256})
    second = dataclasses.replace(first, **{**told, "sha256": hashlib.sha256(content).hexdigest()})
    again = load_student(write_student(content, second, tmp_path), second).state_dict()
    expected = whole_onto(known, stored)
    for name, value in again.items():
        assert torch.equal(value.float(), expected[name].float()), name
    assert [found.name for _, found in bases(second, tmp_path)] == ["leaf_lite0.first", "leaf_lite0.general"]


def test_differences_in_a_circle(leaf, tmp_path):
    student, card = leaf
    file = write_student(*pack_student(moved(student, 0.02), fields_of(card), base=card), tmp_path)
    text = json.loads(file.with_suffix(".json").read_text())
    text["base"] = {"name": "leaf_lite0.test", "sha256": text["sha256"]}
    file.with_suffix(".json").write_text(json.dumps(text))
    with pytest.raises(leafiqa.WeightsError, match="in the end from itself"):
        leafiqa.create_metric(weights=file, device="cpu")


def test_the_base_beside_it(leaf, tmp_path):
    """A base that is not bundled is taken from beside the file, and only the very one."""
    student, card = leaf
    content, packed = pack_student(moved(student, 0.01), fields_of(card), base=card)
    file = write_student(content, packed, tmp_path)
    text = json.loads(file.with_suffix(".json").read_text())
    beside = moved(student, 0.3, seed=1)
    other = save_student(beside, tmp_path, fields_of(card, name="leaf_lite0.base"))
    text["base"] = {"name": "leaf_lite0.base", "sha256": other.sha256}
    file.with_suffix(".json").write_text(json.dumps(text))
    found = load_student(file, read_card(file.with_suffix(".json"))).state_dict()
    bundled_one = unpack_student(content, packed, "it").state_dict()
    name = "head.experts.0.0.weight"
    expected = beside.state_dict()[name] + bundled_one[name] - student.state_dict()[name]
    assert torch.allclose(found[name], expected, atol=2e-3) and not torch.allclose(
        found[name], bundled_one[name], atol=0.01
    )
    text["base"]["sha256"] = "0" * 64
    file.with_suffix(".json").write_text(json.dumps(text))
    with pytest.raises(leafiqa.WeightsError, match=r"what differs from leaf_lite0\.base 000000000000.*beside it"):
        leafiqa.create_metric(weights=file, device="cpu")


@pytest.mark.parametrize(
    "base", [{"name": "../leaf", "sha256": "0" * 64}, {"name": "leaf_lite0.general"}, {"name": 3, "sha256": "0" * 64}]
)
def test_a_base_that_is_none(leaf, tmp_path, base):
    student, card = leaf
    content, packed = pack_student(student, fields_of(card), base=card)
    file = write_student(content, packed, tmp_path)
    text = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps({**text, "base": base}))
    with pytest.raises(leafiqa.WeightsError, match="base must be a name and a sha256"):
        leafiqa.create_metric(weights=file, device="cpu")


def test_what_does_not_go_together(leaf):
    _, card = leaf
    packed = dataclasses.replace(card, base={"name": card.name, "sha256": card.sha256})
    for stored in (
        {"moved:head.gate.weight": np.zeros((3, 3), np.int8), "step:head.gate.weight": np.ones(1, np.float32)},
        {"moved:head.gate.weight": np.zeros((3, 992), np.int8)},
        {"moved:nothing": np.zeros((3, 992), np.int8), "step:nothing": np.ones(1, np.float32)},
    ):
        with pytest.raises(leafiqa.WeightsError, match="does not go with"):
            whole(stored, packed, None)


def test_nothing_that_is_stored_is_left_out(leaf):
    """A card that knows nothing of a part that the file holds does not fit it."""
    student, card = leaf
    other = moved(student, 0.01)
    other.residual = torch.nn.Linear(student.feature_mean.numel(), 1, bias=False)
    content, packed = pack_student(other, fields_of(card), base=card)
    with pytest.raises(leafiqa.WeightsError, match=r"(?s)does not fit the architecture.*residual"):
        unpack_student(content, packed, "it")


def test_what_only_a_bundled_student_can_be(leaf, tmp_path):
    student, card = leaf
    with pytest.raises(leafiqa.WeightsError, match="nor among the bundled ones"):
        pack_student(student, fields_of(card), base=dataclasses.replace(card, name="leaf_lite0.mine"))
    content, packed = pack_student(student, fields_of(card), base=card)
    with pytest.raises(leafiqa.WeightsError, match="holds only what differs"):
        leafiqa.push(write_student(content, packed, tmp_path), "owner/repo")
