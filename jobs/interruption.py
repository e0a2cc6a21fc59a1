"""Interruption of a sweep by SIGTERM or SIGINT: running trainings save their state, then the process ends."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from orchestrator.store.journal import Journal
from orchestrator.sweep.ledger import Executor, Tracker

RAY_STOP_SECONDS = 3.0  # from the SIGTERM of `ray job stop` to its SIGKILL, unless the head says otherwise
MARGIN_SECONDS = 0.3  # of it for what comes after the workers have saved

logger = logging.getLogger(__name__)


class Interruption:
    """Context in which a signal ends the process with exit code 128 + its number.

    The closing runs in a thread of its own, because the interrupted one may hold any lock.
    """

    def __init__(self, journal: Journal, tracker: Tracker) -> None:
        self._journal, self._tracker = journal, tracker
        self._executor: Executor | None = None
        self._is_closing = threading.Event()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    @contextmanager
    def halting(self, executor: Executor) -> Iterator[None]:
        """While an executor runs: a signal halts it, and the block does not end before the process does."""
        self._executor = executor
        self._listen()  # again: Ray has put its own handlers in
        yield
        while self._is_closing.is_set():
            time.sleep(1.0)
        self._executor = None

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        code, seconds = 128 + number, close_seconds()
        threading.Thread(target=self._close, args=(code, seconds), daemon=True).start()
        last = threading.Timer(seconds, os._exit, [code])
        last.daemon = True
        last.start()

    def _close(self, code: int, seconds: float) -> None:
        print("interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        notifying = threading.Thread(target=self._tracker.interrupted, daemon=True)
        notifying.start()
        self._journal.append("interrupted")
        self._journal.flush()
        if self._executor is not None:
            try:
                self._executor.halt(seconds - MARGIN_SECONDS)
            except Exception as error:  # the cluster is gone: what was saved before is all there is
                logger.warning("event=halt_failed error=%s", type(error).__name__)
        notifying.join()
        self._journal.flush()
        os._exit(code)


def close_seconds() -> float:
    """Return how long this process may take to end: less than Ray allows a stopped job before it kills it."""
    text = os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "")
    allowed = float(text) if text.isdecimal() else RAY_STOP_SECONDS
    return max(allowed - 1.2, 1.0)
