"""Spans modules: a study on a service over HTTP, killed in its middle and gone on with by two at once.

The server counts: the budget holds, each image is answered once, the table is that of a run without the kill.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from jobs import stage_weights, sweep
from tests.services.server import Server, description, digits_network, serving
from tests.test_floors import ROOT

KEY = "S3cr3t-of-the-test"
ERRORS, LIMIT, BATCH = 100, 50.0, 4
BUDGET = 215  # 184 requests, two that fail, those in flight at the kill, and what two processes add
AFTER = 80  # requests, before the kill
SETTINGS = ["target.service=ex", "target.model=null", "target.minimum_accuracy=0.5"]


def staged(server: Server, folder: Path, budget: int = BUDGET) -> None:
    """Stage the description of a server."""
    how = {"budget": budget, "requests_per_second": 45, "parallel": 2}
    text = {**description(server.url, **how), "images_per_request": BATCH}
    file = folder / "service.yaml"
    file.write_text(yaml.safe_dump(text), encoding="utf-8")
    done = CliRunner().invoke(
        stage_weights.app, [str(file), str(folder / "data"), "--name", "ex", "--service"]
    )
    assert done.exit_code == 0, done.output


def arguments(folder: Path, out: str, *settings: str) -> list[str]:
    """Return the arguments of the study at its smoke scale on the service, over one store."""
    common = ["given-service", "--scale", "smoke", "--local", "--ship-later", "--out", str(folder / out)]
    places = ["--store", str(folder / "store"), "--data", str(folder / "data")]
    return [*common, *places, *(part for one in (*SETTINGS, *settings) for part in ("--set", one))]


def started(given: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Start the command in a process of its own, its output in a file."""
    with log.open("ab") as file:
        command = [sys.executable, "-m", "jobs.sweep", *given]
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def table(folder: Path, out: str) -> bytes:
    """Return the table of results."""
    (file,) = (folder / out).glob("given-service.smoke.*/results.csv")
    return file.read_bytes()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that fails now and then and takes 50 requests in a second."""
    os.environ["EXAMPLE_KEY"] = KEY
    network = digits_network()
    with serving(Server(network, key=KEY, per_second=LIMIT, error_every=ERRORS)) as one:
        yield one
    del os.environ["EXAMPLE_KEY"]


def test_a_kill_costs_no_answer_and_no_more_than_the_budget(server: Server, tmp_path: Path) -> None:
    staged(server, tmp_path)
    killed = started(arguments(tmp_path, "one"), tmp_path / "one.log")
    while server.counts.requests < AFTER:
        assert killed.poll() is None, (tmp_path / "one.log").read_text()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    at_kill = server.counts.requests
    both = [started(arguments(tmp_path, out), tmp_path / f"{out}.log") for out in ("one", "two")]
    for out, process in zip(("one", "two"), both, strict=True):
        assert process.wait(timeout=900) == 0, (tmp_path / f"{out}.log").read_text()
    assert at_kill < server.counts.requests <= BUDGET
    images = server.counts.answered
    again = sum(images.values()) - len(images)
    assert again <= 2 * BATCH  # in flight at the kill

    alone = tmp_path / "alone"
    alone.mkdir()
    before = server.counts.requests
    staged(server, alone)
    done = CliRunner().invoke(sweep.app, arguments(alone, "one"))
    assert done.exit_code == 0, done.output
    assert before < server.counts.requests
    assert table(tmp_path, "one") == table(tmp_path, "two") == table(alone, "one")
    assert pd.read_csv(next(alone.glob("one/*/results.csv")))["target/accuracy"].min() > 0.8

    # Another setting of the adversary, and the same study again, ask for nothing.
    before = server.counts.requests
    done = CliRunner().invoke(sweep.app, [*arguments(alone, "one", "attack.offset=20"), "--plan"])
    assert "service ex: 0 requests for 0 images without an answer, at most 4 in each; " in done.output
    done = CliRunner().invoke(sweep.app, arguments(alone, "other", "attack.offset=20"))
    assert done.exit_code == 0, done.output
    assert server.counts.requests == before

    # No file that was left holds the key.
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in done.output


def test_too_small_a_budget_is_refused_before_anything_starts(server: Server, tmp_path: Path) -> None:
    staged(server, tmp_path, budget=100)
    before = server.counts.requests
    done = CliRunner().invoke(sweep.app, [*arguments(tmp_path, "one"), "--plan"])
    assert done.exit_code == 0, done.output
    assert "service ex: 184 requests for 735 images without an answer, at most 4 in each; 100" in done.output
    done = CliRunner().invoke(sweep.app, arguments(tmp_path, "one"))
    assert done.exit_code == 2
    assert done.output.startswith(
        "error: target.service=ex needs 184 requests for 735 images without an answer, and 100 of "
        "asking.budget=100 are left; raise asking.budget in the description and stage it again, or "
    )
    assert server.counts.requests == before
    assert not (tmp_path / "one").exists()
