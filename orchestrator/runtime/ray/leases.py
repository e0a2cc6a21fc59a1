"""Leases on a Ray cluster: one detached actor for each store, shared by all sweeps."""

import hashlib
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.store.leases import LocalLeases

NAMESPACE = "inversion-orchestrator"


class RayLeases:
    """Implements `Leases` through the cluster's actor for this store."""

    def __init__(self, store_uri: str) -> None:
        # Not in the placement group of the first trial: that one goes when the trial ends.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        name = f"leases-{hashlib.sha256(store_uri.encode()).hexdigest()[:16]}"
        self._actor: Any = (
            ray.remote(LocalLeases)
            .options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,  # with nothing held: results never depend on a lease
                max_task_retries=-1,
                scheduling_strategy=here,
            )
            .remote()
        )

    def acquire(self, key: str, owner: str, seconds: float) -> bool:
        """Take or renew the lease for `seconds` from now; False while another owner holds it."""
        return ray.get(self._actor.acquire.remote(key, owner, seconds))

    def release(self, key: str, owner: str) -> None:
        """Give the lease back if `owner` holds it."""
        ray.get(self._actor.release.remote(key, owner))
