"""Two gloo processes on this machine, as a worker group has them."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch


def run_two(as_rank: Callable[[int, int, str], None], folder: Path) -> None:
    """Run `as_rank` (rank, size, folder) in two processes; raise if one of them fails.

    They meet at the file `rendezvous` in the folder: another process could take a free port before they
    listen. They are forks of a process that has imported everything: it costs more than most of these tests.
    """
    (folder / "rendezvous").unlink(missing_ok=True)
    multiprocessing.set_forkserver_preload(["orchestrator.stages.runner", as_rank.__module__])
    arguments = (2, str(folder))
    torch.multiprocessing.start_processes(as_rank, args=arguments, nprocs=2, start_method="forkserver")
