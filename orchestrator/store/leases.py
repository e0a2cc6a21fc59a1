"""Leases of stages: one owner builds a stage at a time, which saves two trials the same work.

Results never depend on a lease, because publishing is atomic and happens once. A lease expires by itself, so
the work of a dead owner is taken over.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger(__name__)


class Leases(Protocol):
    """One owner per key, for a limited time."""

    def acquire(self, key: str, owner: str, seconds: float) -> bool:
        """Take or renew the lease for `seconds` from now; False while another owner holds it."""

    def release(self, key: str, owner: str) -> None:
        """Give the lease back if `owner` holds it."""


class LocalLeases:
    """Implements `Leases` for the threads of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[str, float]] = {}  # key -> (owner, end on the clock)

    def acquire(self, key: str, owner: str, seconds: float) -> bool:
        """Take or renew the lease for `seconds` from now; False while another owner holds it."""
        with self._lock:
            now = self._clock()
            holder, end = self._held.get(key, (owner, now))
            if holder != owner and now < end:
                return False
            self._held[key] = (owner, now + seconds)
            return True

    def release(self, key: str, owner: str) -> None:
        """Give the lease back if `owner` holds it."""
        with self._lock:
            if self._held.get(key, ("", 0.0))[0] == owner:
                del self._held[key]


@contextmanager
def held(
    leases: Leases,
    key: str,
    owner: str,
    *,
    is_done: Callable[[], bool],
    seconds: float = 30.0,
    poll_seconds: float = 0.5,
) -> Iterator[bool]:
    """Wait for the lease and renew it; yield True if the caller must build, False once `is_done()`.

    `owner` names one holder: two waiters in one process need two names.
    """
    while not leases.acquire(key, owner, seconds):
        if is_done():
            yield False
            return
        time.sleep(poll_seconds)
    stop = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(leases, key, owner, seconds, stop), name="lease", daemon=True
    )
    renewal.start()
    try:
        # Checked again: the previous holder may have finished since the caller's own check.
        yield not is_done()
    finally:
        stop.set()
        renewal.join()
        _release(leases, key, owner)


def _renew(leases: Leases, key: str, owner: str, seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds / 3):
        try:
            if leases.acquire(key, owner, seconds):
                continue
            logger.warning("event=lease_lost key=%s owner=%s", key, owner)
            return
        except Exception as error:  # any of a remote keeper: the build goes on without a lease
            logger.warning("event=lease_not_renewed key=%s error=%s", key, type(error).__name__)


def _release(leases: Leases, key: str, owner: str) -> None:
    try:
        leases.release(key, owner)
    except Exception as error:  # it expires by itself
        logger.warning("event=lease_not_released key=%s error=%s", key, type(error).__name__)
