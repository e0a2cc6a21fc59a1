"""Worker of a group: takes stages from the broker until it sends none. Runs inside Ray Train."""

import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from orchestrator.datasets import Location
from orchestrator.runtime.locations import Locations
from orchestrator.runtime.ray.broker import LISTEN_SECONDS
from orchestrator.runtime.ray.pools import Pool
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifacts
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World

logger = logging.getLogger(__name__)


def serve(*, group: str, pool: Pool, broker: Any, locations: Locations, checkpoint_seconds: float) -> None:
    """Take stages until the broker sends none, as one of the workers of a group."""
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device() if pool.gpus_per_worker else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    use_profile(pool.threads)
    _log_progress()
    if rank == 0:
        ray.get(broker.begin.remote(group, pool.name))
    if size > 1:  # no rank takes work before the broker has noted that this group starts afresh
        torch.distributed.barrier()
    ray.get(broker.arrive.remote(group, ray.get_runtime_context().get_node_id()))
    must_leave = _listen(broker, group) if rank == 0 else lambda: False
    store, location = locations.open_store(), locations.open_data()
    position = 0
    while (plain := ray.get(broker.take.remote(group, rank, position))) is not None:
        position += 1
        stage = Stage(**plain)
        logger.info("event=stage_taken stage=%s key=%s group=%s rank=%d", stage.name, stage.key, group, rank)
        world = World(
            rank=rank,
            size=size,
            device=device,
            precision=str(stage.profile["precision"]),
            report=_reporter(broker, stage.key),
            is_preempted=must_leave,
            checkpoint_seconds=checkpoint_seconds,
        )
        ran = not world.agree(store.find(stage.key) is not None)
        failure = _run(stage, world, store, location) if ran else None
        if rank == 0:
            ray.get(broker.finish.remote(group, stage.key, failure, ran))
        if failure and failure["kind"] == "error" and size > 1:
            # Other ranks may still be inside the stage: restart the group.
            raise StageFailed(stage.label, failure["message"], failure["kind"])
        if device.type == "cuda" and pool.gpus_per_worker < 1:
            gc.collect()
            torch.cuda.empty_cache()  # other groups share this accelerator


def _run(stage: Stage, world: World, store: Artifacts, location: Location) -> dict[str, str] | None:
    """Run a stage; return kind and message of its failure, without the exception, whose traceback would keep
    the stage's tensors."""
    try:
        runner.run(stage, world, store, location)
    except StageFailed as failure:
        return {"kind": failure.kind, "message": failure.message}
    return None


def _log_progress() -> None:
    """Write this worker's events to its own log, which Ray keeps with the job's."""
    ours = logging.getLogger("orchestrator")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        ours.addHandler(handler)
        ours.propagate = False


def _reporter(broker: Any, key: str) -> Callable[[Any], bool]:
    return lambda metrics: ray.get(broker.report.remote(key, dict(metrics)))


def _listen(broker: Any, group: str) -> Callable[[], bool]:
    """Poll the broker in the background; return a check of whether this group must end."""
    must_end = threading.Event()

    def poll() -> None:
        while not must_end.is_set():
            try:
                if ray.get(broker.must_leave.remote(group, LISTEN_SECONDS)):
                    must_end.set()
            except ray.exceptions.RayError:
                must_end.wait(1.0)  # the broker starts again

    threading.Thread(target=poll, name="listen", daemon=True).start()
    return must_end.is_set
