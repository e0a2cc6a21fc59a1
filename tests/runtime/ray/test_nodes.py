"""What the nodes of a real cluster have in common, asked on each of them."""

import os
import subprocess
import sys

import pytest

from orchestrator.runtime.matrix_units import units_here
from orchestrator.sweep.precision import NO_NODE, Units, joined
from tests.servers import Cluster
from tests.sweeps import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ASK = """
from orchestrator.runtime.ray.nodes import units_of_nodes
print(units_of_nodes("cpu"))
print(units_of_nodes("cuda"))
"""


@pytest.mark.usefixtures("second_node")
def test_every_node_that_runs_stages_is_asked(ray_cluster: Cluster) -> None:
    env = {**os.environ, **ray_cluster.env}
    words = [sys.executable, "-c", ASK]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout.splitlines() == [
        str(joined([units_here("cpu")] * 2)),
        str(Units(False, NO_NODE)),
    ], done.stderr
