"""The body of one answer: read into memory that is there, and given up when it comes too slowly."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import botocore.exceptions as boto

# Help is worth having where all streams of this process together are slower than this after a moment. Faster
# ones are bound by the process, whose one interpreter reads no faster with more (loopback: one stream 890
# MB/s, four ranged 230 to 480).
MOMENT_SECONDS, FAST_BYTES_PER_SECOND = 0.1, 200e6
SLOW_SECONDS = 30.0  # an answer slower than the next line after this time is given up
SLOW_BYTES_PER_SECOND = 16 * 1024
FIRST_BYTES, CHUNK_BYTES = 16, 1 << 20


class _Meter:
    """Counts what all streams of this process bring; roughly, as nobody waits for a lock."""

    num_bytes = 0


class Stream:
    """An answer's body, given up when it is too slow."""

    def __init__(self, body: Any, deadline: float) -> None:
        self._body, self._deadline = body, deadline
        self._started, self._others = time.monotonic(), _Meter.num_bytes
        self._size = FIRST_BYTES  # a read blocks until so many bytes are there: it follows the speed
        self.received = 0

    def fill(self, views: Iterable[memoryview], when_slow: Callable[[], None] = lambda: None) -> None:
        """Read exactly as many bytes as the views have."""
        for view in views:
            filled = 0
            while filled < len(view):
                num_bytes = self._body.readinto(view[filled : filled + self._size])
                if not num_bytes:
                    raise boto.IncompleteReadError(actual_bytes=filled, expected_bytes=len(view))
                filled += num_bytes
                self.received += num_bytes
                _Meter.num_bytes += num_bytes
                self._follow(when_slow)

    def end(self) -> None:
        """Find the end, where boto3 compares length and checksum if the server told them."""
        self._body.read(1)

    def _follow(self, when_slow: Callable[[], None]) -> None:
        now = time.monotonic()
        seconds = now - self._started
        too_slow = seconds > SLOW_SECONDS and self.received < seconds * SLOW_BYTES_PER_SECOND
        if too_slow or now > self._deadline:
            raise TimeoutError(f"{self.received} bytes in {seconds:.0f} s")
        of_all = _Meter.num_bytes - self._others
        if seconds > MOMENT_SECONDS and of_all < seconds * FAST_BYTES_PER_SECOND:
            when_slow()
        keeps_up = seconds < 1 or self.received > seconds * self._size
        self._size = min(2 * self._size, CHUNK_BYTES) if keeps_up else FIRST_BYTES
