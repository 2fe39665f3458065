"""Images are loaded ahead, in order, and handed over when they are ready."""

import threading
import time

import pytest

from leafiqa.images.loading import cores, load_ahead, usual_workers


def test_order_and_errors_at_their_turn():
    def load(number):
        time.sleep(0.002 * (5 - number % 5))
        if number == 7:
            raise ValueError("the seventh")
        return number * number

    found = load_ahead(load, range(20), workers=5)
    assert [next(found) for _ in range(7)] == [number * number for number in range(7)]
    with pytest.raises(ValueError, match="the seventh"):
        next(found)


def test_what_is_done_does_not_wait_for_what_comes_after_it():
    taken, loaded = [], threading.Event()

    def items():
        for number in range(100):
            if number:
                assert loaded.wait(10)
                time.sleep(0.1)  # the first is done for certain
            taken.append(number)
            yield number

    found = load_ahead(lambda number: loaded.set() or number, items(), workers=8)
    assert next(found) == 0 and len(taken) <= 2
    found.close()


def test_no_more_than_depth_are_begun_and_not_taken():
    begun = []
    release = threading.Event()

    def load(number):
        begun.append(number)
        release.wait(10)
        return number

    found = load_ahead(load, range(50), workers=4, depth=6)
    threading.Timer(0.2, release.set).start()
    assert next(found) == 0 and len(begun) <= 6
    assert list(found) == list(range(1, 50))


def test_threads_are_those_that_this_process_may_use(monkeypatch):
    assert 1 <= usual_workers() <= min(4, cores())
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3}, raising=False)
    assert cores() == usual_workers() == 1
