"""Simulated clock: an event loop whose time leaps to the next timer, and threads that call into it.

Real coroutines and real blocking code run as they are; only waiting costs nothing. Time stands still while
any thread that was started here computes.
"""

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any


class _Leaping(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.num_computing = 0  # threads that may still call; changed by the loop's own thread only

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.num_computing:
            return super().select(None)  # a thread's next call wakes it
        if timeout is None:
            raise RuntimeError("every process of the simulated sweep waits for another one")
        self.now += timeout
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in simulated seconds from 0."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        self.failure: Exception | None = None  # of a thread
        super().__init__(self._leaping)

    def time(self) -> float:
        """Return the simulated seconds since the start."""
        return self._leaping.now

    def call_from_thread(self, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine in the loop for a thread of `start_thread`; return or raise what it does."""
        result: Future[Any] = Future()

        def begin() -> None:
            self._leaping.num_computing -= 1
            self.create_task(start()).add_done_callback(end)

        def end(task: asyncio.Task[Any]) -> None:
            self._leaping.num_computing += 1
            if error := task.exception():
                result.set_exception(error)
            else:
                result.set_result(task.result())

        self.call_soon_threadsafe(begin)
        return result.result()

    def start_thread(self, run: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run blocking code in a thread of its own; `then` takes its result, in the loop.

        To be called in the loop. An error of `run` ends the loop's run with that error.
        """
        self._leaping.num_computing += 1

        def ended(result: Any, error: Exception | None) -> None:
            self._leaping.num_computing -= 1
            if error is None:
                then(result)
            else:
                self.failure = error
                self.stop()

        def target() -> None:
            try:
                result, error = run(), None
            except Exception as raised:
                result, error = None, raised
            self.call_soon_threadsafe(ended, result, error)

        threading.Thread(target=target, daemon=True).start()
