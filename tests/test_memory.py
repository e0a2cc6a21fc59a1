"""Spans modules: training and predicting on a part of a set many times larger than the memory allowed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets import staging
from orchestrator.datasets.manifest import Options, SplitRule
from orchestrator.datasets.sources.base import Source
from orchestrator.store.directory import DirectoryBlobs

NUM_IMAGES, SIDE = 6_144, 72  # 91 MiB
SHARD_BYTES = 8 * 2**20

PASS = """
import re, resource, sys
import torch
from torch import nn
from orchestrator.config import Auxiliary, Data
from orchestrator.config.base import Recipe
from orchestrator.datasets import Location, load, selection, shards
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.loop import fit, predict
from orchestrator.training.objectives import classification
from orchestrator.training.pairs import Pairs
from orchestrator.training.world import World

BUDGET = 24 * 2**20
shards.HELD_BYTES = 2**20
torch.set_num_threads(1)
data = Data(dataset="large", image_size=72, channels=3, class_pool=3)
dataset = load("large", Location(DirectoryBlobs(sys.argv[1])))
network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(243, 3))

def selected(kind):
    return selection.auxiliary_images(dataset, None, data, 3, Auxiliary(kind=kind))

def one_pass(images, epochs=1):
    recipe = Recipe(epochs=epochs, batch_size=64, validation_fraction=0.02)
    fit(network, Pairs(images.images, images.labels), classification(), recipe, 0, World())
    return predict(network, images.images, torch.device("cpu")).double().sum().item()

def used():
    return int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

one_pass(selected("same-train").at(torch.arange(128)))  # what a first use keeps is no part of the budget
limit = used() + BUDGET
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
private = selection.target_images(dataset, data, 3, "train")
print(len(private), one_pass(private) != 0.0)
adversary = selected("generic")
print(len(adversary), one_pass(adversary) != 0.0)
shards.HELD_BYTES = 2**40
try:
    selection.target_images(dataset, data, 3, "train")
except (MemoryError, RuntimeError) as error:
    print("too large")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with a large set in small files; every image differs from the others."""
    folder = tmp_path_factory.mktemp("large")
    labels = np.arange(NUM_IMAGES, dtype=np.int64) % 4
    every = np.arange(SIDE * SIDE * 3, dtype=np.uint16).astype(np.uint8).reshape(SIDE, SIDE, 3)

    def read(index: int) -> np.ndarray:
        image = every.copy()
        image[0, 0], image[1, 1, 0] = index % 251, index // 251
        return image

    rule = SplitRule(fractions=(0.9, 0.0, 0.1))
    source = Source("synthetic", "large", tuple("abcd"), labels, read, str, "0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "SHARD_BYTES", SHARD_BYTES)
        staging.publish(source, Options(splits={"default": rule}), DirectoryBlobs(folder), "large")
    return folder


def test_a_pass_over_a_large_set_needs_no_copy_of_it(store: Path) -> None:
    """A process that may take 24 MiB more trains on 62 MiB of images, then on others."""
    # What is freed is given back at once, so that only what is held counts.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **malloc}
    answer = subprocess.run(
        [sys.executable, "-c", PASS, str(store)], capture_output=True, text=True, check=False, env=environment
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == ["4146 True", "1536 True", "too large"]
