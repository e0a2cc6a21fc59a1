"""Checks of a Ray cluster from outside, without a cluster; with one: tests/jobs/test_doctor."""

import json
from pathlib import Path

import pytest

from orchestrator.runtime.doctor import cluster
from orchestrator.runtime.doctor.findings import fail
from tests import servers
from tests.runtime.doctor.faults import answering, only_fault


def test_a_job_server_that_asks_for_no_token_is_told() -> None:
    with answering({"/api/version": (200, json.dumps({"ray_version": "2.9.3"}))}) as address:
        opened, version = cluster.job_server(address)
    assert (opened.status, opened.fix) == ("warn", cluster.CLOSE)
    assert opened.found.startswith("the cluster takes jobs without authentication")
    assert (version.status, version.found) == ("FAIL", "2.9.3 there, 2.60.0 here")
    assert version.fix == "install ray==2.9.3 here, or 2.60.0 there"
    opened = cluster._open_to_all("head.example")
    assert (opened.status, opened.fix) == ("FAIL", cluster.CLOSE)


def test_nobody_at_the_job_server_is_told() -> None:
    fault = only_fault(cluster.job_server(f"http://127.0.0.1:{servers.free_port()}"))
    assert (fault.name, fault.fix) == ("ray jobs", cluster.REACH)


def test_a_server_of_another_kind_is_no_job_server() -> None:
    with answering({}) as address:
        fault = only_fault(cluster.job_server(address))
    assert fault.found == f"{address} answers HTTP 404, not as Ray's job server does"
    assert fault.fix == cluster.REACH


def test_nobody_at_the_address_of_the_cluster_is_told(tmp_path: Path) -> None:
    address = f"127.0.0.1:{servers.free_port()}"
    fault = only_fault(cluster.joined(address, str(tmp_path), str(tmp_path)))
    assert fault == fail("ray cluster", f"no answer from {address} (Connection refused)", cluster.JOIN)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_an_address_that_a_sweep_cannot_join_is_told(address: str, tmp_path: Path) -> None:
    fault = only_fault(cluster.joined(address, str(tmp_path), str(tmp_path)))
    assert fault == fail("ray cluster", f"RAY_ADDRESS={address} is no address to join", cluster.JOIN)
