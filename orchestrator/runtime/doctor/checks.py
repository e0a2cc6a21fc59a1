"""List of checks: every check of the doctor, in the order of its output."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from orchestrator.runtime.doctor import cluster, machine, tracking
from orchestrator.runtime.doctor.findings import Finding, run, warn
from orchestrator.runtime.doctor.places import place
from orchestrator.runtime.locations import Locations
from orchestrator.runtime.open_store import NODE_CACHE


@dataclass(frozen=True)
class Cluster:
    """Addresses of a Ray cluster; None where the user gave none."""

    ray: str | None = None  # of the GCS, or `auto`
    job_server: str | None = None


def checks(locations: Locations, ray_cluster: Cluster) -> Iterator[Finding]:
    """Yield the findings of all checks; none of them stops another. `locations` names MLflow's URI."""
    store, data, mlflow = locations.store, locations.data, locations.tracking
    assert mlflow is not None
    yield from run("python", machine.installed, machine.INSTALL)
    yield from run("torch", machine.accelerators, machine.INSTALL)
    reach = "make the store reachable from here (network, mounts, AWS_ENDPOINT_URL)"
    yield from run("store", lambda: place("--store", store, writes=True), reach)
    if data is not None:
        yield from run("data", lambda: place("--data", data, writes=False), reach)
    yield from run("cache", machine.cache_room, "see what is mounted there")
    yield from run("mlflow", lambda: tracking.tracking(mlflow), tracking.START)
    yield from _ray(ray_cluster, store)


def _ray(given: Cluster, store: str) -> Iterator[Finding]:
    if given.job_server is None and given.ray is None:
        name = "export RAY_API_SERVER_ADDRESS=http://HEAD:8265, or give --ray-address, if there is a cluster"
        yield warn("ray", "no cluster named; sweeps start Ray on this machine", name)
    if (server := given.job_server) is not None:
        yield from run("ray jobs", lambda: cluster.job_server(server), cluster.REACH)
        if given.ray is None:
            yield Finding(
                "ok", "ray nodes", "seen from inside: ray job submit --working-dir . -- python -m jobs.doctor"
            )
    if (address := given.ray) is not None:
        seconds = cluster.JOINED_SECONDS + 5.0
        join = partial(cluster.joined, address, store, str(NODE_CACHE))
        yield from run("ray cluster", join, cluster.JOIN, seconds=seconds)
