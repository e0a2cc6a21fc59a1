"""Reading benchmark: a staged set beside plain boto3 and its transfer manager, in one run on one machine.

`python -m benchmarks.reading` stages random images in an S3 server of its own on the loopback address and
reads them in new processes, all ways in turns: plain `get_object(...)["Body"].read()` of the same files one
after the other; the workers' own `load`, which verifies; `load` with its objects fetched by the transfer
manager, as boto3 sets it up and with one stream for each object; `load` with an empty and with a filled node
cache; and once more in a process that has read the files before. Prints MB/s (10^6 bytes of all the set's
files) by median seconds, the ratio to plain, and the median CPU seconds of the reading process. On loopback
neither latency nor bandwidth is a limit, as on a network; `--slow` lets every answer come at 4 MB/s instead,
as from a far server. Each process first touches as much memory as it will need: a virtual machine may have to
get it from its host.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import numpy as np
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from orchestrator.datasets import Location, load, staging
from orchestrator.datasets.manifest import Options, SplitRule
from orchestrator.datasets.sources.base import array_source
from orchestrator.runtime.open_store import open_blobs, open_bucket
from orchestrator.runtime.s3.blobs import S3Blobs
from tests import s3

SIDE = 64
SETS = ("first", "second")  # the same bytes under two names: a process shares the arrays of one name anyway
PLAIN = "plain boto3"


class Spent(NamedTuple):
    """Cost of one reading."""

    wall_seconds: float
    cpu_seconds: float  # of this process, all threads


def spent(call: Callable[[], object]) -> Spent:
    """Measure a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def touch_memory(num_bytes: int) -> None:
    """Let the kernel have twice as many bytes at hand."""
    pages = np.empty(2 * num_bytes, dtype=np.uint8)
    pages[::4096] = 1


class Views(io.RawIOBase):
    """A seekable file over buffers."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers, self._position = buffers, 0

    def seekable(self) -> bool:
        """Return True: the transfer manager may write parts as they come."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset from the start."""
        assert whence == 0
        self._position = offset
        return offset

    def write(self, data: Any) -> int:
        """Copy bytes into the buffers from the position on."""
        start, view = self._position, memoryview(data)
        for buffer in self._buffers:
            if view and start < len(buffer):
                piece = view[: len(buffer) - start]
                buffer[start : start + len(piece)] = piece
                start, view = start + len(piece), view[len(piece) :]
            start -= len(buffer)
        self._position += len(data)
        return len(data)


class Managed(S3Blobs):
    """A bucket whose objects are read by boto3's transfer manager."""

    def __init__(self, bucket: str, config: TransferConfig) -> None:
        super().__init__(bucket, "")
        self.config = config

    def fill(self, name: str, buffers: Sequence[memoryview]) -> int:
        """Read an object into buffers that are as long as it is."""
        self._client().download_fileobj(self.bucket, self._key(name), Views(buffers), Config=self.config)
        return sum(map(len, buffers))


RANGES = TransferConfig()  # ten ranges of 8 MiB at once
ONE_STREAM = TransferConfig(multipart_threshold=1 << 40, io_chunksize=1 << 20)


def plain(uri: str, cache: Path | None, num_bytes: int) -> Spent:
    """Read the set's files without any check of ours."""
    bucket = open_bucket(uri).bucket
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket, Prefix=f"{SETS[0]}/")["Contents"]]
    touch_memory(num_bytes)
    assert len(keys) > 3
    return spent(lambda: [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys])


def verified(
    uri: str,
    cache: Path | None,
    num_bytes: int,
    name: str = SETS[0],
    config: TransferConfig | None = None,
) -> Spent:
    """Read a set as a worker does, or with a transfer manager."""
    blobs = open_bucket(uri) if config is None else Managed(open_bucket(uri).bucket, config)
    blobs.names("none")  # opens the client, as the listing above does
    touch_memory(num_bytes)
    return spent(lambda: load(name, Location(blobs, cache)))


def verified_before(uri: str, cache: Path | None, num_bytes: int) -> Spent:
    """Read files that this process has read from the cache before."""
    verified(uri, cache, num_bytes)
    return verified(uri, cache, num_bytes, SETS[1])


# Label -> how it is read and in which state the node's cache is.
WAYS: dict[str, tuple[Callable[[str, Path | None, int], Spent], str]] = {
    PLAIN: (plain, "none"),
    "load": (verified, "none"),
    "load, transfer manager": (partial(verified, config=RANGES), "none"),
    "load, transfer manager, one stream": (partial(verified, config=ONE_STREAM), "none"),
    "load, cold cache": (verified, "cold"),
    "load, warm cache, new process": (verified, "warm"),
    "load, warm cache, same process": (verified_before, "warm"),
}


def measure(way: str, uri: str, warm: Path, mib: float) -> Spent:
    """Measure once, in a process of its own."""
    with tempfile.TemporaryDirectory() as empty:
        cache = {"none": "", "cold": empty, "warm": str(warm)}[WAYS[way][1]]
        command = [sys.executable, "-m", "benchmarks.reading", f"--mib={mib}", "--measure", way, uri, cache]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Spent(*map(float, done.stdout.split()))


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
    parser.add_argument("--slow", action="store_true", help="answers at 4 MB/s; ways without a cache only")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, uri, cache = arguments.measure
        print(*WAYS[way][0](uri, Path(cache) if cache else None, int(arguments.mib * 2**20)))
        return
    with ExitStack() as stack:
        endpoint = stack.enter_context(s3.server())
        os.environ.pop("AWS_ENDPOINT_URL_S3", None)
        os.environ.update(s3.CREDENTIALS, AWS_ENDPOINT_URL=endpoint)
        warm = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uri = f"s3://{s3.new_bucket(endpoint)}"
        num_bytes = stage(uri, int(arguments.mib * 2**20), int(arguments.shard_mib * 2**20))
        ways = [way for way, (_, state) in WAYS.items() if state == "none" or not arguments.slow]
        if arguments.slow:
            proxy = stack.enter_context(s3.Proxy(endpoint))
            proxy.fail("slow", 24 * 3600.0)
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        else:
            measure("load, warm cache, new process", uri, warm, arguments.mib)  # fills the cache
        taken: dict[str, list[Spent]] = {way: [] for way in ways}
        for _ in range(arguments.repeats):
            for way in ways:
                taken[way].append(measure(way, uri, warm, arguments.mib))
    print_table(taken, num_bytes)


def print_table(taken: dict[str, list[Spent]], num_bytes: int) -> None:
    """Print medians."""
    baseline = statistics.median(one.wall_seconds for one in taken[PLAIN])
    print(f"{'way':36} {'seconds':>8} {'MB/s':>7} {'ratio':>6} {'CPU s':>6}   all seconds")
    for way, values in taken.items():
        median = statistics.median(one.wall_seconds for one in values)
        cpu = statistics.median(one.cpu_seconds for one in values)
        every = " ".join(f"{one.wall_seconds:.3f}" for one in values)
        rate, ratio = num_bytes / median / 1e6, baseline / median
        print(f"{way:36} {median:8.3f} {rate:7.0f} {ratio:6.2f} {cpu:6.2f}   {every}")


if __name__ == "__main__":
    main()
