"""Broker: the queue between trial drivers, which submit stages, and worker groups, which build them.

One actor a sweep. It holds no results: a stage is done when it is published, and forgotten when no driver
waits for it any longer. It tracks which group builds which stage, so that no stage is built twice at once and
the one in flight returns to the queue when its group dies. Its own death loses nothing: drivers submit again,
groups unknown to the restarted broker start afresh.
"""

import asyncio
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_ATTEMPTS = 3  # groups that may die on one stage without any progress before it counts as failed
LISTEN_SECONDS = 20.0  # how long a group's call for orders to leave stays open
KEPT_STAGES = 16  # of a group, for its slower ranks; they meet rank 0 in most stages


@dataclass
class _Job:
    stage: dict[str, Any]  # a planned stage as plain data
    key: str
    pool: str
    priority: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: dict[str, str] | None = None
    progress: list[dict[str, float]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    is_unwanted: bool = False
    ran: bool = False  # False when the group found it published already
    attempts: int = 0
    furthest: float = 0.0  # epoch or image that any attempt reached

    def may_run_again(self) -> bool:
        """Return whether a new attempt makes sense: the stage left the store, or was cancelled."""
        return self.error is None or self.error["kind"] != "error"


@dataclass
class _Group:
    pool: str
    assigned: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    """The stages taken last, by their number; None ends the group."""
    num_assigned: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: _Job | None = None
    nodes: set[str] = field(default_factory=set)


class Broker:
    """An asynchronous Ray actor; many processes may call every method at once."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._queues: dict[str, list[tuple[int, int, _Job]]] = {}  # pool -> heap
        self._order = itertools.count()
        self._groups: dict[str, _Group] = {}
        self._queued = asyncio.Condition()
        self._stopping = False
        self._halting = False
        self._num_built = 0
        self._ended: list[str] = []  # keys of stages that were built, found stored, or failed
        self._starts: dict[str, int] = {}
        self._retired: set[str] = set()

    async def submit(self, stage: dict[str, Any], key: str, pool: str, priority: int) -> bool:
        """Queue a stage unless it is queued, being built, or failed with an error that would only repeat."""
        job = self._jobs.get(key)
        if job is not None and not (job.done.is_set() and job.may_run_again()):
            job.waiting += 1
            return False
        waiting = job.waiting if job is not None else 0  # drivers that have not seen its end yet
        job = _Job(stage, key, pool, priority, waiting=waiting + 1)
        self._jobs[key] = job
        if self._halting:
            self._end(job, {"kind": "left", "message": "the sweep was interrupted"})
        else:
            await self._enqueue(job)
        return True

    async def follow(self, key: str, since: int | None, seconds: float) -> dict[str, Any] | None:
        """Wait up to `seconds` for a stage's progress after `since`, or its end; None if it is unknown.

        With `since` None only its end counts, and no progress is returned.
        """
        job = self._jobs.get(key)
        if job is None:
            return None
        if not job.done.is_set() and (since is None or len(job.progress) <= since):
            job.moved.clear()
            events = (job.done,) if since is None else (job.done, job.moved)
            waits = [asyncio.create_task(event.wait()) for event in events]
            _, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
        return {
            "progress": [] if since is None else job.progress[since:],
            "done": job.done.is_set(),
            "error": job.error,
            "ran": job.ran,
        }

    async def leave(self, key: str, unwanted: bool) -> None:
        """Stop waiting for a stage; `unwanted` cancels it unless other drivers wait for it."""
        if job := self._jobs.get(key):
            job.waiting -= 1
            job.is_unwanted = unwanted and job.waiting <= 0
            self._forget(job)

    async def begin(self, group: str, pool: str) -> None:
        """Note that a group starts, or starts again: its stage in flight returns to the queue."""
        state = self._groups.setdefault(group, _Group(pool))
        self._starts[group] = self._starts.get(group, 0) + 1
        await self._give_back(state)
        state.assigned, state.num_assigned, state.changed, state.nodes = {}, 0, asyncio.Event(), set()

    async def arrive(self, group: str, node: str) -> None:
        """Note the node of a worker of a group, after `begin`."""
        self._group(group).nodes.add(node)

    async def take(self, group: str, rank: int, position: int) -> dict[str, Any] | None:
        """Return the group's stage number `position`, waiting for work; None means stop.

        Rank 0 decides, the other ranks get the same. Raise `LookupError` for a group from before the broker's
        own death, and for a rank that is KEPT_STAGES behind: the group has to begin again. Raise it too for a
        rank that died while it waited: its call goes on, but what it would take is left to others.
        """
        state = self._group(group)
        if rank == 0 and position == state.num_assigned:
            assigned = state.assigned
            job = await self._next(group, state)
            if state.assigned is not assigned or self._groups.get(group) is not state:
                if job is not None:
                    job.attempts -= 1
                    await self._enqueue(job)
                raise LookupError(f"worker group {group} has begun again, or is given up")
            state.in_flight = job
            state.assigned[position] = None if job is None else job.stage
            state.assigned.pop(position - KEPT_STAGES, None)
            state.num_assigned += 1
            state.changed.set()
        while position >= state.num_assigned:
            await state.changed.wait()
            state.changed.clear()
        return state.assigned[position]

    async def must_leave(self, group: str, seconds: float) -> bool:
        """Wait up to `seconds`; True makes the group save its stage and end."""
        state = self._groups.get(group)
        if state is None:
            return False
        try:
            await asyncio.wait_for(state.leaving.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def report(self, key: str, progress: dict[str, float]) -> bool:
        """Note the progress of a stage; False makes its builder stop."""
        job = self._jobs.get(key)
        if job is None:
            return True
        job.progress.append(progress)
        job.moved.set()
        reached = next(iter(progress.values()), 0.0)
        if reached > job.furthest:
            job.furthest, job.attempts = reached, 1
        return not job.is_unwanted

    async def finish(self, group: str, key: str, error: dict[str, str] | None, ran: bool) -> None:
        """Note that a stage is published, failed with an error that would repeat, or was left midway."""
        state, job = self._group(group), self._jobs.get(key)
        if job is None:  # built by another group meanwhile, and forgotten
            state.in_flight = None
            return
        if error is not None and error["kind"] == "left":
            job.attempts -= 1
            await self._give_back(state)
            return
        state.in_flight = None
        self._num_built += ran and error is None
        job.ran = ran
        self._end(job, error)
        self._forget(job)

    async def lose(self, group: str) -> None:
        """Forget a group that is gone for good; its stage in flight returns to the queue."""
        if state := self._groups.pop(group, None):
            await self._give_back(state)

    async def abandon(self, group: str) -> None:
        """Return the stage of a group whose node is gone to the queue; the group may begin again later."""
        if state := self._groups.get(group):
            state.nodes, state.assigned = set(), dict(state.assigned)  # its waiting call takes nothing now
            await self._give_back(state)

    async def ended(self, since: int) -> list[str]:
        """Return the keys of the stages that ended after the first `since`; of all if fewer did."""
        return self._ended[since if since <= len(self._ended) else 0 :]

    async def give_up(self, pool: str, reason: str) -> None:
        """Fail every stage that waits for a pool which no group will serve."""
        for job in self._jobs.values():
            if job.pool == pool and not job.done.is_set():
                self._end(job, {"kind": "lost", "message": reason})
        self._queues.pop(pool, None)

    async def dismiss(self, groups: Sequence[str]) -> None:
        """Make groups save their stages, return them to the queue and end."""
        for name in groups:
            if state := self._groups.get(name):
                state.leaving.set()
        async with self._queued:
            self._queued.notify_all()

    async def retire(self, groups: Sequence[str]) -> None:
        """Make groups end after the stage that they build now; those that still start, before their first."""
        self._retired.update(groups)
        async with self._queued:
            self._queued.notify_all()

    async def halt(self) -> None:
        """Interrupt the sweep: every group saves its stage and ends, no driver waits any longer."""
        self._halting = self._stopping = True
        await self.dismiss(list(self._groups))
        building = {state.in_flight.key for state in self._groups.values() if state.in_flight}
        for job in self._jobs.values():
            if not job.done.is_set() and job.key not in building:
                self._end(job, {"kind": "left", "message": "the sweep was interrupted"})
        self._queues.clear()  # no group starts for them

    async def stop(self) -> None:
        """Make every group end after the stage it builds now."""
        self._stopping = True
        async with self._queued:
            self._queued.notify_all()

    async def state(self) -> dict[str, Any]:
        """Return the queued stages, and for each group what it builds and where."""
        return {
            "built": self._num_built,
            "queued": {pool: len(queue) for pool, queue in self._queues.items()},
            "waiting": sum(job.waiting for job in self._jobs.values()),
            "groups": {
                name: {"pool": group.pool, "building": _shown(group.in_flight), "nodes": sorted(group.nodes)}
                for name, group in self._groups.items()
            },
            "starts": self._starts,
        }

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            raise LookupError(f"worker group {name} is unknown to the broker; it begins again")
        return self._groups[name]

    async def _next(self, name: str, group: _Group) -> _Job | None:
        def must_end() -> bool:
            return self._stopping or group.leaving.is_set() or name in self._retired

        job: _Job | None = None
        async with self._queued:
            # A group that was given up may have ended the job meanwhile, or another one has taken its place.
            while job is None or job.done.is_set() or self._jobs.get(job.key) is not job:
                while not (must_end() or self._queues.get(group.pool)):
                    await self._queued.wait()
                if must_end():
                    return None
                job = heapq.heappop(self._queues[group.pool])[2]
        job.attempts += 1
        return job

    async def _enqueue(self, job: _Job) -> None:
        async with self._queued:
            queue = self._queues.setdefault(job.pool, [])
            heapq.heappush(queue, (-job.priority, next(self._order), job))
            self._queued.notify_all()

    async def _give_back(self, group: _Group) -> None:
        job, group.in_flight = group.in_flight, None
        if job is None or job.done.is_set():
            return
        if self._halting:
            self._end(job, {"kind": "left", "message": "the sweep was interrupted"})
        elif job.attempts >= MAX_ATTEMPTS:
            message = (
                f"its workers died {job.attempts} times at the same place; look for memory limits in the "
                "worker logs, lower batch_size or give workers more memory"
            )
            self._end(job, {"kind": "lost", "message": message})
        else:
            await self._enqueue(job)

    def _forget(self, job: _Job) -> None:
        """Drop a stage that is published and that no driver waits for: others find it stored."""
        if job.done.is_set() and job.error is None and job.waiting <= 0:
            self._jobs.pop(job.key, None)

    def _end(self, job: _Job, error: dict[str, str] | None) -> None:
        job.error = error
        self._ended.append(job.key)
        job.done.set()
        job.moved.set()


def _shown(job: _Job | None) -> dict[str, Any] | None:
    if job is None:
        return None
    return {"stage": job.stage["name"], "key": job.key, "progress": (job.progress or [{}])[-1]}
