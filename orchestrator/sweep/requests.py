"""Requests that reach a running sweep: it is paused, resumed and resized while it runs.

A thread reads the store every two seconds. A pause halts the executor, as an interruption does: running
trainings save their state, leases and worker groups are given back, the process waits. Resuming opens another
executor, which adopts what is stored, as every start does. Resizing changes `Size`, which an executor reads
at its own pace.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

from orchestrator.config.installation import to_call
from orchestrator.store.journal import Journal
from orchestrator.store.requests import Request, RequestFolder, State, counted
from orchestrator.sweep.ledger import Executor

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
HALT_SECONDS = 5.0  # for one call to the executor; one that raises is repeated by the next poll
HALT_AGAIN_SECONDS = 30.0  # where it still runs: what it was halted by may have died since
BUILDING_SECONDS = 15.0  # between two writes of nothing but what is being built
END_SECONDS = 10.0  # for the thread to end, which may wait for a store that is away


@dataclass
class Size:
    """How many worker groups a sweep may have, and has, and what they build; read and written by several
    threads, never locked."""

    asked: int | None = None
    """At most; None takes as many as fit the nodes."""

    groups: int = 0
    """Now, those that end after their stage included."""

    room: int | None = None
    """How many the nodes take; None before they are known."""

    building: tuple[str, ...] = ()
    """Stages that are being built, in words; of one process too."""


class Requests:
    """Context in which requests to this start of a sweep are followed; `say` prints a line for people."""

    def __init__(
        self,
        folder: RequestFolder,
        journal: Journal,
        size: Size,
        say: Callable[[str], None],
    ) -> None:
        self.size = size
        self._folder, self._journal, self._say = folder, journal, say
        self._taken: dict[str, Request] = {}  # subject -> the last one
        self._executor: Executor | None = None
        self._halts_at = 0.0  # seconds of the monotonic clock: not before
        self._is_paused = self._waits = False
        self._changed = threading.Condition()
        self._written, self._written_at = State(asked=size.asked), time.monotonic()
        self._is_unfit = False  # the line about missing room is printed
        self._since: float | None = None
        self._paused_seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="requests", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Follow no further request, and leave word of that: nothing is left to run."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)
        try:
            self._folder.write_state(replace(self.state, phase="ending", groups=0, building=()))
        except Exception as error:  # of the store: who asked is told of no answer
            logger.warning("event=requests_not_ended error=%s", type(error).__name__)

    @contextmanager
    def halting(self, executor: Executor) -> Iterator[Executor]:
        """While the block runs a pause halts this executor."""
        with self._changed:
            self._executor, self._halts_at = executor, 0.0
        try:
            yield executor
        finally:
            with self._changed:
                self._executor = None

    def wait(self) -> None:
        """Return at once, or when a paused sweep is resumed."""
        with self._changed:
            if not self._is_paused:
                return
            self._waits, self._since = True, time.monotonic()
            self._journal.append("paused")
            self._say(f"paused; go on with {to_call('runs', 'resume', self._journal.sweep_key[:8])}")
            while self._is_paused:
                self._changed.wait()
            self._waits = False
            self._paused_seconds, self._since = self.paused_seconds, None
        self._journal.append("resumed")
        self._say("resumed")

    @property
    def state(self) -> State:
        """What the requests have come to."""
        phase = "running" if not self._is_paused else "paused" if self._waits else "pausing"
        answered = tuple(request.id for request in self._taken.values())
        size = self.size
        return State(phase, size.groups, size.asked, size.room, answered, size.building)

    @property
    def paused_seconds(self) -> float:
        """How long this start has waited so far."""
        since = self._since
        return self._paused_seconds + (0.0 if since is None else time.monotonic() - since)

    def _follow(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                self._read()
                self._halt()
                self._report()
            except Exception as error:  # of the store or of the cluster: the next poll tries again
                logger.warning("event=requests_not_read error=%s", type(error).__name__)

    def _read(self) -> None:
        """Take the requests that are new."""
        for request in self._folder.read():
            last = self._taken.get(request.subject)
            if last is not None and last.id == request.id:
                continue
            self._journal.append("asked", subject=request.subject, value=request.value, by=request.by)
            with self._changed:
                self._taken[request.subject] = request
                if request.subject == "pause":
                    self._pause(bool(request.value))
                else:
                    self.size.asked, self._is_unfit = request.value, False
                    self._say(f"asked to run {counted(request.value)} at most; {self.size.groups} run now")

    def _pause(self, is_paused: bool) -> None:
        if is_paused and not self._is_paused:
            self._say("asked to pause: running stages are finished or saved")
        self._is_paused = is_paused
        self._changed.notify_all()

    def _halt(self) -> None:
        """Halt the executor of a sweep that is to pause; again if it goes on, as after its broker's death."""
        with self._changed:
            executor = self._executor if self._is_paused and time.monotonic() >= self._halts_at else None
        if executor is None:
            return
        executor.halt(HALT_SECONDS)
        self._halts_at = time.monotonic() + HALT_AGAIN_SECONDS

    def _report(self) -> None:
        """Keep the state in the store where it has changed, what is built less often; print that there is no
        room for all groups."""
        state = self.state
        is_due = time.monotonic() - self._written_at >= BUILDING_SECONDS
        if state != (self._written if is_due else replace(self._written, building=state.building)):
            self._folder.write_state(state)
            self._written, self._written_at = state, time.monotonic()
        lacks = "groups" in self._taken and state.asked is not None and state.room is not None
        if lacks and not self._is_unfit and (state.asked or 0) > (state.room or 0):
            self._is_unfit = True
            self._say(
                f"the cluster has room for {state.room} of {state.asked} groups; others start when nodes join"
            )
