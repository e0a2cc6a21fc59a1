"""Benchmark: CPU seconds of the whole demo and of its stages, here and in another checkout, in turns.

`python -m benchmarks.demo --against FOLDER` runs `jobs.sweep demo --local` into new folders and prints for
each checkout the CPU seconds of the command with its processes, those of its stages, and the share of each
stage: medians of the repeats. `--set sweep.seed=[0]` and the like make it shorter.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs

HERE = Path(__file__).resolve().parent.parent


def stage_seconds(store: Path) -> dict[str, float]:
    """Return the CPU seconds of all stored stages, by name."""
    artifacts = Artifacts(DirectoryBlobs(store))
    seconds: dict[str, float] = defaultdict(float)
    for key in artifacts.keys():  # noqa: SIM118 - a store is no dict
        artifact = artifacts.find(key)
        assert artifact is not None
        seconds[artifact.stage] += artifact.cost["cpu_seconds"]
    return seconds


def run(checkout: Path, out: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Run the demo of a checkout into a new folder; return CPU seconds by stage, and of the `command`."""
    changes = [word for override in overrides for word in ("--set", override)]
    words = [sys.executable, "-m", "jobs.sweep", "demo", "--local", "--out", str(out), *changes]
    before = _children()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(words, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {**stage_seconds(out / "store"), "command": _children() - before}


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def lines(name: str, runs: Sequence[dict[str, float]]) -> list[str]:
    """Return the lines of one checkout: medians over its runs, the largest stage first."""
    medians = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    command = medians.pop("command")
    total = sum(medians.values())
    shares = sorted(medians.items(), key=lambda one: -one[1])
    return [
        f"{name}: command {command:.1f} CPU s, stages {total:.1f} CPU s",
        *(f"  {stage:16}{seconds:9.2f} CPU s {seconds / total:7.1%}" for stage, seconds in shares),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--repeats", type=int, default=1, help="of all checkouts, in turns")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as of jobs.sweep")
    arguments = parser.parse_args(words)
    checkouts = {"here": HERE} | ({"against": arguments.against.resolve()} if arguments.against else {})
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        for repeat in range(arguments.repeats):
            for name, checkout in checkouts.items():
                runs[name].append(run(checkout, Path(scratch) / f"{name}-{repeat}", arguments.set))
    for name, measured in runs.items():
        print("\n".join(lines(name, measured)))


if __name__ == "__main__":
    main()
