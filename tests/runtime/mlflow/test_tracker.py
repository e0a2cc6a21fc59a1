"""One contract for every tracker: JSON lines, MLflow on a file, MLflow behind a server."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from orchestrator.runtime.mlflow.check import check_tracking
from orchestrator.runtime.mlflow.database import PROXIED
from orchestrator.runtime.mlflow.shipping import DEAD_MS
from orchestrator.runtime.mlflow.tracker import CLOSE_SECONDS, MlflowTracker
from orchestrator.sweep.records import TrialRecord
from tests.runtime.mlflow.trackers import Bench, JsonBench, MlflowBench, expected, tell, wait_for
from tests.runtime.samples import sample_report, sample_sweep, sample_trials

OPEN: dict[str, Callable[[Path, str, Path, Path], Bench]] = {
    "json": lambda root, *_: JsonBench(root),
    "sqlite": lambda root, _uri, _folder, empty: MlflowBench(
        f"sqlite:///{shutil.copy(empty, root / 'mlflow.db')}",
        root / "mlflow.db",
        root / "mlartifacts",
    ),
    "server": lambda _root, uri, folder, _empty: MlflowBench(uri, folder / "mlflow.db", folder / "artifacts"),
}
CLOSED = "127.0.0.1:9"  # the discard port: nobody listens
both = pytest.mark.parametrize("bench", ["sqlite", "server"], indirect=True)
pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module", params=OPEN)
def bench(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_server: str,
    mlflow_folder: Path,
    mlflow_database: Path,
) -> Bench:
    """Return a tracker's store that holds the sweep `mixed`: two finished, one failed, one pruned trial."""
    root = tmp_path_factory.mktemp(request.param)
    opened = OPEN[request.param](root, mlflow_server, mlflow_folder, mlflow_database)
    tell(opened.tracker(), "mixed", mixed())
    return opened


def mixed() -> list[TrialRecord]:
    """Return four trials that ended in three ways."""
    first, second, third, fourth = sample_trials(4)
    return [first, second, failed(third), replace(fourth, status="pruned", images={})]


def failed(trial: TrialRecord) -> TrialRecord:
    """Return the trial as it looks after its inversion broke."""
    return replace(
        trial,
        status="failed",
        metrics={"target/accuracy": 0.97},
        curves=trial.curves[1:],
        images={},
        failed_stage="inversion",
        error="ValueError: no image left",
    )


def test_every_trial_is_kept_whole(bench: Bench) -> None:
    assert bench.kept("mixed") == {trial.key: expected(trial) for trial in mixed()}


def test_the_report_is_kept(bench: Bench) -> None:
    report = sample_report(mixed())
    assert bench.report("mixed") == report.files
    assert bench.note("mixed") == report.note


def test_telling_everything_again_changes_nothing(bench: Bench) -> None:
    before = bench.everything("mixed")
    tell(bench.tracker(), "mixed", mixed())
    after = bench.everything("mixed")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_a_failed_trial_that_finished_later_is_updated(bench: Bench) -> None:
    first, second = sample_trials(2)
    tell(bench.tracker(), "retried", [first, failed(second)])
    before = ids(bench)
    tell(bench.tracker(), "retried", [first, second])
    assert bench.kept("retried") == {trial.key: expected(trial) for trial in (first, second)}
    assert ids(bench) == before


def ids(bench: Bench) -> dict[str, str]:
    """Return trial key -> run id where there are runs."""
    runs = [] if isinstance(bench, JsonBench) else bench.runs("retried", "trial")
    return {run.data.tags["inversion.trial"]: run.info.run_id for run in runs}


def test_a_trial_with_other_numbers_replaces_what_was_told(bench: Bench) -> None:
    (trial,) = sample_trials(1)
    tell(bench.tracker(), "corrected", [trial])
    other = replace(trial, metrics={"inversion/mse_test": 0.5})
    tell(bench.tracker(), "corrected", [other])
    assert bench.kept("corrected") == {trial.key: expected(other)}


@both
def test_the_parent_says_how_the_sweep_ended(bench: MlflowBench) -> None:
    (parent,) = bench.runs("mixed", "sweep")
    assert parent.info.status == "FAILED"
    assert parent.data.metrics["sweep/trials_failed"] == 1
    children = bench.runs("mixed", "trial")
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED", "KILLED"]
    assert bench.client.get_experiment(parent.info.experiment_id).name == "mixed"

    lines = tell(bench.tracker(), "clean", sample_trials(1))
    (parent,) = bench.runs("clean", "sweep")
    assert parent.info.status == "FINISHED"
    assert {line.split()[0] for line in lines[1:]} == {"answer", "trials", "table", "pictures", "report"}


@both
def test_ghost_runs_of_a_lost_answer_are_deleted(bench: MlflowBench) -> None:
    trials = sample_trials(2)
    sweep, client = sample_sweep("ghosts"), bench.client
    experiment = client.create_experiment("ghosts", artifact_location=f"{PROXIED}ghosts")
    tags = {"inversion.sweep": sweep.key, "inversion.kind": "sweep"}
    parents = [client.create_run(experiment, start_time=at, tags=tags).info.run_id for at in (2000, 1000)]
    child = tags | {"inversion.kind": "trial", "inversion.trial": trials[0].key}
    for parent in parents:
        client.create_run(experiment, start_time=3000, tags=child | {"mlflow.parentRunId": parent})

    tell(bench.tracker(), "ghosts", trials)
    (kept,) = bench.runs("ghosts", "sweep")
    assert kept.info.run_id == parents[1]  # the oldest
    assert {run.data.tags["mlflow.parentRunId"] for run in bench.runs("ghosts", "trial")} == {parents[1]}
    assert bench.kept("ghosts") == {trial.key: expected(trial) for trial in trials}


@both
def test_an_interrupted_sweep_is_killed_and_goes_on(bench: MlflowBench) -> None:
    trials = sample_trials(2)
    tracker = bench.tracker()
    tell(bench.tracker(), "stopped", trials[:1])
    tracker.open(sample_sweep("stopped"))
    tracker.ended(trials[0])
    wait_for(lambda: bench.runs("stopped", "sweep")[0].info.status == "RUNNING")
    tracker.interrupted()
    assert bench.runs("stopped", "sweep")[0].info.status == "KILLED"
    tell(bench.tracker(), "stopped", trials)
    assert bench.runs("stopped", "sweep")[0].info.status == "FINISHED"
    assert len(bench.kept("stopped")) == 2


@both
def test_the_next_start_closes_sweeps_whose_process_died(bench: MlflowBench) -> None:
    for study in ("dead", "alive"):
        tell(bench.tracker(), study, sample_trials(1))
        tracker = bench.tracker()
        tracker.open(sample_sweep(study))
        wait_for(lambda study=study: bench.runs(study, "sweep")[0].info.status == "RUNNING")  # type: ignore[misc]
        assert isinstance(tracker, MlflowTracker)
        tracker._stopped = True  # no word to MLflow, as after a kill
    (dead,) = bench.runs("dead", "sweep")
    long_ago = int(time.time() * 1000) - DEAD_MS - 60_000
    mlflow.MlflowClient(bench.uri).set_tag(dead.info.run_id, "inversion.alive_ms", str(long_ago))
    tell(bench.tracker(), "next", sample_trials(1))
    (dead,), (alive,) = bench.runs("dead", "sweep"), bench.runs("alive", "sweep")
    assert (dead.info.status, dead.info.end_time) == ("KILLED", long_ago)
    assert alive.info.status == "RUNNING"
    tell(bench.tracker(), "dead", sample_trials(1))
    assert [run.info.status for run in bench.runs("dead", "sweep")] == ["FINISHED"]


def test_an_interruption_takes_less_than_a_second_without_a_server() -> None:
    tracker = MlflowTracker(f"http://{CLOSED}")
    tracker.open(sample_sweep("lost"))
    began = time.monotonic()
    tracker.interrupted()
    assert CLOSE_SECONDS < 1.0
    assert time.monotonic() - began < 10, "it waited longer than it gives itself"  # a busy machine may stall


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        (f"http://{CLOSED}", r"gets no answer from MLflow \(.*refused.*pass --ship-later"),
        ("ftp://host/x", r"must start with http://, https:// or sqlite:///; use sqlite:///runs/mlflow.db"),
        ("sqlite://relative.db", "must start with http://, https:// or sqlite:///"),
        ("sqlite:////tmp", "is a folder; name a file in it"),
        ("sqlite:////proc/version/mlflow.db", "is not writable; name a file in a folder that is"),
    ],
)
def test_a_uri_that_cannot_track_is_refused(uri: str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        check_tracking(uri)
    assert "\n" not in str(caught.value)


@pytest.mark.mlflow
def test_a_host_name_that_the_server_does_not_know_is_refused(mlflow_server: str, unknown_host: str) -> None:
    match = rf'refuses this host name \(HTTP 403\); start it with --allowed-hosts "{unknown_host},'
    with pytest.raises(ValueError, match=match):
        check_tracking(f"http://{unknown_host}")
    check_tracking(mlflow_server)


@pytest.mark.parametrize("scheme", ["http", "ftp"])
@pytest.mark.parametrize("password", ["hidden", "hid@den", "hid:den"])
def test_credentials_are_never_shown(scheme: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"tracking_uri=\w+://\*\*\*@127.0.0.1:9") as caught:
        check_tracking(f"{scheme}://someone:{password}@{CLOSED}")
    assert not any(part in str(caught.value) for part in ("someone", "hid", "den"))


def test_an_outage_is_told_without_credentials(caplog: pytest.LogCaptureFixture) -> None:
    tracker = MlflowTracker(f"http://someone:hid@den@{CLOSED}", patience_seconds=0.2)
    (line,) = tell(tracker, "secret", [])
    assert line.startswith("MLflow at http://***@127.0.0.1:9 did not take 1 of 1 records")
    assert "event=tracking_retried seconds=" in caplog.text
    assert not any(part in caplog.text + line for part in ("someone", "hid", "den"))
