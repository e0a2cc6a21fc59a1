"""Nodes of a cluster: what those that stages run on have in common."""

import logging

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.runtime.matrix_units import units_here
from orchestrator.runtime.ray.connect import start_ray
from orchestrator.sweep.precision import Units, joined

logger = logging.getLogger(__name__)

RESOURCE = {"cpu": "CPU", "cuda": "GPU"}
"""Kind of device -> Ray's resource of nodes that run stages on it."""

ANSWER_SECONDS = 120.0


def units_of_nodes(device: str) -> Units:
    """Return what the nodes with a kind of device have in common; the cluster is joined for it.

    Raise `Refused` if it cannot be joined. A node that does not answer counts as one without.
    """
    start_ray()
    probe = ray.remote(units_here)
    answers = []
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get(RESOURCE[device]):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers.append(probe.options(num_cpus=0, scheduling_strategy=there).remote(device))
    return joined(map(_answer, answers))


def _answer(reference: "ray.ObjectRef[Units]") -> Units:
    try:
        return ray.get(reference, timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        logger.warning("event=node_unknown reason=%s", type(error).__name__)
        return Units(False, "no answer")
