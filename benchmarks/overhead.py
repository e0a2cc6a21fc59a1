"""Benchmark: overhead of a sweep: `python -m benchmarks.overhead`, on an otherwise idle machine.

A head and worker nodes, an S3 server and MLflow run as processes here. CPU seconds are all that the machine
spent between `ray job submit` and the job's end, so they count every server; trainings' own are in the
artifacts. The sweep is submitted twice: the second time every stage is stored.
"""

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from tests.drills.drills import write_study
from tests.drills.rig import Rig, rig
from tests.sweeps import events


def busy() -> float:
    """Return the CPU seconds that this machine has spent since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def sweep(running: Rig, study: Path, name: str) -> tuple[float, float, float]:
    """Submit the study; return seconds until its first trial or its end, CPU seconds and seconds in all."""
    uri, store = running.store(name)
    before = len(events(store, "started"))
    began, began_ms, spent = time.monotonic(), time.time() * 1000, busy()
    job = running.submit(study, uri)
    assert running.wait(job, 1800) == "SUCCEEDED", running.logs(job)
    seconds, cpu = time.monotonic() - began, busy() - spent
    started = events(store, "started")[before:]
    first = min((event["time_ms"] for event in started), default=time.time() * 1000)
    return (first - began_ms) / 1000, cpu, seconds


def main(seeds: int, nodes: int, folder: Path) -> None:
    """Print the three figures."""
    study, trials = write_study(folder, "overhead", seeds), 8 * seeds
    with rig(folder, nodes) as running:
        idle = busy()
        time.sleep(10)
        idle = (busy() - idle) / 10
        first, cpu, seconds = sweep(running, study, "overhead")
        _, store = running.store("overhead")
        artifacts = [store.find(key) for key in store.keys()]  # noqa: SIM118 - a store is no dict
        training = sum(artifact.cost["cpu_seconds"] for artifact in artifacts if artifact)
        _, again, short = sweep(running, study, "overhead")
    print(f"{trials} trials, {len(artifacts)} stages, {nodes} nodes of one CPU")
    print(f"idle servers: {idle:.2f} CPU s each second")
    print(f"from `ray job submit` to the first trial: {first:.1f} s")
    print(f"first run: {seconds:.0f} s, {cpu:.0f} CPU s, of them {training:.0f} in stages")
    print(f"beyond its stages: {(cpu - training) / trials:.2f} CPU s a trial, servers included")
    print(f"every stage stored: {short:.1f} s, {again:.1f} CPU s, {again / trials:.2f} CPU s a trial")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="eight trials for each")
    parser.add_argument("--nodes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        main(arguments.seeds, arguments.nodes, Path(scratch))
