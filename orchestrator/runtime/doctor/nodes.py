"""Checks of a Ray cluster from inside: same software, store, clock and room on every node.

`cluster.joined` runs this as a process; it prints one finding a line, as JSON. Tasks are pinned to each node
and need no CPU, so that a busy cluster runs them too. They import the project only to see if it is there.
"""

import json
import logging
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray.cloudpickle import register_pickle_by_value
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.runtime.doctor import gpu
from orchestrator.runtime.doctor.cluster import JOIN, NODES_SECONDS, TASKS_SECONDS
from orchestrator.runtime.doctor.findings import GIB, Finding, clock, fail, ok, room, run
from orchestrator.runtime.doctor.machine import differing
from orchestrator.runtime.doctor.places import Probe, probe
from orchestrator.runtime.ray.connect import QUIET
from orchestrator.runtime.words import last_line

LIBRARIES = ("ray", "torch", "mlflow", "boto3")
BUSY = "look at that node's load and at its raylet's log, then run this again"
SAME = (
    "give every node the same image or environment; with ray job submit --working-dir . the project travels"
)
DRIVER = "install torch for its GPU and the driver there, or start that node with --num-gpus=0"
SHARED = (
    "use s3:// or a file system that every node mounts at the same path, and give every node the same AWS_"
)


def join(address: str) -> Iterator[Finding]:
    """Join the cluster and count its nodes and resources."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    nodes = alive()
    total = Counter[str]()
    for node in nodes:
        total.update(node["Resources"])
    yield ok("ray cluster", f"{len(nodes)} nodes with {resources(total)}")


def alive() -> list[dict[str, Any]]:
    """Return the nodes that Ray counts as alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def resources(amounts: Mapping[str, float]) -> str:
    """Return the resources of a node or cluster as text."""
    memory = amounts.get("memory", 0.0) / GIB
    return f"{amounts.get('CPU', 0.0):g} CPU, {amounts.get('GPU', 0.0):g} GPU, {memory:.1f} GiB memory"


def look(store: str, cache: str) -> Iterator[Finding]:
    """Run a small task on every node and judge its results."""
    nodes = by_label(alive())
    gpu_nodes = {label: node for label, node in nodes.items() if node["Resources"].get("GPU")}
    with probe(store) as placed:
        started = time.time()
        calls = {label: _pinned(facts, node, placed, cache) for label, node in nodes.items()}
        register_pickle_by_value(gpu)  # a node may be without the project
        gpu_calls = {label: _pinned(gpu.facts, node) for label, node in gpu_nodes.items()}
        refs = [*calls.values(), *gpu_calls.values()]
        ready, late = ray.wait(refs, num_returns=len(refs), timeout=TASKS_SECONDS)
        answers = {ref: _answer(ref) for ref in ready} | dict.fromkeys(
            late, f"none within {TASKS_SECONDS:g} s"
        )
    found = {label: answers[ref] for label, ref in calls.items()}
    yield _versions({label: facts["versions"] for label, facts in found.items() if isinstance(facts, dict)})
    for label, node in nodes.items():
        faults = list(_faults(f"node {label}", found[label], started))
        if label in gpu_calls:
            faults += _gpu_faults(f"node {label}", node["Resources"]["GPU"], answers[gpu_calls[label]])
        words = f"{resources(node['Resources'])}; room, clock{', store' if placed else ''} in order"
        yield from faults or [ok(f"node {label}", words)]


def by_label(nodes: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return nodes by address; where several have one, by address and the beginning of Ray's id."""
    count = Counter(node["NodeManagerAddress"] for node in nodes)
    return {
        f"{address}{'' if count[address] == 1 else '/' + node['NodeID'][:6]}": node
        for node in nodes
        if (address := node["NodeManagerAddress"])
    }


def facts(placed: Probe | None, cache: str) -> dict[str, Any]:
    """Return a node's clock, versions, room and sight of the store; runs there, maybe without the project."""
    found: dict[str, Any] = {"seconds": time.time(), "versions": {"python": platform.python_version()}}
    for name in LIBRARIES:
        found["versions"][name] = ""
        with suppress(PackageNotFoundError):
            found["versions"][name] = version(name)
    try:
        found["versions"]["project"] = import_module("orchestrator").__version__
        seen = import_module("orchestrator.runtime.doctor.places").seen
        found["store"] = seen(*placed) if placed else ""
    except ImportError as error:
        found["versions"].setdefault("project", "")
        found["store"] = f"not checked: {error}"
    folder = next(one for one in (Path(cache), *Path(cache).parents) if one.is_dir())
    return found | {"folder": str(folder), "free": shutil.disk_usage(folder).free}


def _pinned(function: Callable[..., Any], node: Mapping[str, Any], *arguments: Any) -> Any:
    """Start a function on one node, beside the tasks that run there."""
    pin = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=pin).remote(*arguments)


def _answer(ref: Any) -> Any:
    """Return the result of a task, or the error as text."""
    try:
        return ray.get(ref)
    except Exception as error:  # Ray's own, or of the task
        return f"{type(error).__name__}: {last_line(str(error))}"


def _versions(found: Mapping[str, Mapping[str, str]]) -> Finding:
    if different := differing(found):
        return fail("ray versions", "; ".join(different), SAME)
    same = next(iter(found.values()), {})
    words = (
        ", ".join(f"{name} {number or 'missing'}" for name, number in same.items()) or "no node reported any"
    )
    return (
        ok("ray versions", f"{words} on every node")
        if all(same.values())
        else fail("ray versions", words, SAME)
    )


def _faults(name: str, answer: Any, started: float) -> Iterator[Finding]:
    if isinstance(answer, str):
        yield fail(name, f"a small task: {answer}", BUSY)
        return
    if answer["store"]:
        yield fail(name, f"store: {answer['store']}", SHARED)
    behind, ahead = started - answer["seconds"], answer["seconds"] - time.time()
    for finding in (
        clock(name, ahead if ahead > 0 else -max(0.0, behind), "its clock"),
        room(name, answer["folder"], answer["free"]),
    ):
        if finding.status != "ok":
            yield finding


def _gpu_faults(name: str, declared: float, found: Any) -> list[Finding]:
    """Judge the GPUs that torch can use on a node, and the driver there."""
    if isinstance(found, str):
        return [fail(name, f"declares {declared:g} GPU, torch did not answer: {found}", DRIVER)]
    if fault := gpu.driver_fault(found):
        return [fail(name, *fault)]
    if found["count"] < declared:
        return [fail(name, f"declares {declared:g} GPU, torch sees {found['count']}", DRIVER)]
    return []


def main(address: str, store: str, cache: str) -> None:
    """Print the findings, and end at once: Ray's threads may still be waiting."""
    for finding in run("ray cluster", lambda: join(address), JOIN):
        print(json.dumps(asdict(finding)), flush=True)
    if ray.is_initialized():
        for finding in run("ray nodes", lambda: look(store, cache), BUSY, seconds=NODES_SECONDS):
            print(json.dumps(asdict(finding)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
