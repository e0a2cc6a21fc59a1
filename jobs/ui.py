"""Browse sweeps in MLflow on this machine: `python -m jobs.ui` (or `make ui`) until Ctrl-C.

Starts MLflow's server on the loopback interface only, with one worker and without its job runners (two
processes instead of ten), on the store that local sweeps write.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.runtime.http import redact
from orchestrator.runtime.mlflow.check import LOCAL_NAME, check_tracking, server_environment
from orchestrator.runtime.mlflow.database import artifacts_folder, prepare, sqlite_path
from orchestrator.runtime.mlflow.views import runs_fragment

HOST = "127.0.0.1"
START_SECONDS = 120.0
MOST_STUDIES = 10  # that have a link

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    runs: Annotated[Path, typer.Option(help="Show the sweeps of this folder (their --out).")] = Path("runs"),
    port: Annotated[int, typer.Option(help="Listen on this port of 127.0.0.1.")] = 5000,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Show this sqlite store; default: RUNS/mlflow.db.")
    ] = None,
) -> None:
    """Serve MLflow's pages of finished and running sweeps on this machine, until Ctrl-C."""
    uri = tracking_uri or f"sqlite:///{runs / 'mlflow.db'}"
    try:
        check_store(uri)
        check_port(port)
        prepare(sqlite_path(uri))  # a server cannot start on a half-made database
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    signal.signal(signal.SIGTERM, _interrupt)  # SIGTERM ends the server too
    try:
        with server(uri, artifacts_folder(sqlite_path(uri)), port):
            print(f"MLflow shows {uri} on port {port} of this machine; Ctrl-C ends it.", flush=True)
            links = latest_links(f"http://{HOST}:{port}", f"http://{LOCAL_NAME}:{port}")
            print(*links, sep="\n", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("MLflow's server is stopped.")
    except ServerEndedError as error:
        raise SystemExit(str(error)) from None


def check_store(uri: str) -> None:
    """Raise `Refused` if there is nothing to show."""
    check_tracking(uri)
    if not uri.startswith("sqlite:"):
        raise Refused("tracking_uri", redact(uri), "is a server already", "open it in a browser")
    if not sqlite_path(uri).exists():
        way_out = "run `make demo` first, or name a folder with --runs"
        raise Refused(str(sqlite_path(uri)), NO_VALUE, "does not exist", way_out)


def check_port(port: int) -> None:
    """Raise `Refused` if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            way_out = f"choose another, such as {port + 1}"
            raise Refused("--port", port, f"is taken on {HOST}", way_out) from None


@contextmanager
def server(uri: str, artifacts: Path, port: int) -> Iterator[None]:
    """Run MLflow's server in its own process group; end the whole group at the end.

    It runs in an empty folder: it imports what lies in its working directory before what is installed.
    """
    _, mark, query = uri.partition("?")
    store = f"sqlite:///{quote(str(sqlite_path(uri).absolute()))}{mark}{query}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", HOST]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(artifacts)]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as empty:
        process = subprocess.Popen(
            command,
            cwd=empty,
            env=os.environ | server_environment(port),
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_it_answers(process, port)
            yield
        except ServerEndedError:
            log.seek(0)
            print(log.read().decode(errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            _end_group(process)


class ServerEndedError(RuntimeError):
    """MLflow's server ended or never answered; the end of its log is printed."""


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerEndedError(f"MLflow's server ended with code {process.returncode} while starting.")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise ServerEndedError(f"MLflow's server did not answer within {START_SECONDS:.0f} s.")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate the server and its children; kill them after five seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def latest_links(base: str, shown: str) -> list[str]:
    """Return lines with the saved views of the sweep that started last, and with the runs of each study, the
    latest first; `shown`: the server in a browser."""
    experiments = _post(f"{base}/api/2.0/mlflow/experiments/search", {"max_results": 1000})["experiments"]
    wanted = {
        "experiment_ids": [experiment["experiment_id"] for experiment in experiments],
        "filter": "tags.`inversion.kind` = 'sweep'",
        "order_by": ["attributes.start_time DESC"],
        "max_results": 1000,
    }
    runs = _post(f"{base}/api/2.0/mlflow/runs/search", wanted).get("runs", [])
    if not runs:
        return ["No sweep in it yet."]
    tags = {tag["key"]: tag["value"] for tag in runs[0]["data"]["tags"]}
    links = json.loads(tags.get("inversion.links", "{}"))
    head = f"Latest sweep: {runs[0]['info']['run_name']} ({runs[0]['info']['status'].lower()})"
    names = {experiment["experiment_id"]: experiment["name"] for experiment in experiments}
    studies = list(dict.fromkeys(run["info"]["experiment_id"] for run in runs))[:MOST_STUDIES]
    return [
        head,
        *(f"  {label:9} {shown}{link}" for label, link in links.items()),
        "All sweeps of a study:",
        *(f"  {names[one]:9} {shown}{runs_fragment(one)}" for one in studies),
    ]


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        content: dict[str, Any] = json.load(response)
    return content


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
