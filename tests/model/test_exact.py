"""torch's process-wide switches while scoring on CUDA: set by the first call, put back by the last, in either style."""

import threading

import pytest
import torch

from leafiqa.model.exact import exact_float32

CUDA = torch.device("cuda")


def switches():
    new = hasattr(torch.backends.cudnn, "conv")
    tf32 = (
        (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
        if new
        else (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    )
    return (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, *tf32)


EXACT = (False, True, "ieee", "ieee") if hasattr(torch.backends.cudnn, "conv") else (False, True, False, False)


@pytest.fixture(params=["as they are", "benchmark", "new style", "old style"])
def before(request, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", request.param == "benchmark")
    precision = torch.backends.fp32_precision if hasattr(torch.backends, "fp32_precision") else None
    matmul = torch.get_float32_matmul_precision()
    if request.param == "new style":
        if precision is None:
            pytest.skip("this torch has the old switches only")
        torch.backends.fp32_precision = "tf32"
    elif request.param == "old style":
        torch.set_float32_matmul_precision("high")
    yield switches()
    torch.set_float32_matmul_precision(matmul)
    if precision is not None:
        torch.backends.fp32_precision = precision


def test_set_and_put_back(before):
    with exact_float32(CUDA):
        assert switches() == EXACT
        with exact_float32(CUDA):
            assert switches() == EXACT
        assert switches() == EXACT
    assert switches() == before
    with pytest.raises(KeyError), exact_float32(CUDA):
        raise KeyError
    assert switches() == before


def test_overlapping_calls_put_back_what_the_first_one_found(before):
    """One call begins before the other and ends first: its end must not undo what the other needs, nor be undone."""
    inside, may_end = threading.Event(), threading.Event()

    def other():
        with exact_float32(CUDA):
            inside.set()
            may_end.wait(10)

    thread = threading.Thread(target=other)
    with exact_float32(CUDA):
        thread.start()
        assert inside.wait(10)
    assert switches() == EXACT
    may_end.set()
    thread.join()
    assert switches() == before


def test_nothing_is_touched_on_the_cpu(before, metric, picture):
    with exact_float32(torch.device("cpu")):
        assert switches() == before
    metric(picture)
    assert switches() == before
