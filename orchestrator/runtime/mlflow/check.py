"""Checks of a tracking URI before a sweep starts, and settings that keep MLflow quiet. Imports no MLflow."""

import os
from contextlib import suppress
from urllib.parse import urlsplit

from orchestrator.config.base import Refused
from orchestrator.runtime.http import get, redact
from orchestrator.runtime.mlflow.database import check_database, sqlite_path

# The shipper retries on its own, so MLflow's client may not wait for minutes; no usage data is sent.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def set_environment() -> None:
    """Put MLflow's settings into this process where the user has not set them."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_tracking(uri: str) -> None:
    """Raise `Refused` if nothing can be tracked at `uri` now."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme == "sqlite" and uri.startswith("sqlite:///"):
        _check_folder(uri)
    else:
        rule = "must start with http://, https:// or sqlite:///"
        raise _refused(uri, rule, "use sqlite:///runs/mlflow.db to track without a server")


def base_address(uri: str) -> str:
    """Return a server's address without user, password and a slash at the end."""
    parts = urlsplit(uri.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def search(uri: str) -> tuple[str, int]:
    """Ask for one experiment without a password; /health and /version would let any host name in."""
    return get(f"{base_address(uri)}/api/2.0/mlflow/experiments/search?max_results=1")


def is_host_refused(body: str, status: int) -> bool:
    """Return whether MLflow's check of host names said no."""
    return status == 403 and "host" in body.lower()


def allow(host: str) -> str:
    """Return what to do where a host name is refused."""
    return f'start it with --allowed-hosts "{host},localhost:*,127.0.0.1:*"'


def _check_server(uri: str) -> None:
    body, status = search(uri)
    if status in (200, 401):  # 401: it wants the password, which MLflow's client sends
        return
    if is_host_refused(body, status):
        host = urlsplit(base_address(uri)).netloc
        way_out = f"{allow(host)}, or use an address that it allows"
        raise _refused(uri, "is served by an MLflow that refuses this host name (HTTP 403)", way_out)
    reason = f"HTTP {status}" if status else body
    raise _refused(
        uri,
        f"gets no answer from MLflow ({reason})",
        "start it, or pass --ship-later to go on and send the results by running the same command again",
    )


def _check_folder(uri: str) -> None:
    path = sqlite_path(uri)
    if path.is_dir():
        raise _refused(uri, "is a folder", f"name a file in it, such as {uri}/mlflow.db")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)) or (
        path.exists() and not os.access(path, os.W_OK)
    ):
        raise _refused(uri, f"is in {folder}, which is not writable", "name a file in a folder that is")
    with suppress(OSError):  # locked for now: the tracker waits for it
        check_database(path)


def _refused(uri: str, rule: str, way_out: str) -> Refused:
    return Refused("tracking_uri", redact(uri), rule, way_out)
