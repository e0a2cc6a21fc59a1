"""Cost of a stage: this thread's work counts, other Python threads' does not."""

import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.stages import cost
from orchestrator.stages.cost import Meter


def work(seconds: float) -> None:
    """Use this thread's CPU for some seconds."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def test_own_work_counts() -> None:
    meter = Meter()
    work(0.2)
    assert 0.15 <= meter.seconds()["cpu_seconds"] <= 0.4
    assert meter.seconds()["wall_seconds"] >= 0.2


def test_where_the_system_tells_nothing_of_threads_all_of_them_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "THREADS", tmp_path / "proc")  # as on macOS
    meter = Meter()
    other = threading.Thread(target=work, args=[0.3])
    other.start()
    other.join()
    assert meter.seconds()["cpu_seconds"] >= 0.3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what single threads spent")
@pytest.mark.parametrize("starts_before", [True, False])
def test_the_work_of_another_thread_does_not_count(starts_before: bool) -> None:
    done, leave = threading.Event(), threading.Event()

    def ship() -> None:
        work(1.0)
        done.set()
        leave.wait()

    other = threading.Thread(target=ship)
    if starts_before:
        other.start()
    meter = Meter()
    if not starts_before:
        other.start()
    done.wait()
    spent = meter.seconds()["cpu_seconds"]
    leave.set()
    other.join()
    assert spent < 0.5  # torch's threads spin for 0.2 s after an earlier test's last operation
