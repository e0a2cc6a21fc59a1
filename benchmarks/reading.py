"""Benchmark: reading a staged set against plain boto3, in one run on one machine.

`python -m benchmarks.reading` stages random images in an S3 server of its own on the loopback address and
reads them in new processes, all ways in turns: plain `get_object(...)["Body"].read()` of the same files one
after the other; the workers' own `load`, which verifies; the same with an empty and with a filled node cache;
and once more in a process that has read the files before. Prints MB/s (10^6 bytes of all the set's files) by
median seconds, and the ratio to plain. On loopback neither latency nor bandwidth is a limit, as on a network.
Each process first touches as much memory as it will need: a virtual machine may have to get it from its host.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import boto3
import numpy as np
from botocore.config import Config

from orchestrator.datasets import Location, load, staging
from orchestrator.datasets.manifest import Options, SplitRule
from orchestrator.datasets.sources.base import array_source
from orchestrator.runtime.open_store import open_blobs
from tests import s3

SIDE = 64
SETS = ("first", "second")  # the same bytes under two names: a process shares the arrays of one name anyway
PLAIN = "plain boto3"


def touch_memory(num_bytes: int) -> None:
    """Let the kernel have twice as many bytes at hand."""
    pages = np.empty(2 * num_bytes, dtype=np.uint8)
    pages[::4096] = 1


def plain(uri: str, cache: Path | None, num_bytes: int) -> float:
    """Return the seconds of reading the set's files without any check of ours."""
    bucket = uri.removeprefix("s3://")
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket, Prefix=f"{SETS[0]}/")["Contents"]]
    touch_memory(num_bytes)
    start = time.perf_counter()
    files = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    seconds = time.perf_counter() - start
    assert len(files) > 3
    return seconds


def verified(uri: str, cache: Path | None, num_bytes: int, name: str = SETS[0]) -> float:
    """Return the seconds of reading a set as a worker does."""
    location = Location(open_blobs(uri), cache)
    assert location.blobs is not None
    location.blobs.names("none")  # opens the client, as the listing above does
    touch_memory(num_bytes)
    start = time.perf_counter()
    load(name, location)
    return time.perf_counter() - start


def verified_before(uri: str, cache: Path | None, num_bytes: int) -> float:
    """Return the seconds of reading files that this process has read from the cache before."""
    verified(uri, cache, num_bytes)
    return verified(uri, cache, num_bytes, SETS[1])


# Label -> how it is read and in which state the node's cache is.
WAYS: dict[str, tuple[Callable[[str, Path | None, int], float], str]] = {
    PLAIN: (plain, "none"),
    "load": (verified, "none"),
    "load, cold cache": (verified, "cold"),
    "load, warm cache, new process": (verified, "warm"),
    "load, warm cache, same process": (verified_before, "warm"),
}


def seconds(way: str, uri: str, warm: Path, mib: float) -> float:
    """Measure once, in a process of its own."""
    with tempfile.TemporaryDirectory() as empty:
        cache = {"none": "", "cold": empty, "warm": str(warm)}[WAYS[way][1]]
        command = [sys.executable, "-m", "benchmarks.reading", f"--mib={mib}", "--measure", way, uri, cache]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def stage(uri: str, num_bytes: int, shard_bytes: int) -> int:
    """Stage random images under both names; return the bytes of one set's files."""
    num_images = max(num_bytes // (SIDE * SIDE * 3), 8)
    shape = (num_images, SIDE, SIDE, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = array_source("npz", images, np.arange(num_images) % 2, "ab", "0" * 64)
    options = Options(splits={"default": SplitRule()}, duplicates="keep")
    staging.SHARD_BYTES = shard_bytes
    blobs = open_blobs(uri)
    for name in SETS:
        staging.publish(source, options, blobs, name)
    return sum(entry.size for entry in blobs.entries(f"{SETS[0]}/"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=float, default=256, help="of images")
    parser.add_argument("--shard-mib", type=float, default=64, help="of images in one object")
    parser.add_argument("--repeats", type=int, default=5, help="of all ways, in turns")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, uri, cache = arguments.measure
        print(WAYS[way][0](uri, Path(cache) if cache else None, int(arguments.mib * 2**20)))
        return
    with ExitStack() as stack:
        endpoint = stack.enter_context(s3.server())
        os.environ.pop("AWS_ENDPOINT_URL_S3", None)
        os.environ.update(s3.CREDENTIALS, AWS_ENDPOINT_URL=endpoint)
        warm = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uri = f"s3://{s3.new_bucket(endpoint)}"
        num_bytes = stage(uri, int(arguments.mib * 2**20), int(arguments.shard_mib * 2**20))
        seconds("load, warm cache, new process", uri, warm, arguments.mib)  # fills the cache
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.repeats):
            for way in WAYS:
                taken[way].append(seconds(way, uri, warm, arguments.mib))
    print_table(taken, num_bytes)


def print_table(taken: dict[str, list[float]], num_bytes: int) -> None:
    """Print medians."""
    baseline = statistics.median(taken[PLAIN])
    print(f"{'way':32} {'seconds':>8} {'MB/s':>7} {'ratio':>6}   all seconds")
    for way, values in taken.items():
        median = statistics.median(values)
        every = " ".join(f"{value:.3f}" for value in values)
        print(f"{way:32} {median:8.3f} {num_bytes / median / 1e6:7.0f} {baseline / median:6.2f}   {every}")


if __name__ == "__main__":
    main()
