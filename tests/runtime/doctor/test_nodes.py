"""Checks of a cluster's nodes: judgement of what their tasks return."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import __version__
from orchestrator.runtime.doctor import nodes
from orchestrator.runtime.doctor.findings import GIB, fail, ok
from orchestrator.runtime.doctor.places import probe
from tests.runtime.doctor.faults import only_fault


def answer(**changes: Any) -> dict[str, Any]:
    """Return what a healthy node says."""
    plain = {"seconds": time.time(), "versions": {}, "store": "", "folder": "/cache", "free": 99 * GIB}
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("said", "status", "found", "fix"),
    [
        ({"store": "s3://b/x is another place there"}, "FAIL", "store: s3://b/x is another", nodes.SHARED),
        ({"free": 5 * GIB}, "warn", "/cache has 5.0 GiB free", "free 10 GiB there"),
        ({"seconds": 2e9}, "FAIL", "its clock is ", "set both clocks by NTP"),
        ({"seconds": 1e9}, "FAIL", "its clock is ", "set both clocks by NTP"),
        ("none within 12 s", "FAIL", "a small task: none within 12 s", nodes.BUSY),
    ],
)
def test_what_is_wrong_with_a_node_is_told(said: Any, status: str, found: str, fix: str) -> None:
    said = answer(**said) if isinstance(said, dict) else said
    fault = only_fault(nodes._faults("node a", said, time.time() - 1))
    assert (fault.status, fault.name) == (status, "node a")
    assert fault.found.startswith(found)
    assert fault.fix.startswith(fix)
    assert list(nodes._faults("node a", answer(), time.time() - 1)) == []


def test_gpus_that_torch_does_not_see_are_told() -> None:
    two = {"cuda": "13.2", "count": 2, "names": ["L4"], "driver": "580.95.05", "driver_cuda": 13}
    assert nodes._gpu_faults("node a", 2.0, two) == []
    assert nodes._gpu_faults("node a", 2.0, two | {"count": 1}) == [
        fail("node a", "declares 2 GPU, torch sees 1", nodes.DRIVER)
    ]
    old = two | {"count": 0, "driver": "535.183.01", "driver_cuda": 12}
    assert nodes._gpu_faults("node a", 2.0, old) == [
        fail(
            "node a",
            "NVIDIA driver 535.183.01 (CUDA 12) is too old for torch's CUDA 13.2",
            "install driver 580 or later there",
        )
    ]
    (fault,) = nodes._gpu_faults("node a", 1.0, "none within 12 s")
    assert fault.found == "declares 1 GPU, torch did not answer: none within 12 s"


def test_versions_that_differ_between_nodes_are_told() -> None:
    same = {"python": "3.11.7", "torch": "2.15.0", "project": "0.1.0"}
    assert nodes._versions({"a": same, "b": same}) == ok(
        "ray versions", "python 3.11.7, torch 2.15.0, project 0.1.0 on every node"
    )
    fault = nodes._versions({"a": same, "b": {**same, "torch": "2.14.1"}, "c": {**same, "project": ""}})
    assert fault == fail(
        "ray versions",
        "torch: 2.15.0 on a and c, 2.14.1 on b; project: 0.1.0 on a and b, missing on c",
        nodes.SAME,
    )
    assert nodes._versions({"a": {**same, "project": ""}}).fix == nodes.SAME


def test_a_node_without_the_project_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with probe(str(tmp_path)) as placed:
        whole = nodes.facts(placed, str(tmp_path / "cache" / "deep"))
        assert (whole["store"], whole["versions"]["project"]) == ("", __version__)
        assert whole["folder"] == str(tmp_path)
        monkeypatch.setitem(sys.modules, "orchestrator", None)
        bare = nodes.facts(placed, str(tmp_path))
    assert bare["versions"]["project"] == ""
    assert bare["store"].startswith("not checked: ")


def test_nodes_at_one_address_have_names_of_their_own() -> None:
    found = [
        {"NodeManagerAddress": address, "NodeID": f"{number}" * 8} for number, address in enumerate("aab")
    ]
    assert list(nodes.by_label(found)) == ["a/000000", "a/111111", "b"]
