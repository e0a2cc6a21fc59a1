"""Seeds: one number for each purpose, derived from a spec's seed."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

CPU = torch.device("cpu")


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the text of all parts, in order, and on nothing else."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network whose initial weights depend on the seed alone; torch's generator is left as it was."""
    with drawing_from(derive_seed("weights", seed)):
        return build()


@contextmanager
def drawing_from(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's generators of the CPU and of a device within the context; leave them as they were."""
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # torch.manual_seed formats a stack trace for a CUDA that is not in use, and keeps it.
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
