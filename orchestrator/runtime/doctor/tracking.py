"""Checks of MLflow: a server answers, is new enough, needs authentication, takes writes; or a file does."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from time import time_ns
from urllib.parse import urlsplit

from orchestrator.config.base import Refused
from orchestrator.runtime.doctor.findings import Finding, fail, is_loopback, ok, refused, room, warn
from orchestrator.runtime.doctor.machine import MINIMUM, existing, free_bytes, is_older
from orchestrator.runtime.http import get, redact
from orchestrator.runtime.mlflow.check import (
    allow,
    base_address,
    check_tracking,
    is_host_refused,
    search,
    set_environment,
)
from orchestrator.runtime.mlflow.database import sqlite_path
from orchestrator.runtime.words import sentences

PROBE = "inversion-doctor"  # one experiment, restored and deleted by every check
LOG_IN = "export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)"
START = "start it or correct --tracking-uri; sweeps can go on with --ship-later meanwhile"


def tracking(uri: str) -> Iterator[Finding]:
    """Check the MLflow server or database file that sweeps report to."""
    if uri.startswith(("http://", "https://")):
        yield from _server(uri)
        return
    try:
        check_tracking(uri)
    except Refused as refusal:
        yield refused("mlflow", refusal)
        return
    yield from _file(uri)


def _server(uri: str) -> Iterator[Finding]:
    base = base_address(uri)
    parts = urlsplit(base)
    number, status = get(f"{base}/version")
    if status == 0:
        yield fail("mlflow", f"no answer from {base} ({number})", START)
        return
    yield _version(base, number, status)
    body, status = search(uri)
    if is_host_refused(body, status):
        yield fail("mlflow auth", f"refuses the host name {parts.netloc} (HTTP 403)", allow(parts.netloc))
        return
    yield _auth(parts.hostname, status)
    yield _writes(uri)


def _version(base: str, number: str, status: int) -> Finding:
    if status == 401:
        return ok("mlflow", f"{base} answers")
    if status != 200 or not re.match(r"\d+\.\d+", number):
        return fail(
            "mlflow", f"{base} answers, but not as MLflow does (HTTP {status})", "correct --tracking-uri"
        )
    if is_older(number, MINIMUM["mlflow"]):
        upgrade = f"install mlflow>={MINIMUM['mlflow']} where the server runs: older ones let attackers in"
        return fail("mlflow", f"{base} is MLflow {number}", upgrade)
    return ok("mlflow", f"{base} is MLflow {number}")


def _auth(host: str | None, status: int) -> Finding:
    if status == 401:
        return ok("mlflow auth", "needs a password")
    if status != 200:
        return fail("mlflow auth", f"answers HTTP {status} to a search", "see the server's log")
    if is_loopback(host):
        return ok("mlflow auth", "no authentication, at an address of this machine")
    protect = "add a password (--app-name basic-auth) or bind it to 127.0.0.1: it shows private images"
    return warn("mlflow auth", "no authentication", protect)


def _writes(uri: str) -> Finding:
    """Write as a sweep would, with the same client and credentials."""
    set_environment()
    from mlflow import MlflowClient  # seconds: only where there is a server to write to
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(PROBE)
        key = experiment.experiment_id if experiment else client.create_experiment(PROBE)
        if experiment and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(key)
        client.set_experiment_tag(key, "inversion.doctor_ms", str(time_ns() // 1_000_000))
        client.delete_experiment(key)
    except MlflowException as error:
        words = redact(" ".join(str(error).split()))
        if "error code 401" in words or error.error_code == "UNAUTHENTICATED":
            return fail(
                "mlflow writes", "the server refuses these credentials, or got none (HTTP 401)", LOG_IN
            )
        if error.error_code == "PERMISSION_DENIED":
            grant = "ask its administrator for the right to create experiments"
            return fail("mlflow writes", "this user may not write", grant)
        return fail("mlflow writes", sentences(words), "see the server's log")
    return ok("mlflow writes", f"wrote and deleted experiment {PROBE}")


def _file(uri: str) -> Iterator[Finding]:
    """Check a database file: intact, writable now, with room to grow."""
    path = sqlite_path(uri)
    folder = existing(path.absolute().parent)
    if not path.exists():
        yield ok("mlflow", f"{path}, made by the first sweep")
    else:
        try:
            with closing(sqlite3.connect(path, timeout=2.0)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
            yield ok("mlflow", f"{path} can be written")
        except sqlite3.OperationalError as error:
            yield warn("mlflow", f"{path}: {error}", "wait for the sweep or server that writes there")
    yield room("mlflow room", str(folder), free_bytes(folder))
