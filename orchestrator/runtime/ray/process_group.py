"""Process group of torch.distributed, set up on a group's workers by its controller, which imports no torch.

Ray Train's own setup for torch imports it in the controller and in the sweep's process as well.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train._internal.utils import get_address_and_port  # what Ray's own backends call
from ray.train.backend import Backend, BackendConfig

TIMEOUT = timedelta(minutes=30)  # for one collective operation, as Ray Train has it


@dataclass
class ProcessGroup(BackendConfig):
    """How the workers of a group average gradients and share decisions; one worker needs no such group."""

    backend: str  # gloo or nccl

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what sets it up."""
        return _Setup

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, for Ray's own state."""
        return {"backend": self.backend}


class _Setup(Backend):
    """Runs in the controller: calls functions on the workers."""

    share_cuda_visible_devices = True  # workers of a node reach each other's memory

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Connect the workers of a group that has several."""
        assert isinstance(backend_config, ProcessGroup)
        size = len(worker_group)
        if size == 1:
            return
        address, port = worker_group.execute_single(0, get_address_and_port)
        host = f"[{address}]" if ":" in address else address
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, join, backend_config.backend, f"tcp://{host}:{port}", rank, size
                )
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Disconnect the workers, if they still answer."""
        if len(worker_group) > 1:
            ray.wait(worker_group.execute_async(leave), num_returns=len(worker_group), timeout=30)


def join(backend: str, url: str, rank: int, size: int) -> None:
    """Connect this worker to the others."""
    import torch  # here: the controller imports this module

    torch.distributed.init_process_group(
        backend, init_method=url, rank=rank, world_size=size, timeout=TIMEOUT
    )


def leave() -> None:
    """Disconnect this worker."""
    import torch  # as above

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
