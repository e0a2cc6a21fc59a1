"""The queue between trial drivers, which ask for stages, and worker groups, which build them.

One actor a sweep. It holds no results: a stage is done when it is published. It knows who builds what now, so
that a stage is never built twice at once and the one in flight goes back to the queue when its group dies.
"""

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import Any

MAX_ATTEMPTS = 3  # groups that may die on one stage before it counts as failed


@dataclass
class _Job:
    stage: dict[str, Any]  # a planned stage as plain data
    key: str
    priority: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: dict[str, str] | None = None
    progress: list[dict[str, float]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    is_unwanted: bool = False
    ran: bool = False  # False when the group found it published already
    attempts: int = 0

    def may_run_again(self) -> bool:
        """Return whether asking once more makes sense: it left the store, or was cancelled."""
        return self.error is None or self.error["kind"] != "error"


@dataclass
class _Group:
    assigned: list[_Job | None] = field(default_factory=list)  # in the order taken; None ends the group
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: _Job | None = None
    num_starts: int = 0


class Broker:
    """An asynchronous Ray actor; every method may be called by many processes at once."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._queue: list[tuple[int, int, str]] = []
        self._order = itertools.count()
        self._groups: dict[str, _Group] = {}
        self._queued = asyncio.Condition()
        self._stopping = False
        self._num_built = 0

    async def submit(self, stage: dict[str, Any], key: str, priority: int) -> bool:
        """Queue a stage unless it is queued, being built, or failed with an error that would only repeat."""
        job = self._jobs.get(key)
        if job is not None and not (job.done.is_set() and job.may_run_again()):
            job.waiting += 1
            return False
        job = _Job(stage, key, priority, waiting=1)
        self._jobs[key] = job
        await self._enqueue(job)
        return True

    async def follow(self, key: str, since: int, seconds: float) -> dict[str, Any]:
        """Wait for news of a stage: progress after position `since`, or its end."""
        job = self._jobs[key]
        if not job.done.is_set() and len(job.progress) <= since:
            job.moved.clear()
            done, moved = asyncio.create_task(job.done.wait()), asyncio.create_task(job.moved.wait())
            _, pending = await asyncio.wait(
                (done, moved), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in pending:
                task.cancel()
        return {
            "progress": job.progress[since:],
            "done": job.done.is_set(),
            "error": job.error,
            "ran": job.ran,
        }

    async def leave(self, key: str, unwanted: bool) -> None:
        """A driver stops waiting; a stage that nobody else wants is stopped when `unwanted`."""
        job = self._jobs[key]
        job.waiting -= 1
        job.is_unwanted = unwanted and job.waiting <= 0

    async def begin(self, group: str) -> int:
        """A group starts, or starts again after a death: what it was building goes back to the queue."""
        state = self._groups.setdefault(group, _Group())
        state.num_starts += 1
        await self._give_back(state)
        state.assigned, state.changed = [], asyncio.Event()
        return state.num_starts

    async def take(self, group: str, rank: int, position: int) -> dict[str, Any] | None:
        """Return the group's stage number `position`, waiting for work; None means stop.

        Rank 0 decides, the other ranks are told the same.
        """
        state = self._groups[group]
        if rank == 0 and position == len(state.assigned):
            job = await self._next()
            state.in_flight = job
            state.assigned.append(job)
            state.changed.set()
        while position >= len(state.assigned):
            await state.changed.wait()
            state.changed.clear()
        job = state.assigned[position]
        return None if job is None else job.stage

    async def report(self, key: str, progress: dict[str, float]) -> bool:
        """Note the progress of a stage; False asks its builder to stop."""
        job = self._jobs[key]
        job.progress.append(progress)
        job.moved.set()
        return not job.is_unwanted

    async def finish(self, group: str, key: str, error: dict[str, str] | None, ran: bool) -> None:
        """A stage is published, or failed with an error that trying again would repeat."""
        job = self._jobs[key]
        self._groups[group].in_flight = None
        self._num_built += ran and error is None
        job.ran = ran
        self._end(job, error)

    async def lose(self, group: str, reason: str, others: int) -> None:
        """A group is gone for good; with no other group left, everything that waits fails."""
        if group in self._groups:
            await self._give_back(self._groups[group])
        if others == 0:
            self._stopping = True
            for job in self._jobs.values():
                if not job.done.is_set():
                    self._end(job, {"kind": "lost", "message": reason})

    async def stop(self) -> None:
        """Tell every group to end after what it builds now."""
        self._stopping = True
        async with self._queued:
            self._queued.notify_all()

    async def state(self) -> dict[str, Any]:
        """Return counts for progress displays and tests."""
        building = [group.in_flight for group in self._groups.values() if group.in_flight]
        return {
            "built": self._num_built,
            "queued": len(self._queue),
            "building": [
                {"stage": job.stage["name"], "key": job.key, "progress": job.progress[-1:]}
                for job in building
            ],
            "starts": {name: group.num_starts for name, group in self._groups.items()},
        }

    async def _next(self) -> _Job | None:
        async with self._queued:
            while not self._queue and not self._stopping:
                await self._queued.wait()
            if self._stopping:
                return None
            job = self._jobs[heapq.heappop(self._queue)[2]]
        job.attempts += 1
        return job

    async def _enqueue(self, job: _Job) -> None:
        async with self._queued:
            heapq.heappush(self._queue, (-job.priority, next(self._order), job.key))
            self._queued.notify()

    async def _give_back(self, group: _Group) -> None:
        job, group.in_flight = group.in_flight, None
        if job is None:
            return
        if job.attempts >= MAX_ATTEMPTS:
            message = f"its workers died {job.attempts} times; look for memory limits in the worker logs"
            self._end(job, {"kind": "lost", "message": message})
        else:
            await self._enqueue(job)

    def _end(self, job: _Job, error: dict[str, str] | None) -> None:
        job.error = error
        job.done.set()
        job.moved.set()
