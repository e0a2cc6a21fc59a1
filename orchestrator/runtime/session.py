"""Opens a sweep's edges: in this process, or on the Ray cluster that is there (else one on this machine)."""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.artifacts import Artifacts
from orchestrator.datasets import Location
from orchestrator.leases import LocalLeases
from orchestrator.pipeline import Edges, Executor
from orchestrator.plan import Profile
from orchestrator.runtime.local import LocalExecutor, LocalLauncher
from orchestrator.study import Study, StudyError

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


@dataclass(frozen=True)
class Places:
    """Where things are; nothing of it enters a key."""

    store_uri: str
    data_uri: str | None
    cache: str | None


def profile_of(study: Study) -> Profile:
    """Return the numeric profile that a study's resources ask for."""
    resources = study.resources
    return Profile(
        device="cuda" if resources.gpus_per_worker else "cpu",
        precision=resources.precision,
        workers=resources.workers,
        threads=resources.threads,
    )


def local_executor(study: Study, store: Artifacts, location: Location) -> Executor:
    """Return an executor of this process; it has one worker and no scheduler."""
    if study.search.scheduler is not None:
        raise StudyError("search.scheduler compares running trials and needs Ray; drop it or drop --local.")
    if study.resources.workers > 1:
        raise StudyError(
            f"resources.workers={study.resources.workers} needs Ray; drop --local or set resources.workers=1."
        )
    launcher = LocalLauncher(store, location, profile_of(study), study.resources.checkpoint_seconds)
    return LocalExecutor(Edges(store, LocalLeases(), launcher, f"local-{os.getpid()}"))


@contextmanager
def ray_executor(study: Study, places: Places) -> Iterator[Executor]:
    """Join or start Ray, yield an executor with a worker group for each slot, end what was started."""
    is_ours = start_ray()
    import ray

    from orchestrator.runtime.ray_train import Service, WorkerGroups
    from orchestrator.runtime.ray_tune import RayExecutor, scratch_folder, start_broker

    scratch = scratch_folder()
    resources, profile = study.resources, profile_of(study)
    service = Service(
        store_uri=places.store_uri,
        data_uri=places.data_uri,
        cache=places.cache,
        profile=profile,
        gpus_per_worker=resources.gpus_per_worker,
        checkpoint_seconds=resources.checkpoint_seconds,
    )
    broker = start_broker()
    groups = WorkerGroups(service, broker, scratch)
    epochs = study.base.get("attack", {}).get("recipe", {}).get("epochs", 100)
    try:
        yield RayExecutor(
            store_uri=places.store_uri,
            owner=f"sweep-{uuid.uuid4().hex}",
            broker=broker,
            groups=groups,
            num_groups=min(slots(study, ray.cluster_resources()), resources.groups or 1_000_000),
            scheduler=study.search.scheduler,
            max_epochs=epochs,
        )
    finally:
        ray.get(broker.stop.remote())
        groups.join(WAIT_FOR_GROUPS_SECONDS)
        shutil.rmtree(scratch, ignore_errors=True)
        if is_ours:
            ray.shutdown()


def slots(study: Study, resources: dict[str, Any]) -> int:
    """Return how many worker groups fit the cluster; raise `StudyError` if none does."""
    wanted = {"CPU": float(study.resources.threads), "GPU": study.resources.gpus_per_worker}
    per_group = {name: amount * study.resources.workers for name, amount in wanted.items() if amount}
    fitting = min(int(resources.get(name, 0.0) // amount) for name, amount in per_group.items())
    if fitting < 1:
        raise StudyError(
            f"resources.workers={study.resources.workers} need {per_group}, but the cluster has "
            f"{ {name: resources.get(name, 0.0) for name in per_group} }; lower resources or add nodes."
        )
    return fitting


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
