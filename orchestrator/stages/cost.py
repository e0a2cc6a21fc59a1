"""Cost of a stage: wall and CPU seconds, without what other threads of the process did meanwhile."""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

THREADS = Path("/proc/self/task")  # of Linux; elsewhere every thread of the process is counted


class Meter:
    """Seconds since it was made.

    CPU seconds are those of the process but for its other Python threads: one that sends records to MLflow
    works for no stage, while torch's threads, which are none of Python's, work for this one.
    """

    def __init__(self) -> None:
        self._wall, self._cpu, self._others = time.perf_counter(), time.process_time(), _others()

    def seconds(self) -> dict[str, float]:
        """Return `wall_seconds` and `cpu_seconds`."""
        cpu = time.process_time() - self._cpu - _since(self._others, _others())
        wall = time.perf_counter() - self._wall
        return {"wall_seconds": round(wall, 3), "cpu_seconds": round(max(0.0, cpu), 3)}


def _others() -> dict[int, float]:
    """Return native id -> CPU seconds of the Python threads beside this one."""
    ids = (one.native_id for one in threading.enumerate() if one is not threading.current_thread())
    return {number: spent for number in ids if number and (spent := _spent(number)) is not None}


def _since(before: Mapping[int, float], now: Mapping[int, float]) -> float:
    return sum(spent - before.get(number, 0.0) for number, spent in now.items())


def _spent(thread: int) -> float | None:
    """Return the CPU seconds of a thread; None if it has ended or the system does not say."""
    try:
        text = (THREADS / str(thread) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    user, system = text.rpartition(")")[2].split()[11:13]  # fields 14 and 15 of proc(5)
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
