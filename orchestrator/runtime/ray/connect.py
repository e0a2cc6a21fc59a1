"""Connection to Ray: the cluster at RAY_ADDRESS, else one started on this machine; opens the executor."""

import logging
import os
import shutil
import site
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.installation import ROOT
from orchestrator.config.study import Study
from orchestrator.runtime.locations import Locations
from orchestrator.runtime.ray.pools import Node, Pool, pool_of, shown, slots
from orchestrator.stages.graph import STAGES
from orchestrator.store.journal import Journal
from orchestrator.sweep.ledger import Executor
from orchestrator.sweep.requests import Size

logger = logging.getLogger(__name__)

# Ray's own progress tables, loggers and colours would drown ours.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # of all trials, again and again: a sweep resumes from the store
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # jobs.sweep has its own
    "RAY_worker_maximum_startup_concurrency": "4",  # a sweep's few actors are no reason for a warning
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process for each group; `groups.survey` sees the same
}
SOCKET_PATH = "AF_UNIX path length"  # in Ray's error
RAY_STARTS = 3  # a busy machine may miss Ray's own start deadlines
WAIT_FOR_GROUPS_SECONDS = 30.0
DRIVERS_BEYOND_GROUPS = 8  # groups for one more trial driver, 2 at least: drivers mostly wait
DRIVERS_WHILE_GROWING = 16  # where nodes may join, so that enough stages wait to be worth them


@contextmanager
def ray_executor(
    study: Study,
    locations: Locations,
    journal: Journal,
    size: Size,
    *,
    wait_seconds: float = 0.0,
    checks_room: bool = True,
    say: Callable[[str], None] = print,
) -> Iterator[Executor]:
    """Join or start Ray, yield an executor, end what was started.

    `size` limits the worker groups. `wait_seconds` is how long stages wait for nodes that have not joined
    yet. `say` prints a line for people. Raise `Refused` if Ray cannot be reached or, where `checks_room`, if
    the study does not fit its nodes.
    """
    is_ours = start_ray()
    import ray

    from orchestrator.runtime.ray.groups import WorkerGroups, alive_nodes
    from orchestrator.runtime.ray.leases import RayLeases
    from orchestrator.runtime.ray.train import train
    from orchestrator.runtime.ray.tune import RayExecutor, scratch_folder, start_broker

    pools = {stage: pool_of(study.resources, stage) for stage in STAGES}
    if checks_room:
        check_room(pools.values(), alive_nodes())
    RayLeases(locations.store)  # opened here first, so that its actor lives on this node
    scratch, broker = scratch_folder(), start_broker()

    def run_group(name: str, pool: Pool) -> None:
        seconds = study.resources.checkpoint_seconds
        train(name, pool, locations.for_workers(), seconds, broker, scratch)

    groups = WorkerGroups(
        size,
        broker,
        list(dict.fromkeys(pools.values())),
        train=run_group,
        patience_seconds=wait_seconds,
        say=say,
    )
    least = DRIVERS_WHILE_GROWING if wait_seconds > 0 else 1
    try:
        yield RayExecutor(
            store_uri=locations.store,
            journal=journal,
            broker=broker,
            groups=groups,
            pools={stage: pool.name for stage, pool in pools.items()},
            max_running=lambda: num_drivers(max(groups.width(), least)),
            scheduler=study.search.scheduler,
        )
    finally:
        ray.get(broker.stop.remote())
        groups.join(WAIT_FOR_GROUPS_SECONDS)
        shutil.rmtree(scratch, ignore_errors=True)
        if is_ours:
            ray.shutdown()


def num_drivers(groups: int) -> int:
    """Return how many trials run at a time: one that each group builds for, and some whose stages wait."""
    return groups + min(groups, max(2, groups // DRIVERS_BEYOND_GROUPS))


def check_room(pools: Iterable[Pool], nodes: Sequence[Node]) -> None:
    """Raise `Refused` if a pool's group fits no cluster of these nodes."""
    way_out = "lower resources, add nodes, or pass --wait-for-nodes MINUTES where an autoscaler will"
    for pool in dict.fromkeys(pools):
        if slots(pool, nodes) < 1:
            rule = f"need {pool.needs}, but {shown(nodes)}"
            raise Refused("resources.workers", pool.workers, rule, way_out)


def is_cluster_named() -> bool:
    """Return whether a sweep joins a cluster that exists, in place of starting Ray on this machine."""
    if os.environ.get("RAY_ADDRESS") is not None:
        return True
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def start_ray() -> bool:
    """Connect to RAY_ADDRESS, else start Ray on this machine; return whether it was started here.

    Raise `Refused` if the cluster cannot be joined or Ray does not start.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray  # seconds: only a sweep that has something to run pays them

    if ray.is_initialized():
        return False
    for name in ("ray", "ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        settings |= {"address": "local", "include_dashboard": False}
    for attempt in range(1, RAY_STARTS + 1):
        try:
            ray.init(job_config=job_config(), **settings)
            return address is None
        except Exception as error:
            if SOCKET_PATH in str(error):
                raise _long_path() from error
            if address is not None or attempt == RAY_STARTS:
                reason = " ".join(str(error).split())[:300]
                way_out = "check RAY_ADDRESS and RAY_AUTH_MODE, or pass --local"
                raise Refused("ray:", NO_VALUE, reason, way_out) from error
            logger.warning("event=ray_start_failed attempt=%d of=%d", attempt, RAY_STARTS)
            ray.shutdown()
            time.sleep(2.0 * attempt)
    raise AssertionError("unreachable")


class SearchPath(list[str]):
    """Folders that workers import from before all others, to which Ray adds the driver's working directory.

    This package's own folder takes that one's place: a user's `jobs/` or `orchestrator.py` is none of ours.
    A package in Python's own folder needs neither. Ray adds nothing where a job has a `--working-dir`.
    """

    def extend(self, folders: Iterable[str]) -> None:
        """Add folders, the working directory replaced."""
        own = [] if str(ROOT) in site.getsitepackages() else [str(ROOT)]
        super().extend(one for folder in folders for one in (own if folder == os.getcwd() else [folder]))


def job_config() -> Any:
    """Return Ray's settings of this driver's job: workers import this package, whatever lies around it."""
    from ray.job_config import JobConfig  # here, as above

    config = JobConfig()
    config._py_driver_sys_path = SearchPath()  # Ray has no public setting for it
    return config


def _long_path() -> Refused:
    """Return the refusal of a folder for temporary files in which Ray cannot name its sockets."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    rule = "is too long: paths of Ray's sockets below it would exceed the system's limit"
    return Refused(
        name, os.environ.get(name, NO_VALUE), rule, "set RAY_TMPDIR to a short folder, such as /tmp"
    )
