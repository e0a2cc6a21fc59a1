"""Worker groups of a sweep: as many as the queued stages need and the cluster takes.

Nodes that join are used. Nodes that are draining (a spot notice) are left: their groups save their stages and
end, and other groups go on from there. One thread of the driver watches over this.
"""

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import PlacementGroupID
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from orchestrator.runtime.ray.pools import LEAVING, Group, Node, Pool, decide, shown, slots
from orchestrator.store.requests import progress_words
from orchestrator.sweep.requests import Size

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SAY_SECONDS = 60.0  # between two lines about nodes that are waited for
LOST_NODE_SECONDS = 600.0  # a node that died may come back, where none is promised
ORPHAN_SECONDS = 30.0  # after a group failed: what its controller had reserved is looked for
MAX_FAILED_STARTS = 6  # groups that end in a row before they ever ask for work


@dataclass
class _Running:
    """A group and the thread of this process that waits for its end."""

    pool: Pool
    thread: threading.Thread
    phase: str = "starting"
    since: float = field(default_factory=time.monotonic)

    def enter(self, phase: str) -> None:
        if phase != self.phase:
            self.phase, self.since = phase, time.monotonic()


class WorkerGroups:
    """The groups of one sweep; `train` runs a group of a name to its end, `say` prints a line for people."""

    def __init__(
        self,
        size: Size,
        broker: Any,
        pools: Sequence[Pool],
        *,
        train: Callable[[str, Pool], None],
        patience_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._size, self._broker, self._train = size, broker, train
        self._pools = {pool.name: pool for pool in pools}
        self._patience, self._say = patience_seconds or LOST_NODE_SECONDS, say
        self._may_grow = patience_seconds > 0
        self._running: dict[str, _Running] = {}
        self._reserved: dict[Pool, list[Any]] = {}  # pending placement groups: requests to an autoscaler
        self._failures: list[str] = []
        self._failed = -ORPHAN_SECONDS  # when a group last did; 0 s is the machine's start
        self._counted = 0, -TICK_SECONDS  # room and when it was counted
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._said, self._fitted = -SAY_SECONDS, time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="groups", daemon=True)

    def start(self) -> None:
        """Begin to follow what the broker has in its queues."""
        self._thread.start()

    def width(self) -> int:
        """Return how many groups the cluster takes now, of the pool that it takes most of."""
        room, counted = self._counted
        if time.monotonic() - counted > TICK_SECONDS:  # Tune asks many times a second, for each trial
            room = self._room(alive_nodes())
            self._counted = room, time.monotonic()
        return room if self._size.asked is None else min(room, self._size.asked)

    def _room(self, nodes: Sequence[Node]) -> int:
        return max(slots(pool, nodes) for pool in self._pools.values())

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the groups to end, after the broker was stopped."""
        self._stopped.set()
        end = time.monotonic() + seconds
        if self._thread.is_alive():  # it may start a group still, or count those that have ended
            self._thread.join(seconds)
        for running in list(self._running.values()):
            running.thread.join(max(0.0, end - time.monotonic()))
        self._reserve({})
        self._size.groups, self._size.building = len(self._running), ()

    def _watch(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            try:
                self._tick(ray.get(self._broker.state.remote()))
            except ray.exceptions.RayError as error:
                logger.warning("event=groups_not_watched error=%s", type(error).__name__)

    def _tick(self, state: Mapping[str, Any]) -> None:
        """Compare the queued stages with the running groups once; start and dismiss groups."""
        alive, draining, nodes = survey()
        for name, group in state["groups"].items():
            if not alive.issuperset(group["nodes"]):  # its stage need not wait for its return
                ray.get(self._broker.abandon.remote(name))
        with self._lock:
            leaving = [
                name
                for name, group in state["groups"].items()
                if draining & set(group["nodes"]) and self._phase(name) != "ending"
            ]
            for name, running in self._running.items():
                self._classify(running, state["groups"].get(name))
            groups = [
                Group(name, running.pool, running.phase, time.monotonic() - running.since)
                for name, running in self._running.items()
            ]
        queued = {self._pools[name]: count for name, count in state["queued"].items() if count}
        if time.monotonic() - self._failed < ORPHAN_SECONDS:  # also while other groups work
            remove_orphans()
        self._size.groups, self._size.room = len(groups), self._room(nodes)
        building = (group["building"] for group in state["groups"].values())
        self._size.building = tuple(progress_words(one["stage"], one["progress"]) for one in building if one)
        decision = decide(queued, groups, nodes, self._size.asked)
        if dismissed := list(dict.fromkeys([*leaving, *decision.dismiss])):
            logger.warning("event=groups_dismissed groups=%r leaving=%d", " ".join(dismissed), len(leaving))
            self._enter(dismissed, "ending")
        if decision.retire:
            logger.info("event=groups_retired groups=%r", " ".join(decision.retire))
            self._enter(decision.retire, "retiring")
        self._order()
        for pool in decision.start:
            self._start(pool)
        self._reserve(Counter(decision.short) if self._may_grow else {})
        if queued:
            self._check(queued, groups, nodes)

    def _order(self) -> None:
        """Ask groups to leave, at every tick: a broker that died has forgotten which ones were asked."""
        for phase, method in (("ending", self._broker.dismiss), ("retiring", self._broker.retire)):
            with self._lock:
                names = [name for name, running in self._running.items() if running.phase == phase]
            if names:
                ray.get(method.remote(names))

    def _enter(self, names: Iterable[str], phase: str) -> None:
        with self._lock:
            for name in self._running.keys() & set(names):
                self._running[name].enter(phase)

    def _phase(self, name: str) -> str:
        return self._running[name].phase if name in self._running else "ending"

    def _classify(self, running: _Running, known: Mapping[str, Any] | None) -> None:
        if known is None:
            running.enter("starting")
        elif running.phase not in LEAVING:
            self._failures.clear()
            running.enter("busy" if known["building"] else "idle")

    def _start(self, pool: Pool) -> None:
        name = f"group-{uuid.uuid4().hex[:8]}"
        thread = threading.Thread(target=self._run, args=(name, pool), name=name, daemon=True)
        with self._lock:
            self._running[name] = _Running(pool, thread)
        thread.start()

    def _run(self, name: str, pool: Pool) -> None:
        """Run a group to its end, in a thread of its own."""
        try:
            self._train(name, pool)
        except Exception as error:  # any of Ray: the stage returns to the queue, another group takes it
            reason = " ".join(str(error).split())[:300]
            logger.warning("event=group_failed group=%s reason=%r", name, reason)
            self._failures.append(reason)
            self._failed = time.monotonic()
        with self._lock:
            del self._running[name]
        try:
            ray.get(self._broker.lose.remote(name))
        except ray.exceptions.RayError as error:
            logger.debug("event=broker_gone reason=%r", str(error))

    def _reserve(self, wanted: Mapping[Pool, int]) -> None:
        """Request room from an autoscaler by pending placement groups; remove those that got it."""
        for pool in self._pools.values():
            waiting = self._reserved.pop(pool, [])
            over = waiting[wanted.get(pool, 0) :] + [one for one in waiting if one.wait(0)]
            for one in dict.fromkeys(over):
                remove_placement_group(one)
            kept = [one for one in waiting if one not in over]
            missing = wanted.get(pool, 0) - len(kept)
            kept += [placement_group([pool.bundle] * pool.workers) for _ in range(missing)]
            if kept:
                self._reserved[pool] = kept

    def _check(self, queued: Mapping[Pool, int], groups: Sequence[Group], nodes: Sequence[Node]) -> None:
        """Print what is waited for; after `patience_seconds`, or where groups only fail, fail the stages."""
        now = time.monotonic()
        if len(self._failures) >= MAX_FAILED_STARTS:
            for pool in queued:
                self._give_up(pool, f"worker groups end before they work: {self._failures[-1]}")
            return
        waiting = [pool for pool in queued if not any(group.pool == pool for group in groups)]
        unfit = [pool for pool in waiting if slots(pool, nodes) == 0]
        if not unfit:
            self._fitted = now
            return
        left = self._patience - (now - self._fitted)
        for pool in unfit:
            if left <= 0:
                self._give_up(pool, f"no room came for {pool.needs}; {shown(nodes)}")
            elif now - self._said > SAY_SECONDS:
                self._said = now
                self._say(
                    f"waiting for nodes: {queued[pool]} stages need {pool.needs}; {shown(nodes)}; "
                    f"{left / 60:.0f} min until they fail."
                )

    def _give_up(self, pool: Pool, reason: str) -> None:
        logger.error("event=pool_given_up pool=%r reason=%r", pool.name, reason)
        ray.get(self._broker.give_up.remote(pool.name, reason))


def remove_orphans() -> None:
    """Free what controllers of dead groups had reserved: Ray itself does so at the end of the whole job."""
    accessor = ray._private.state.state._connect_and_get_accessor()
    job = ray.get_runtime_context().get_job_id()
    for data in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        is_removed = group.state == PlacementGroupTableData.PlacementGroupState.REMOVED
        is_ours = group.creator_job_id.hex() == job and group.creator_actor_dead
        is_an_actors = group.creator_actor_id.strip(b"\xff")  # those of the job's own process have no actor
        if is_ours and is_an_actors and not is_removed:
            logger.warning("event=orphan_removed placement_group=%s", group.placement_group_id.hex())
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def survey() -> tuple[set[str], set[str], list[Node]]:
    """Return the ids of the alive nodes and of the draining ones, and the resources of the others."""
    draining = set(ray._private.state.state.get_draining_nodes())  # as Ray Train's own watcher does
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return set(alive), draining, [has for node, has in alive.items() if node not in draining]


def alive_nodes() -> list[Node]:
    """Return the resources of each alive node that is not draining."""
    return survey()[2]
