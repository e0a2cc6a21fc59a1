"""Ray Tune runs trials as light drivers: a driver queues stages at the broker and waits. No torch here."""

import base64
import json
import logging
import math
import tempfile
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.config.search import Scheduler
from orchestrator.runtime.open_store import open_artifacts
from orchestrator.runtime.ray.broker import Broker
from orchestrator.runtime.ray.leases import RayLeases
from orchestrator.runtime.ray.order import TaskQueue
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.journal import Journal
from orchestrator.sweep.ledger import Ledger
from orchestrator.sweep.rungs import compared_stage, loss_of, stopped_words
from orchestrator.sweep.trial import Outcome, Task, Trial

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 20.0
RUNG_METRIC = "loss"  # what `rungs.loss_of` makes of the progress of a training
NO_LIMIT = 10**9  # epochs: every training ends by itself, whichever length its point gives it
OUTCOME = "outcome"  # JSON in one field: Tune flattens nested results
DRIVER_BYTES = 200 * 2**20  # memory that a trial driver reserves
# Tune would put these into the environment of trials, which Ray writes to its logs: nodes have their own.
SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
Call = Callable[..., Any]
"""Calls a method of the broker by its name, with arguments, and waits for the result."""
WAITING_DRIVERS = 8  # drivers for one more, 2 at least, that may wait for a stage as soon as it starts
DRIVER_DEATHS = 20  # of one trial, from any cause: the next driver goes on


@dataclass(frozen=True)
class RayExecutor:
    """Implements `Executor` with Tune trials over worker groups, which start when the first task comes."""

    store_uri: str
    journal: Journal
    broker: Any
    groups: Any  # WorkerGroups
    pools: Mapping[str, str]  # stage name -> pool
    max_running: Callable[[], int]  # trials at a time; more as nodes join
    scheduler: Scheduler | None

    def run(self, ledger: Ledger) -> None:
        """Run every task of the ledger."""
        call = _caller(self.broker)
        searcher = TaskSearcher(ledger, self.max_running, lambda since: call("ended", since), self.scheduler)
        if not searcher.prefetch():
            return
        self.groups.start()
        # No CPU: the groups may take them all, and a driver that waited for one would never queue a stage.
        drive = tune.with_resources(_drive, tune.PlacementGroupFactory([{"memory": DRIVER_BYTES}]))
        shared = {"store": self.store_uri, "owner": f"sweep-{uuid.uuid4().hex}", "broker": self.broker}
        class_cache.ENV_VARS_TO_PROPAGATE -= SECRETS  # in place
        with tempfile.TemporaryDirectory(prefix="tune-") as scratch:
            tuner = Tuner(
                tune.with_parameters(drive, shared={**shared, "pools": dict(self.pools)}),
                tune_config=TuneConfig(
                    search_alg=searcher,
                    scheduler=scheduler_of(self.scheduler) if self.scheduler else None,
                    num_samples=-1,
                    max_concurrent_trials=None,  # the searcher limits itself
                    reuse_actors=True,
                ),
                run_config=RunConfig(
                    name=f"sweep-{uuid.uuid4().hex[:8]}",
                    storage_path=scratch,
                    failure_config=FailureConfig(max_failures=DRIVER_DEATHS),
                    verbose=0,
                    callbacks=[],
                ),
            )
            tuner.fit()
        if searcher.error is not None:
            raise searcher.error
        starts = ray.get(self.broker.state.remote())["starts"]
        self.journal.append("groups", slots=self.groups.width(), starts=starts)

    def halt(self, seconds: float) -> None:
        """Make every group save what it builds and end; return then, or after `seconds`."""
        end = time.monotonic() + seconds
        ray.get(self.broker.halt.remote(), timeout=seconds)
        while time.monotonic() < end:
            state = ray.get(self.broker.state.remote(), timeout=seconds)
            if not state["waiting"] and not any(group["building"] for group in state["groups"].values()):
                return
            time.sleep(0.05)


def scheduler_of(scheduler: Scheduler) -> ASHAScheduler | MedianStoppingRule:
    """Return Ray's scheduler: it compares trials by epochs and ends none for its number of epochs."""
    if scheduler.kind == "median":
        return MedianStoppingRule(
            time_attr="epoch",
            metric=RUNG_METRIC,
            mode="min",
            grace_period=scheduler.grace_epochs,
            min_samples_required=scheduler.least_trials,
            min_time_slice=math.inf,  # else it pauses trials while others wait, which cancels their stages
        )
    return ASHAScheduler(
        time_attr="epoch",
        metric=RUNG_METRIC,
        mode="min",
        max_t=max(NO_LIMIT, scheduler.grace_epochs),
        grace_period=scheduler.grace_epochs,
        reduction_factor=scheduler.reduction_factor,
    )


class TaskSearcher(Searcher):
    """Lets Tune draw the ledger's tasks; a batch is closed before the next one is planned.

    `list_ended` returns the keys of the stages that have ended since as many had, for the order of tasks.
    """

    def __init__(
        self,
        ledger: Ledger,
        max_running: Callable[[], int],
        list_ended: Callable[[int], Sequence[str]] = lambda since: (),
        scheduler: Scheduler | None = None,
    ) -> None:
        super().__init__(metric="done", mode="max")
        self._ledger, self._max_running, self._list_ended = ledger, max_running, list_ended
        self._scheduler = scheduler
        self._num_ended = 0  # stages that the broker has listed
        self._waits: dict[str, str] = {}  # running trial -> the stage of others that it waited for at first
        self._waiting = TaskQueue([])
        self._running: dict[str, Task] = {}
        self._priorities: Counter[str] = Counter()  # stage key -> trials of the batch that need it
        self._stopped: dict[str, Outcome] = {}  # compared stage that the scheduler ended -> how
        self.error: Exception | None = None

    def prefetch(self) -> bool:
        """Take the next batch; return whether there is anything to run."""
        tasks = self._ledger.next_tasks()
        self._waiting = TaskQueue(tasks)
        self._priorities = Counter(stage.key for task in tasks for stage in task.stages.values())
        for key in filter(self._ledger.is_built, self._priorities):  # no driver waits for these
            self._waiting.built(key)
        return bool(self._waiting)

    def suggest(self, trial_id: str) -> Any:
        """Return the next task as plain data, None if there is none yet, or the end."""
        while True:
            if self.error is not None or self._ledger.is_halted:
                return Searcher.FINISHED
            if not self._waiting and not self._running and not self.prefetch():
                return Searcher.FINISHED
            drawn = self._draw()
            if drawn is None:
                return None
            task, stage = drawn
            self._ledger.start(task)
            compared = compared_stage(task, self._scheduler)
            if compared is None or compared.key not in self._stopped:
                break
            self._end(task, self._stopped[compared.key])
        if stage is not None:
            self._waits[trial_id] = stage
        self._running[trial_id] = task
        plain = {
            "stages": [asdict(stage) for stage in task.stages.values()],
            "priorities": {stage.key: self._priorities[stage.key] for stage in task.stages.values()},
            "compared": compared.key if compared else None,
        }
        return {"name": task.point.name, "task": packed(plain)}

    def _draw(self) -> tuple[Task, str | None] | None:
        """Return the next task, and the stage of others that it waits for first; None if it has to wait."""
        most = self._max_running()
        if not self._waiting or len(self._running) >= most:
            return None
        return self._waiting.take(may_wait=self._num_waiting() < max(2, most // WAITING_DRIVERS))

    def _num_waiting(self) -> int:
        """Return how many drivers still wait for the stage that they had to wait for at first."""
        ended = self._list_ended(self._num_ended)
        self._num_ended += len(ended)
        for key in ended:
            self._waiting.built(key)
        self._waits = {one: key for one, key in self._waits.items() if self._waiting.is_unbuilt(key)}
        return len(self._waits)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note in the ledger how a task ended."""
        task = self._running.pop(trial_id, None)
        if task is None:  # noted before
            return
        self._waits.pop(trial_id, None)
        result = result or {}
        if OUTCOME in result:
            outcome = Outcome(**json.loads(result[OUTCOME]))
        elif error:
            outcome = Outcome("failed", failed_stage="driver", error="the trial's driver kept dying")
        else:  # stopped by the scheduler between two reports
            compared = compared_stage(task, self._scheduler)
            assert compared is not None  # only its epochs are reported
            words = stopped_words(compared, result["epoch"])
            outcome = Outcome("pruned", failed_stage=compared.label, error=words)
            if not any(compared.key in _keys(other) for other in self._running.values()):
                self._stopped[compared.key] = outcome  # of every trial that shares it: no one trains it now
        self._end(task, outcome)

    def _end(self, task: Task, outcome: Outcome) -> None:
        self._waiting.end(task)
        try:
            self._ledger.end(task, outcome)
        except Exception as error:  # Tune would take it for a failure of the trial and go on
            self.error = error

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing in Tune's own files: a sweep starts again from the store, never from them."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing, as above."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


def _keys(task: Task) -> set[str]:
    return {stage.key for stage in task.stages.values()}


def packed(plain: Mapping[str, Any]) -> str:
    """Return plain data as one short text: Tune keeps every config twice until the sweep ends."""
    return base64.b85encode(zlib.compress(json.dumps(plain).encode())).decode()


def unpacked(text: str) -> dict[str, Any]:
    """Return the data of `packed`."""
    plain: dict[str, Any] = json.loads(zlib.decompress(base64.b85decode(text)))
    return plain


def _drive(config: dict[str, Any], shared: dict[str, Any]) -> None:
    """Run one trial: the trainable. Everything heavy happens in the worker groups."""
    task = unpacked(config["task"])
    broker = BrokerClient(_caller(shared["broker"]), task["priorities"], shared["pools"])
    stages = [Stage(**plain) for plain in task["stages"]]
    rungs = Rungs(next((stage.name for stage in stages if stage.key == task["compared"]), ""))
    trial = Trial(stages, open_artifacts(shared["store"]), RayLeases(shared["store"]), shared["owner"])
    broker.walk(trial, task["compared"], rungs.report)
    tune.report({**rungs.last, OUTCOME: json.dumps(asdict(trial.outcome)), "done": True})


def _caller(broker: Any) -> Call:
    """Return a function that calls a method of the broker's actor and waits for its result."""
    return lambda method, *arguments: ray.get(getattr(broker, method).remote(*arguments))


class Rungs:
    """What a scheduler compares: epochs and losses of one training, as Tune's results."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self.last: dict[str, float] = {"epoch": 0, RUNG_METRIC: float("inf")}  # epoch 0 is below every rung

    def report(self, progress: Mapping[str, float]) -> None:
        """Report an epoch; where the scheduler stops the trial, Tune ends this process."""
        loss = loss_of(self._stage, progress)
        if loss is not None:
            self.last = {"epoch": progress["epoch"], RUNG_METRIC: loss}
            tune.report(self.last)


@dataclass(frozen=True)
class BrokerClient:
    """Queues stages for the sweep's worker groups."""

    call: Call
    priorities: Mapping[str, int]
    pools: Mapping[str, str]  # stage name -> pool

    def walk(self, trial: Trial, compared: str | None, report: Callable[[Mapping[str, float]], None]) -> None:
        """Build the stages that a trial lacks; `report` takes the progress of the one with key `compared`."""
        for stage in trial.missing():
            try:
                if self.build(stage, report if stage.key == compared else None):
                    trial.note_built(stage)
            except StageFailed as failure:
                trial.note_failed(failure)

    def build(self, stage: Stage, report: Callable[[Mapping[str, float]], None] | None) -> bool:
        """Queue the stage, pass on its progress, return whether this call ran it once it is published.

        Raise `StageFailed` if it cannot be built.
        """
        key = stage.key
        is_first = self._submit(stage)
        start = None if report is None else 0
        since, is_unwanted = start, True
        try:
            while True:
                news = self.call("follow", key, since, FOLLOW_SECONDS)
                if news is None:  # the broker died and began again with nothing
                    is_first, since = self._submit(stage) or is_first, start
                    continue
                if report is not None and since is not None:
                    since += len(news["progress"])
                    for progress in news["progress"]:
                        report(progress)
                if news["done"]:
                    is_unwanted = False
                    break
        finally:
            self.call("leave", key, is_unwanted)
        if news["error"] is not None:
            raise StageFailed(stage.label, news["error"]["message"], news["error"]["kind"])
        return is_first and news["ran"]

    def _submit(self, stage: Stage) -> bool:
        pool, priority = self.pools[stage.name], self.priorities.get(stage.key, 0)
        return bool(self.call("submit", asdict(stage), stage.key, pool, priority))


def start_broker() -> Any:
    """Start this sweep's broker on the driver's node; it ends with the driver and restarts if it dies."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 1000, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Broker).options(**options, scheduling_strategy=here).remote()


def scratch_folder() -> Path:
    """Return a folder for Ray's own files of this run; nothing of ours is kept there."""
    return Path(tempfile.mkdtemp(prefix="train-"))
