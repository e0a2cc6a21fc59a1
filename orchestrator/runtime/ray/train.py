"""Ray Train workers: long-lived groups take stages from the broker until it stops them.

A group costs 20 to 45 CPU seconds to start. A worker that dies restarts its group; its stage goes back to the
queue and resumes from its checkpoint, there or in another group.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from orchestrator.runtime.locations import Locations
from orchestrator.runtime.ray.pools import Pool
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.training.world import World

logger = logging.getLogger(__name__)

LISTEN_SECONDS = 20.0  # how long one call to the broker stays open


def train(
    name: str, pool: Pool, locations: Locations, checkpoint_seconds: float, broker: Any, scratch: Path
) -> None:
    """Run one group until the broker ends it; raise what Ray Train raises when it cannot go on."""
    trainer = TorchTrainer(
        serve,
        train_loop_config={
            "group": name,
            "pool": pool,
            "broker": broker,
            "locations": locations,
            "checkpoint_seconds": checkpoint_seconds,
        },
        torch_config=TorchConfig(backend="nccl" if pool.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=pool.profile.workers,
            use_gpu=bool(pool.gpus_per_worker),
            resources_per_worker=pool.bundle,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=-1),
        ),
    )
    trainer.fit()


def serve(config: dict[str, Any]) -> None:
    """Take stages until the broker sends none: the training function of every worker of a group."""
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    group, pool, broker, locations = (config[name] for name in ("group", "pool", "broker", "locations"))
    runner.use_profile(pool.profile.threads)
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
            device=ray.train.torch.get_device() if pool.gpus_per_worker else torch.device("cpu"),
            precision=pool.profile.precision,
            report=_reporter(broker, stage.key),
            is_preempted=must_leave,
            checkpoint_seconds=config["checkpoint_seconds"],
        )
        error, ran = None, not world.agree(store.find(stage.key) is not None)
        if ran:
            try:
                runner.run(stage, world, store, location)
            except StageFailed as failure:
                error = failure
        if rank == 0:
            plain = {"kind": error.kind, "message": error.message} if error else None
            ray.get(broker.finish.remote(group, stage.key, plain, ran))
        if error and error.kind == "error" and size > 1:
            raise error  # other ranks may still be inside the stage: restart the group


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
