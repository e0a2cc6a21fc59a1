"""Context of a part: device, time that is left, sizes, clocks; results are records of names and values."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.rows import Place

Record = Mapping[str, Any]
"""What a part found out, one line of the table: its values by name."""

LEAST_SECONDS = 0.2  # of a measurement, on an accelerator


@dataclass(frozen=True)
class Context:
    """What a part is given."""

    device: torch.device
    deadline: float
    """When it must have ended, by `time.monotonic`."""

    is_tiny: bool
    """Whether networks are narrow, batches small and repeats few: to see that everything runs."""

    @property
    def width(self) -> float:
        """Factor of every network's width."""
        return 0.02 if self.is_tiny else 1.0

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    def place(self, precision: str) -> Place:
        """Return where rows run."""
        return Place(self.device, precision, self.width)

    def in_time(self, items: Mapping[str, Any], seconds: float) -> Iterator[tuple[str, Any]]:
        """Yield items while more than `seconds` are left."""
        for name, item in items.items():
            if self.left > seconds:
                yield name, item

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], Any], repeats: int = 5) -> float:
        """Return the median seconds of a call: the device's by its events, on a CPU the process's.

        Each of the repeats has as many calls as take `LEAST_SECONDS`; two come before, to warm up.
        """
        repeats = 2 if self.is_tiny else repeats
        call()
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        once = max(time.perf_counter() - start, 1e-5)
        calls = 1 if self.device.type == "cpu" else min(200, math.ceil(LEAST_SECONDS / once))
        return statistics.median(self._clocked(call, calls) for _ in range(repeats))

    def _clocked(self, call: Callable[[], Any], calls: int) -> float:
        if self.device.type != "cuda":
            begun = time.process_time()
            for _ in range(calls):
                call()
            return (time.process_time() - begun) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(calls):
            call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000 / calls
