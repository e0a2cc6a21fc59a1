"""Ray Train runs every stage: few long-lived worker groups take stages from the broker until it stops them.

A group costs 20 to 45 CPU seconds to start, so there are never more than the cluster has slots for. A worker
that dies restarts its group; the stage it was in goes back to the queue and resumes from its checkpoint.
"""

import logging
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from orchestrator.build import build, use_profile
from orchestrator.pipeline import StageFailed
from orchestrator.plan import Profile, Stage
from orchestrator.runtime.stores import open_artifacts, open_location
from orchestrator.world import World

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What a worker needs to open its own edges: addresses, no clients and no secrets."""

    store_uri: str
    data_uri: str | None
    cache: str | None
    profile: Profile
    gpus_per_worker: float
    checkpoint_seconds: float


class WorkerGroups:
    """Starts and ends the groups of one sweep; each runs `TorchTrainer.fit` in a thread of the driver."""

    def __init__(self, service: Service, broker: Any, scratch: Path) -> None:
        self._service, self._broker, self._scratch = service, broker, scratch
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self._alive: set[str] = set()

    @property
    def names(self) -> list[str]:
        """The groups started so far."""
        return list(self._threads)

    def start(self, count: int) -> None:
        """Bring the number of groups up to `count`."""
        for number in range(len(self._threads), count):
            name = f"group-{number}-{uuid.uuid4().hex[:6]}"
            self._alive.add(name)
            thread = threading.Thread(target=self._run, args=(name,), name=name, daemon=True)
            self._threads[name] = thread
            thread.start()

    def join(self, seconds: float) -> None:
        """Wait until the groups have ended, after the broker was stopped."""
        for thread in self._threads.values():
            thread.join(seconds)

    def _run(self, name: str) -> None:
        profile, service = self._service.profile, self._service
        config = {"group": name, "broker": self._broker, "service": service}
        resources = {"CPU": float(profile.threads)}
        if service.gpus_per_worker:
            resources["GPU"] = service.gpus_per_worker
        trainer = TorchTrainer(
            serve,
            train_loop_config=config,
            torch_config=TorchConfig(backend="nccl" if service.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=profile.workers,
                use_gpu=bool(service.gpus_per_worker),
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(self._scratch),
                failure_config=FailureConfig(max_failures=-1),
            ),
        )
        reason = "the worker group ended"
        try:
            trainer.fit()
        except Exception as error:
            reason = f"the worker group failed: {' '.join(str(error).split())[:300]}"
            logger.error("event=group_failed group=%s reason=%s", name, reason)
        finally:
            with self._lock:
                self._alive.discard(name)
                others = len(self._alive)
            try:
                ray.get(self._broker.lose.remote(name, reason, others))
            except ray.exceptions.RayError as error:
                logger.debug("event=broker_gone reason=%s", error)


def serve(config: dict[str, Any]) -> None:
    """Take stages until told to stop: the training function of every worker of a group."""
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    group, broker, service = config["group"], config["broker"], config["service"]
    use_profile(service.profile.threads)
    if rank == 0:
        ray.get(broker.begin.remote(group))
    if size > 1:  # nobody asks for work before the broker knows that this group starts afresh
        torch.distributed.barrier()
    store, location = open_artifacts(service.store_uri), open_location(service.data_uri, service.cache)
    position = 0
    while (plain := ray.get(broker.take.remote(group, rank, position))) is not None:
        position += 1
        stage = Stage(**plain)
        world = _world(rank, size, service, broker, stage.key)
        error, ran = None, not world.agree(store.find(stage.key) is not None)
        if ran:
            try:
                build(stage, world, store, location)
            except StageFailed as failure:
                error = failure
        if rank == 0:
            told = {"kind": error.kind, "message": error.message} if error else None
            ray.get(broker.finish.remote(group, stage.key, told, ran))
        if error and error.kind == "error" and size > 1:
            raise error  # other ranks may still be inside the stage: restart the group


def _world(rank: int, size: int, service: Service, broker: Any, key: str) -> World:
    device = ray.train.torch.get_device() if service.gpus_per_worker else torch.device("cpu")
    return World(
        rank=rank,
        size=size,
        device=device,
        precision=service.profile.precision,
        report=lambda metrics: ray.get(broker.report.remote(key, dict(metrics))),
        checkpoint_seconds=service.checkpoint_seconds,
    )
