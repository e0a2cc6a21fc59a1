"""The command as people call it, in this process: first runs, second runs, plans and failures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from jobs.sweep import app
from orchestrator.runtime.mlflow.tracker import PATIENCE_SECONDS
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.json_tracker import read_trials
from tests import tiny

pytestmark = pytest.mark.mlflow

AXES = {"auxiliary.kind": ["same-heldout", "distinct"], "release.truncation": [1, 2, 5], "seed": [0, 1]}
REPORT = {"rows": ["auxiliary", "m"], "where": {"seed": 0}, "columns": 3}
SCALES = {"smoke": {"sweep.seed": [0], "sweep.release.truncation": [1, 5]}}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the command."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def study(folder: Path, **sections: Any) -> Path:
    """Write the tiny study with a picture and a scale."""
    return tiny.write(folder / "tiny.yaml", AXES, report=REPORT, scales=SCALES, **sections)


def sweep(path: Path, out: Path, *flags: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(path), "--local", "--out", str(out), *flags])


def runs(out: Path) -> tuple[list[Any], list[Any]]:
    """Return the parent runs and the child runs of MLflow."""
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = list(client.search_runs(experiments))
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return parents, [run for run in found if "mlflow.parentRunId" in run.data.tags]


def test_plan_prints_points_drops_stages_and_cost_and_stops(tmp_path: Path) -> None:
    result = sweep(study(tmp_path), tmp_path / "runs", "--plan")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "study tiny: 8 points"
    assert lines[1] == "  same-heldout-m001-s0"
    assert (
        "dropped 4 combinations: release.truncation=5 must lie in 1..target.classes=3; use null to release "
        "every score." in lines
    )
    rows = {line.split()[1]: line.replace("|", " ").split() for line in lines if line.startswith("│")}
    table = {name: [int(part) for part in row if part.isdigit()] for name, row in rows.items()}
    assert table == {
        "pretrain": [1, 0, 1],
        "target": [2, 0, 2],
        "judge": [1, 0, 1],
        "predictions": [4, 0, 4],
        "victims": [2, 0, 2],
        "inversion": [8, 0, 8],
        "reconstructions": [8, 0, 8],
        "yardsticks": [8, 0, 8],
        "retrieval": [8, 0, 8],
        "evaluation": [8, 0, 8],
    }
    assert lines[-1].startswith("forecast: unknown, the store has nothing like 1 pretrain, 2 target, 1 judge")
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    assert Artifacts(DirectoryBlobs(tmp_path / "runs" / "store")).keys() == []


def test_a_sweep_ends_in_mlflow_and_again_it_trains_nothing(tmp_path: Path) -> None:
    path, out = study(tmp_path), tmp_path / "runs"
    first = sweep(path, out, "--scale", "smoke")
    assert first.exit_code == 0, (first.output, first.stderr, first.exception)
    assert "trials: 2 finished, 0 failed, 0 pruned" in first.stdout
    assert "stages run/reused: 16/0" in first.stdout
    assert "dropped 2 combinations: release.truncation=5" in first.stdout
    assert "\x1b" not in first.stdout
    results = (out / "tiny.smoke" / "results.csv").read_bytes()
    table = pd.read_csv(out / "tiny.smoke" / "results.csv")
    assert list(table["trial"]) == ["same-heldout-m001-s0", "distinct-m001-s0"]
    assert list(table["status"]) == ["finished", "finished"]
    names = {file.name for file in (out / "tiny.smoke").iterdir()}
    assert names - {"warnings.csv"} == {  # one epoch leaves a target at chance on some processors
        "results.csv",
        "results.parquet",
        "summary.csv",
        "summary.tex",
        "bounds.csv",
        "bounds.tex",
        "variance.csv",
        "variance.tex",
        "study.yaml",
        "note.md",
        "figure.png",
        "importance.csv",
        "report.html",
    }
    (parent,), children = runs(out)
    assert parent.info.status == "FINISHED"
    assert [child.info.status for child in children] == ["FINISHED"] * 2
    assert {child.info.run_name for child in children} == set(table["trial"])
    told = {child.info.run_name: child.data.metrics["inversion/mse_test"] for child in children}
    shown = dict(zip(table["trial"], table["inversion/mse_test"], strict=True))
    assert told == pytest.approx(shown, rel=1e-5)
    stored = Artifacts(DirectoryBlobs(out / "store")).keys()

    again = sweep(path, out, "--scale", "smoke")
    assert again.exit_code == 0, (again.output, again.stderr)
    assert "stages run/reused: 0/16" in again.stdout
    assert (out / "tiny.smoke" / "results.csv").read_bytes() == results
    assert not any(line.startswith("forecast:") for line in again.stdout.splitlines())
    assert Artifacts(DirectoryBlobs(out / "store")).keys() == stored
    parents, children_again = runs(out)
    assert [run.info.run_id for run in parents] == [parent.info.run_id]
    assert {run.info.run_id for run in children_again} == {run.info.run_id for run in children}
    assert {run.info.status for run in [*parents, *children_again]} == {"FINISHED"}

    planned = sweep(path, out, "--scale", "smoke", "--plan").stdout.splitlines()
    assert planned[-1] == "forecast: nothing is left to run"


def test_without_mlflow_now_and_all_of_it_later(tmp_path: Path) -> None:
    path, out = study(tmp_path), tmp_path / "runs"
    first = sweep(path, out, "--scale", "smoke", "--ship-later")
    assert first.exit_code == 0, (first.output, first.stderr)
    assert not (out / "mlflow.db").exists()
    (folder,) = (out / "unshipped").iterdir()
    trials = read_trials(folder)
    assert {trial["status"] for trial in trials.values()} == {"finished"}
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["num_failed"] == 0
    results = (out / "tiny.smoke" / "results.csv").read_bytes()
    later = sweep(path, out, "--scale", "smoke")
    assert later.exit_code == 0, (later.output, later.stderr)
    assert "stages run/reused: 0/16" in later.stdout
    assert (out / "tiny.smoke" / "results.csv").read_bytes() == results
    (parent,), children = runs(out)
    assert parent.info.status == "FINISHED"
    assert {child.info.run_name for child in children} == {trial["name"] for trial in trials.values()}
    for child in children:
        (trial,) = (trial for trial in trials.values() if trial["name"] == child.info.run_name)
        assert child.data.metrics["inversion/mse_test"] == trial["metrics"]["inversion/mse_test"]


def test_a_failed_trial_is_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    axes, changes = {"attack.recipe.weight_decay": [10.0, 0.0]}, {"attack.recipe": tiny.DIVERGING}
    path = tiny.write(tmp_path / "tiny.yaml", axes, changes)
    result = sweep(path, tmp_path / "runs", "--ship-later")
    assert result.exit_code == 1, (result.output, result.exception)
    error = "the training loss is nan in epoch 1 of 1, batch "
    assert f"trial weight_decay10.0 failed in stage inversion: {error}" in result.stdout
    assert "trials: 1 finished, 1 failed, 0 pruned" in result.stdout
    table = pd.read_csv(tmp_path / "runs" / "tiny" / "results.csv")
    assert list(table["status"]) == ["failed", "finished"]
    assert table["error"][0].startswith(error)
    assert table["error"].isna().tolist() == [False, True]
    assert list(table["failed_stage"].fillna("")) == ["inversion", ""]


def test_a_target_at_chance_is_a_warning_and_an_attack_that_a_look_up_beats_is_marked(tmp_path: Path) -> None:
    useless = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-9}
    changes = {"target.recipe": useless, "target.pretrain": None, "target.budget": "full"}
    path = tiny.write(tmp_path / "chance.yaml", {"release.truncation": [1, 2]}, changes)
    result = sweep(path, tmp_path / "runs", "--ship-later")
    assert result.exit_code == 0, (result.output, result.exception)
    (warning,) = (line for line in result.stdout.splitlines() if line.startswith("warning: the target"))
    assert warning.endswith(" in m001, m002")
    report = tmp_path / "runs" / "tiny"
    note = (report / "note.md").read_text()
    assert f"- **{warning.replace(':', '**:', 1)}" in note
    assert "1. **No setting is shown to leak** more than guesses without training." in note
    assert "Best" not in note
    told = pd.read_csv(report / "warnings.csv")
    assert {("target", "m001"), ("target", "m002")} <= set(zip(told["model"], told["trial"], strict=True))
    table = pd.read_csv(report / "summary.csv")
    assert {"target/accuracy", "judge/accuracy", "inversion/skill_test"} <= set(table.columns)
    assert table["no better than"].str.contains("test").all()  # one epoch of G is worse than the mean image
    assert "no better than" in (report / "summary.tex").read_text()
    assert "no better than" in " ".join(result.stdout.split())
    (tracked,) = (tmp_path / "runs" / "unshipped").iterdir()
    assert json.loads((tracked / "report.json").read_text())["note"] == note


def test_a_picture_that_no_trial_fits_costs_no_results(tmp_path: Path) -> None:
    axes, report = {"release.truncation": [1], "seed": [0]}, {"rows": ["m"], "where": {"seed": 0}}
    path = tiny.write(tmp_path / "tiny.yaml", axes, report=report)
    result = sweep(path, tmp_path / "runs", "--ship-later", "--set", "sweep.seed=[1]")
    assert result.exit_code == 0, (result.output, result.exception)
    (results,) = (tmp_path / "runs").glob("tiny*/results.csv")
    assert not results.with_name("figure.png").exists()


def test_optuna_in_this_process_resumes_with_the_same_table(tmp_path: Path) -> None:
    axes = {"attack.offset": {"low": 1.0, "high": 50.0}, "release.truncation": [1, 2, 5]}
    search = {
        "algorithm": "optuna",
        "samples": 4,
        "batch": 2,
        "objectives": {"inversion/mse_test": "minimize", "target/accuracy": "maximize"},
    }
    path = tiny.write(tmp_path / "tiny.yaml", axes, search=search)
    first = sweep(path, tmp_path / "runs", "--ship-later")
    assert first.exit_code == 0, (first.output, first.exception)
    assert "trials: 4 finished" in first.stdout
    folder = tmp_path / "runs" / "tiny"
    results = {name: (folder / name).read_bytes() for name in ("results.csv", "pareto.csv")}
    again = sweep(path, tmp_path / "runs", "--ship-later")
    assert again.exit_code == 0
    assert "stages run/reused: 0/" in again.stdout
    for name, content in results.items():
        assert (folder / name).read_bytes() == content


def test_the_help_is_text() -> None:
    command = [sys.executable, "-m", "jobs.sweep", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for flag in ("--set", "--scale", "--plan", "--local", "--store", "--data", "--ship-later"):
        assert flag in done.stdout


def test_no_run_is_left_active() -> None:
    assert mlflow.active_run() is None


def import_seconds() -> float:
    """Return the wall seconds of `import torch`, 2.2 s on an idle machine: a busy one needs more for all."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - began


def test_an_interrupted_sweep_keeps_its_training_and_goes_on(tmp_path: Path, mlflow_database: Path) -> None:
    long = {"attack.recipe": {**tiny.RECIPE, "epochs": 1500}}
    seldom = {"checkpoint_seconds": 600}
    path = tiny.write(tmp_path / "long.yaml", {"attack.seed": [0]}, long, resources=seldom)
    whole, out = sweep(path, tmp_path / "whole", "--ship-later"), tmp_path / "out"
    assert whole.exit_code == 0, whole.output
    out.mkdir()
    shutil.copy(mlflow_database, out / "mlflow.db")
    store = Artifacts(DirectoryBlobs(out / "store"))
    words = [sys.executable, "-m", "jobs.sweep", str(path), "--local", "--out", str(out)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ})
    while not any(store.find(key).stage == "predictions" for key in store.keys()):  # type: ignore[union-attr]  # noqa: SIM118
        assert process.poll() is None
        time.sleep(0.05)
    while not runs(out)[0]:
        assert process.poll() is None
        time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    taken = time.monotonic() - began
    assert taken < 3.0 or taken < 1.4 * import_seconds()  # 3 s is when `ray job stop` kills
    assert "interrupted; the same command goes on from here" in err
    assert len(store.blobs.names("checkpoints/")) == 1, "no state was saved"
    parents, children = runs(out)
    assert [run.info.status for run in parents] == ["KILLED"]
    assert not children

    again = sweep(path, out)
    assert again.exit_code == 0, again.output
    assert not store.blobs.names("checkpoints/")
    tables = [(folder / "tiny" / "results.csv").read_bytes() for folder in (out, tmp_path / "whole")]
    assert tables[0] == tables[1]
    assert [run.info.status for run in runs(out)[0]] == ["FINISHED"]


def test_a_report_of_damaged_files_builds_them_again_in_the_same_start(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "tiny.yaml", {"release.truncation": [1, 2]}, report={"rows": ["m"]})
    out = tmp_path / "out"
    assert sweep(path, out, "--ship-later").exit_code == 0
    before = {file.name: file.read_bytes() for file in (out / "tiny").iterdir()}
    store = Artifacts(DirectoryBlobs(out / "store"))
    found = [one for key in store.keys() if (one := store.find(key)) is not None]  # noqa: SIM118
    files = [file for one in found for file in one.files.values() if "evaluation" in one.stage]
    damaged = [file for file in files if file.name.endswith(("_train.npy", "_test.npy"))]
    assert len(damaged) >= 4
    for file in damaged:
        data = store.blobs.get(file.object)
        assert data is not None
        store.blobs.put(file.object, data[:-1] + bytes([data[-1] ^ 1]))
    again = sweep(path, out, "--ship-later")
    assert again.exit_code == 0, (again.output, again.exception)
    assert "2 finished, 0 failed, 0 pruned" in again.stdout
    after = {file.name: file.read_bytes() for file in (out / "tiny").iterdir()}
    assert after.keys() == before.keys()
    page = "report.html"  # says what the stages cost, and those built again took other seconds, as the note
    before["note.md"], after["note.md"] = (
        re.sub(rb"[\d.,]+ CPU seconds a trial", b"", one["note.md"]) for one in (before, after)
    )
    assert {name: data for name, data in after.items() if name != page} == {
        name: data for name, data in before.items() if name != page
    }
    assert len(store.blobs.names("quarantine/")) == 2


class Refusing(BaseHTTPRequestHandler):
    """An MLflow that answers the check at the start and permits nothing else."""

    def do_GET(self) -> None:
        """Answer a search for experiments without a filter."""
        is_check = self.path.endswith("search?max_results=1")
        self.send_response(200 if is_check else 403)
        self.end_headers()
        self.wfile.write(b"{}" if is_check else b"not for you")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def test_records_that_mlflow_refuses_for_good_cost_no_wait_and_exit_code_0(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "tiny.yaml", {"attack.seed": [0]})
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri, began = f"http://127.0.0.1:{server.server_port}", time.monotonic()
        result = sweep(path, tmp_path / "out", "--tracking-uri", uri)
        server.shutdown()
    assert time.monotonic() - began < PATIENCE_SECONDS / 2, "a permanent error was retried"
    assert result.exit_code == 3, result.output
    assert f"MLflow at {uri} did not take 2 of 2 records; it says: " in result.stdout
    assert (tmp_path / "out" / "tiny" / "results.csv").exists()


def test_a_server_keeps_the_pictures_itself(tmp_path: Path, mlflow_server: str) -> None:
    path = tiny.write(tmp_path / "pictures.yaml", {"attack.seed": [0]})
    path.write_text(path.read_text().replace("study: tiny", "study: pictures"))
    result = sweep(path, tmp_path / "out", "--tracking-uri", mlflow_server)
    assert result.exit_code == 0, result.output
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("pictures")
    assert experiment is not None
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`inversion.kind` = 'sweep'")
    assert "report/results.csv" in [file.path for file in client.list_artifacts(parent.info.run_id, "report")]
    assert not (tmp_path / "out" / "mlartifacts").exists()
