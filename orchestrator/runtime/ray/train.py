"""Worker groups as runs of Ray Train: started here, without torch, which only their workers import.

A group costs 20 to 45 CPU seconds to start. A worker that dies restarts its group; its stage goes back to the
queue and resumes from its checkpoint, there or in another group.
"""

from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
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
    trainer = GroupTrainer(
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
            num_workers=pool.workers,
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


class GroupTrainer(DataParallelTrainer):
    """Ray's trainer without two of its actors, each a process of 110 MiB on the sweep's node for every group.

    One hands out Ray's data sets, of which a group has none. The other frees what a dead controller had
    reserved, as `groups.remove_orphans` does, also for one that dies before it has told that actor of it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        left_out = DatasetsCallback, PlacementGroupCleanerCallback
        return [one for one in super()._create_default_callbacks() if not isinstance(one, left_out)]


def _serve(config: dict[str, Any]) -> None:
    """Take stages until the broker sends none: the training function of every worker of a group."""
    from orchestrator.runtime.ray.worker import serve  # here: it imports torch, others need none

    serve(**config)
