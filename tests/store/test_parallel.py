"""Parallel calls: results in order, several at a time, and no call after an error."""

import threading
import time

import pytest

from orchestrator.store.parallel import parallel_map


def test_results_come_in_the_order_of_the_items() -> None:
    def call(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    items = [0.05, 0.0, 0.02]
    assert list(parallel_map(call, items)) == items


def test_calls_wait_at_the_same_time() -> None:
    barrier = threading.Barrier(4, timeout=30)  # breaks unless all four are in it at once
    assert len(list(parallel_map(lambda _: barrier.wait(), range(4), 4))) == 4


def test_the_first_error_is_raised_and_no_call_begins_after_it() -> None:
    called = []

    def call(item: int) -> int:
        called.append(item)
        if item == 1:
            raise ValueError("item 1")
        time.sleep(0.05)
        return item

    with pytest.raises(ValueError, match="item 1"):
        list(parallel_map(call, range(100), 2))
    assert len(called) < 10
