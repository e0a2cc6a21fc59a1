"""Two gloo processes on this machine, as a worker group has them."""

import socket
from collections.abc import Callable
from pathlib import Path

import torch


def run_two(as_rank: Callable[[int, int, int, str], None], folder: Path) -> None:
    """Run `as_rank` (rank, size, port, folder) in two processes; raise if one of them fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(as_rank, args=(2, port, str(folder)), nprocs=2)
