"""Worker groups as runs of Ray Train: started here, without torch, which only their workers import.

A group costs 20 to 45 CPU seconds to start. A worker that dies restarts its group; its stage goes back to the
queue and resumes from its checkpoint, there or in another group.
"""

from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator.runtime.locations import Locations
from orchestrator.runtime.ray.pools import Pool
from orchestrator.runtime.ray.process_group import ProcessGroup


def train(
    name: str, pool: Pool, locations: Locations, checkpoint_seconds: float, broker: Any, scratch: Path
) -> None:
    """Run one group until the broker ends it; raise what Ray Train raises when it cannot go on.

    Ray's `TorchTrainer` would import torch here and in the group's controller: hundreds of MiB each.
    """
    trainer = DataParallelTrainer(
        _serve,
        train_loop_config={
            "group": name,
            "pool": pool,
            "broker": broker,
            "locations": locations,
            "checkpoint_seconds": checkpoint_seconds,
        },
        backend_config=ProcessGroup("nccl" if pool.gpus_per_worker else "gloo"),
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


def _serve(config: dict[str, Any]) -> None:
    """Take stages until the broker sends none: the training function of every worker of a group."""
    from orchestrator.runtime.ray.worker import serve  # here: it imports torch, others need none

    serve(**config)
