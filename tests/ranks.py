"""Two gloo processes on this machine, as a worker group has them."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path

import torch


def run_two(as_rank: Callable[[int, int, int, str], None], folder: Path) -> None:
    """Run `as_rank` (rank, size, port, folder) in two processes; raise if one of them fails.

    They are forks of a process that has imported everything: it costs more than most of these tests.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.set_forkserver_preload(["orchestrator.stages.runner", as_rank.__module__])
    arguments = (2, port, str(folder))
    torch.multiprocessing.start_processes(as_rank, args=arguments, nprocs=2, start_method="forkserver")
