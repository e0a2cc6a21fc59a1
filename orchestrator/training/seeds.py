"""Seeds: one number for each purpose, derived from a spec's seed."""

import hashlib
import json
from collections.abc import Callable

import torch
from torch import nn


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the text of all parts, in order, and on nothing else."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network whose initial weights depend on the seed alone; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        return build()
