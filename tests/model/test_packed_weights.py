"""Weights in the order that kernels read them in: the same results, few of them, and none that is wrong."""

import copy
import pickle

import pytest
import torch

from leafiqa.model import packed_weights as module
from leafiqa.model.fused_network import FusedConvolution, fuse
from leafiqa.model.packed_weights import PackedWeights

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


@pytest.fixture
def made(monkeypatch):
    """Sizes that an order was made for."""
    sizes = []
    reorder = torch._C._nn.mkldnn_reorder_conv2d_weight

    def count(weight, padding, stride, dilation, groups, size):
        sizes.append(tuple(size))
        return reorder(weight, padding, stride, dilation, groups, size)

    monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", count)
    return sizes


def picture(height=64, width=64):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_an_order_is_made_for_a_size_that_is_met_again_and_gives_the_same(metric, made):
    fused = fuse(metric.student)
    expected = {size: fused(picture(*size)) for size in ((64, 64), (96, 64))}
    assert not made
    for _ in range(3):
        for size, score in expected.items():
            torch.testing.assert_close(fused(picture(*size)), score, atol=1e-5, rtol=0)
    convolutions = [one for one in fused.modules() if isinstance(one, FusedConvolution)]
    assert len(made) == 2 * len(convolutions) and made[0] == (1, 3, 65, 65)
    assert all(order is not None for one in convolutions for order in one.packed._of.values())


@torch.no_grad()
def test_threads_have_orders_of_their_own(metric, made):
    fused, before = fuse(metric.student), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for _ in range(3):
                fused(picture())
    finally:
        torch.set_num_threads(before)
    assert len(made) == 2 * sum(isinstance(one, FusedConvolution) for one in fused.modules())


@torch.no_grad()
def test_orders_of_many_sizes_do_not_pile_up(metric, made, monkeypatch):
    monkeypatch.setattr(module, "_MOST_MET", 16)
    monkeypatch.setattr(module, "_MOST", 2)
    fused = fuse(metric.student)
    convolutions = [one for one in fused.modules() if isinstance(one, FusedConvolution)]
    for side in range(32, 32 * 40, 32):
        fused(picture(32, side))
    assert not made and all(0 < len(one.packed._met) <= 16 for one in convolutions)
    for side in range(32, 32 * 8, 32):
        expected = fused(picture(32, side))
        for _ in range(2):
            torch.testing.assert_close(fused(picture(32, side)), expected, atol=1e-5, rtol=0)
    for one in convolutions:
        size = sum(order.numel() * 4 for order in one.packed._of.values())
        assert size <= max(2 * one.weight.nbytes, module._BYTES) + one.weight.nbytes
    assert any(len(one.packed._of) == 2 for one in convolutions) and any(
        len(one.packed._of) > 2 for one in convolutions
    )


@pytest.mark.parametrize("wrong", ["values", "error"])
@torch.no_grad()
def test_an_order_that_gives_something_else_is_not_used(metric, monkeypatch, wrong):
    fused = fuse(metric.student)
    expected = fused(picture())
    reorder = torch._C._nn.mkldnn_reorder_conv2d_weight

    def spoil(weight, *rest):
        if wrong == "error":
            raise RuntimeError("no such kernel")
        return reorder((weight.to_dense() + 1).to_mkldnn(), *rest)

    monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", spoil)
    for _ in range(3):
        assert torch.equal(fused(picture()), expected)


@torch.no_grad()
def test_copies_and_pickles_begin_with_none(metric):
    fused = fuse(metric.student)
    expected = [fused(picture()) for _ in range(3)][-1]
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        convolutions = [one for one in other.modules() if isinstance(one, FusedConvolution)]
        assert all(isinstance(one.packed, PackedWeights) and not one.packed._of for one in convolutions)
        torch.testing.assert_close(other(picture()), expected, atol=1e-5, rtol=0)
