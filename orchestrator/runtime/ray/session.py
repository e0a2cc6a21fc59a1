"""Opens a sweep's edges: in this process, or on the Ray cluster that is there (else one on this machine)."""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.config.study import Study, StudyError
from orchestrator.datasets import Location
from orchestrator.runtime.ray.pools import Node, Pool, pool_of, shown, slots
from orchestrator.stages.graph import VERSIONS, Profile
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.leases import LocalLeases
from orchestrator.sweep.local import LocalExecutor, LocalLauncher
from orchestrator.sweep.trial import Edges, Executor

logger = logging.getLogger(__name__)

# Ray's own progress tables, loggers and colours would drown ours.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # jobs.sweep has its own
    "RAY_worker_maximum_startup_concurrency": "4",  # a sweep's few actors are no reason for a warning
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}
RAY_STARTS = 3  # a busy machine may miss Ray's own start deadlines
WAIT_FOR_GROUPS_SECONDS = 30.0
DRIVERS_BEYOND_GROUPS = 2  # trial drivers mostly wait: a few more than groups keep every group busy
DRIVERS_WHILE_GROWING = 16  # where nodes may join, so that enough stages wait to be worth them


@dataclass(frozen=True)
class Places:
    """Where things are; nothing of it enters a key."""

    store_uri: str
    data_uri: str | None
    cache: str | None


def profile_of(study: Study) -> Profile:
    """Return the numeric profile of all stages that name no resources of their own."""
    return pool_of(study.resources).profile


def profiles_of(study: Study) -> dict[str, Profile]:
    """Return the numeric profiles of the stages that do."""
    return {stage: pool_of(study.resources, stage).profile for stage in study.resources.stages}


def local_executor(study: Study, store: Artifacts, location: Location) -> Executor:
    """Return an executor of this process; it has one worker and no scheduler."""
    if study.search.scheduler is not None:
        raise StudyError("search.scheduler compares running trials and needs Ray; drop it or drop --local.")
    profiles = {"resources": profile_of(study)}
    profiles |= {f"resources.stages.{stage}": one for stage, one in profiles_of(study).items()}
    for field, profile in profiles.items():
        if profile.workers > 1:
            raise StudyError(
                f"{field}.workers={profile.workers} needs Ray; drop --local or set {field}.workers=1."
            )
    launcher = LocalLauncher(store, location, study.resources.checkpoint_seconds)
    edges = Edges(store, LocalLeases(), launcher, f"local-{os.getpid()}")
    return LocalExecutor(edges, launcher.must_leave)


@contextmanager
def ray_executor(
    study: Study, places: Places, *, wait_seconds: float = 0.0, say: Callable[[str], None] = print
) -> Iterator[Executor]:
    """Join or start Ray, yield an executor, end what was started.

    `wait_seconds` is how long stages wait for nodes that are not there yet; 0 refuses a study that does not
    fit. `say` prints a line for people.
    """
    is_ours = start_ray()
    import ray

    from orchestrator.runtime.ray.groups import WorkerGroups, alive_nodes
    from orchestrator.runtime.ray.leases import RayLeases
    from orchestrator.runtime.ray.train import Service
    from orchestrator.runtime.ray.tune import RayExecutor, scratch_folder, start_broker

    resources = study.resources
    pools = {stage: pool_of(resources, stage) for stage in VERSIONS}
    if wait_seconds <= 0:
        check_room(pools.values(), alive_nodes())
    RayLeases(places.store_uri)  # asked for here first, so that its actor lives on this node
    scratch, broker = scratch_folder(), start_broker()
    groups = WorkerGroups(
        Service(places.store_uri, places.data_uri, places.cache, resources.checkpoint_seconds),
        broker,
        list(dict.fromkeys(pools.values())),
        scratch,
        cap=resources.groups,
        patience_seconds=wait_seconds,
        say=say,
    )
    epochs = study.base.get("attack", {}).get("recipe", {}).get("epochs", 100)
    least = DRIVERS_WHILE_GROWING if wait_seconds > 0 else 1
    try:
        yield RayExecutor(
            store_uri=places.store_uri,
            owner=f"sweep-{uuid.uuid4().hex}",
            broker=broker,
            groups=groups,
            pools={stage: pool.name for stage, pool in pools.items()},
            max_running=lambda: max(groups.width(), least) + DRIVERS_BEYOND_GROUPS,
            scheduler=study.search.scheduler,
            max_epochs=epochs,
        )
    finally:
        ray.get(broker.stop.remote())
        groups.join(WAIT_FOR_GROUPS_SECONDS)
        shutil.rmtree(scratch, ignore_errors=True)
        if is_ours:
            ray.shutdown()


def check_room(pools: Iterable[Pool], nodes: Sequence[Node]) -> None:
    """Raise `StudyError` if a pool's group fits no cluster of these nodes."""
    for pool in dict.fromkeys(pools):
        if slots(pool, nodes) < 1:
            raise StudyError(
                f"resources.workers={pool.profile.workers} need {pool.needs}, but {shown(nodes)}; lower "
                "resources, add nodes, or pass --wait-for-nodes MINUTES where an autoscaler will."
            )


def start_ray() -> bool:
    """Connect to RAY_ADDRESS, else start Ray on this machine; return whether it was started here."""
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
            ray.init(**settings)
            return address is None
        except Exception as error:
            if address is not None or attempt == RAY_STARTS:
                reason = " ".join(str(error).split())[:300]
                raise StudyError(
                    f"ray: {reason}; check RAY_ADDRESS and RAY_AUTH_MODE, or pass --local."
                ) from error
            logger.warning("event=ray_start_failed attempt=%d of=%d", attempt, RAY_STARTS)
            ray.shutdown()
            time.sleep(2.0 * attempt)
    raise AssertionError("unreachable")
