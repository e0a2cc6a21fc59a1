"""Spans modules: a sweep on a real Ray cluster is resized, paused, resumed and killed while it is paused."""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from jobs.runs import app
from orchestrator.runtime.open_store import open_blobs
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.listing import sweeps
from orchestrator.store.requests import State
from tests.drills.rig import Work, work_of, worker_logs, written
from tests.servers import Cluster, stopped
from tests.sweeps import ROOT, command, events, run_locally, table, write_study

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

POINTS = "sweep={auxiliary.kind: [same-heldout, distinct], target.budget: [block2]}"  # four trials
EPOCHS = 900  # some fifteen seconds for each attack: one still trains when the last request is made
GROUP = re.compile(r"event=stage_taken stage=inversion key=\w+ group=(\S+)")


def until(condition: Callable[[], bool], what: str, process: subprocess.Popen[str]) -> None:
    """Return once the condition holds; fail if the sweep ends before."""
    end = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, f"{what}: the sweep ended; {process.communicate()[0]}"
        assert time.monotonic() < end, f"{what}: not within 600 s"
        time.sleep(0.2)


def asked(store: Artifacts, *words: str) -> str:
    """Return what `jobs.runs` prints; it must succeed."""
    done = CliRunner().invoke(app, [*words, "--store", str(store.blobs.uri), "--wait", "200"])
    assert done.exit_code == 0, done.output
    return done.stdout


def state(store: Artifacts) -> State:
    (one,) = sweeps(store.blobs)
    assert one.state is not None, one.status
    return one.state


def training_workers(cluster: Cluster) -> list[int]:
    """Return the processes of this cluster's worker groups."""
    scratch = cluster.scratch.name
    lines = [(p.pid, " ".join(p.info["cmdline"] or [])) for p in psutil.process_iter(["cmdline"])]
    raylets = {pid for pid, line in lines if "raylet" in line and scratch in line}
    workers = [pid for pid, line in lines if "ray::RayTrainWorker" in line]
    return [pid for pid in workers if raylets & {one.pid for one in psutil.Process(pid).parents()}]


@pytest.mark.usefixtures("second_node")
def test_a_sweep_that_is_resized_paused_and_killed_ends_as_an_undisturbed_one(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    study = write_study(tmp_path, "steered", attack_epochs=EPOCHS)
    settings = ["--set", POINTS, "--set", "resources={groups: 1, checkpoint_seconds: 600}", "--ship-later"]
    words, env = command(study, tmp_path / "out", *settings), {**os.environ, **ray_cluster.env}
    store = Artifacts(open_blobs(str(tmp_path / "out" / "store")))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    before = written(ray_cluster)

    def logs() -> list[str]:
        return worker_logs(ray_cluster, before)

    def work() -> Work:
        return work_of(logs())

    def epochs() -> int:  # of the attacks
        return sum(count for (_, epoch), count in work().epochs.items() if epoch > 2)

    def attackers() -> set[str]:  # groups
        return {group for log in logs() for group in GROUP.findall(log)}

    sweep = start()
    until(lambda: len(attackers()) == 1, "a group attacks", sweep)
    with stopped(training_workers(ray_cluster)):
        assert "1 group, 2 asked" in asked(store, "resize", "steered", "2")
        until(lambda: len(attackers()) == 2, "a second group attacks too", sweep)
        assert state(store).groups == 2
    assert "2 groups, 1 asked" in asked(store, "resize", "steered", "1")
    until(lambda: state(store).groups == 1, "the group ends after its stage", sweep)

    reached = epochs()
    until(lambda: epochs() > reached + 5, "an attack trains", sweep)
    assert "paused" in asked(store, "pause", "steered")
    assert training_workers(ray_cluster) == []
    assert len(store.blobs.names("checkpoints/")) == 1
    stored, reached = store.keys(), epochs()
    time.sleep(5)
    assert (store.keys(), epochs()) == (stored, reached)

    assert "running" in asked(store, "resume", "steered")
    until(lambda: epochs() > reached + 5, "the attack goes on", sweep)
    asked(store, "pause", "steered")
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    assert sweep.stdout is not None
    sweep.stdout.close()
    (killed,) = sweeps(store.blobs)
    assert killed.status == "killed"
    refused = CliRunner().invoke(app, ["resume", "steered", "--store", str(store.blobs.uri)])
    assert refused.exit_code == 2
    assert refused.stderr.endswith(
        "was killed; run its command again: what is stored is not computed again.\n"
    )
    artifacts = {key: store.find(key) for key in store.keys()}  # noqa: SIM118

    again = start()
    printed, _ = again.communicate(timeout=900)
    assert again.returncode == 0, printed
    assert table(tmp_path / "out", study) == run_locally(study, tmp_path / "local", *settings[:4])
    assert {key: store.find(key) for key in artifacts} == artifacts
    keys = set(store.keys())
    repeated = {one: count for one, count in work().epochs.items() if count > 1 and one[0] in keys}
    assert not repeated, "epochs were trained twice"
    attacks = {key for key in keys if (found := store.find(key)) and found.stage == "inversion"}
    trained = Counter(key for key, _ in work().epochs if key in attacks)
    assert trained == dict.fromkeys(attacks, EPOCHS)
    taken = {key for key, count in work().taken.items() if count > 1 and key in keys}
    assert taken <= attacks, "a stage without a checkpoint was built twice"
    asks = [(one["subject"], one["value"]) for one in events(store, "asked")]
    assert asks == [("groups", 2), ("groups", 1), ("pause", 1), ("pause", 0), ("pause", 1)]
