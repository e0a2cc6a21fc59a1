"""`python -m jobs.ui`: what it refuses, what it starts, what a browser sees, what it leaves behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
from mlflow import MlflowClient

from jobs.ui import check_store
from orchestrator.runtime.mlflow.tracker import MlflowTracker
from tests.browser import CHROMIUM, QUIET
from tests.runtime.mlflow.trackers import tell
from tests.runtime.samples import OBJECTIVE, sample_trials
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
STUDY = "browsed-digits"


@dataclass(frozen=True)
class Ui:
    """The command as it runs, and what it printed so far."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str]

    def servers(self) -> list[psutil.Process]:
        """Return everything that the command started."""
        return psutil.Process(self.process.pid).children(recursive=True)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "jobs.ui", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_without_a_database_it_says_what_makes_one(tmp_path: Path) -> None:
    done = run("--runs", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == (
        f"{tmp_path / 'mlflow.db'} does not exist; run `make demo` first, or name a folder with --runs."
    )


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--runs", tmp_path, "--port", port)
    assert done.returncode == 2
    assert done.stderr == f"--port={port} is taken on 127.0.0.1; choose another, such as {port + 1}.\n"


@pytest.mark.mlflow
def test_a_server_is_no_store_to_serve(mlflow_server: str) -> None:
    with pytest.raises(ValueError, match="is a server already; open it in a browser") as caught:
        check_store(mlflow_server.replace("://", "://someone:hid@den@"))
    assert not any(part in str(caught.value) for part in ("someone", "hid", "den"))


@pytest.fixture(scope="module")
def ui(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Serve a copy of a sample sweep's folder as `make ui` does; the original is gone.

    It is called from a folder with an `mlflow.py` of the user's, as the console command may be.
    """
    folder = tmp_path_factory.mktemp("ui")
    (folder / "mlflow.py").write_text("raise SystemExit('this is no MLflow')")
    (folder / "first").mkdir()
    database = shutil.copy(mlflow_database, folder / "first" / "mlflow.db")
    tell(MlflowTracker(f"sqlite:///{database}"), STUDY, sample_trials(6))
    runs = shutil.copytree(folder / "first", folder / "copy")
    shutil.rmtree(folder / "first")
    port = free_port()
    command = [sys.executable, "-P", "-m", "jobs.ui", "--runs", str(runs), "--port", str(port)]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # background jobs inherit an ignored one
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    lines: list[str] = []
    with process:
        try:
            while not lines or not lines[-1].lstrip().startswith(STUDY):
                line = process.stdout.readline()
                assert line, f"the command ended: {lines}"
                lines.append(line.rstrip())
            yield Ui(process, port, lines)
        finally:
            process.terminate()


@pytest.mark.mlflow
def test_two_server_processes_answer_on_the_loopback_address(ui: Ui) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{ui.port}/health", timeout=10) as answer:
        assert answer.read() == b"OK"
    found = ui.servers()
    commands = [" ".join(process.cmdline()) for process in found]
    assert len(commands) == 2, commands
    assert "mlflow server" in commands[0]
    assert "uvicorn" in commands[1]
    open_to = {
        connection.laddr
        for process in found
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert open_to == {("127.0.0.1", ui.port)}


@pytest.mark.mlflow
def test_the_last_sweep_is_linked(ui: Ui) -> None:
    assert ui.lines[0].endswith(f" on port {ui.port} of this machine; Ctrl-C ends it.")
    assert ui.lines[1] == f"Latest sweep: {STUDY} (6 trials) (finished)"
    *links, head, study = ui.lines[2:]
    assert all(f" http://mlflow.localhost:{ui.port}/#/experiments/" in line for line in [*links, study])
    assert [line.split()[0] for line in links] == ["answer", "table", "pictures", "trials", "report"]
    assert head == "All sweeps of a study:"
    assert study.endswith("/runs?workflowType=machine_learning")


@pytest.mark.mlflow
def test_a_copied_folder_shows_its_own_pictures(ui: Ui) -> None:
    client = MlflowClient(f"http://127.0.0.1:{ui.port}")
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`inversion.kind` = 'trial'")
    shown = {}
    for run in runs:
        paths = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
        (path,) = [path for path in paths if path.endswith(".png")]
        query = urlencode({"path": path, "run_uuid": run.info.run_id})
        with urllib.request.urlopen(f"http://127.0.0.1:{ui.port}/get-artifact?{query}", timeout=10) as answer:
            shown[run.info.run_name] = answer.read()
    assert shown == {trial.name: trial.images["inversion/test"].read() for trial in sample_trials(6)}


@pytest.mark.mlflow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_a_browser_opens_the_saved_view(ui: Ui, tmp_path: Path) -> None:
    (link,) = [line.split()[1] for line in ui.lines if line.split()[0] == "trials"]
    command = [str(CHROMIUM), "--headless", *QUIET, f"--user-data-dir={tmp_path}"]
    command += ["--window-size=1600,1200", "--virtual-time-budget=20000", "--dump-dom", link]
    page = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL))
    text = " ".join(text.split())
    for shown in (STUDY, f"{STUDY}: trials", "viewing a shared view", "1. Sweep", "2. Learning curves"):
        assert shown in text
    trials = {trial.name: trial.metrics[OBJECTIVE] for trial in sample_trials(6)}
    order = sorted(trials, key=text.index)  # fails where a trial is not on the page
    assert [trials[name] for name in order] == sorted(trials.values())


@pytest.mark.mlflow
def test_control_c_ends_every_process(ui: Ui) -> None:
    found = ui.servers()
    assert found
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(timeout=20) == 0
    assert ui.process.stdout is not None
    assert ui.process.stdout.read() == "MLflow's server is stopped.\n"
    assert psutil.wait_procs(found, timeout=5)[1] == []
