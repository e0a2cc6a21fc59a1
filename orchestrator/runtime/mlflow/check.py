"""Checks of a tracking URI before a sweep starts, and settings that keep MLflow quiet. Imports no MLflow."""

import os
from contextlib import suppress
from urllib.parse import urlsplit

from orchestrator.config.base import Refused
from orchestrator.config.plain import check_path
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


LOCAL_NAME = "mlflow.localhost"
"""Name of this machine in local links: browsers take every name under `localhost` for the loopback interface.
Under `localhost` and `127.0.0.1` MLflow's pages open an assistant beside a new user's first page."""


def server_environment(port: int) -> dict[str, str]:
    """Return the settings of a server on this machine's loopback interface: two processes instead of ten, and
    its names, of which one is no name of its own.
    """
    return ENVIRONMENT | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"localhost:*,127.0.0.1:*,{LOCAL_NAME}:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{LOCAL_NAME}:{port}",
    }


def set_environment() -> None:
    """Put MLflow's settings into this process where the user has not set them."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_tracking(uri: str) -> None:
    """Raise `Refused` if nothing can be tracked at `uri` now."""
    scheme = _scheme(uri)
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme == "sqlite" and uri.startswith("sqlite:///"):
        _check_folder(uri)
    else:
        rule = "must start with http://, https:// or sqlite:///"
        raise _refused(uri, rule, "use sqlite:///runs/mlflow.db to track without a server")


def _scheme(uri: str) -> str:
    """Return the scheme of a URI; raise `Refused` if its address is none."""
    try:
        parts = urlsplit(uri)
        has_host = bool(parts.hostname) and parts.port != 0  # reading the port checks it
        reason = "names no host"
    except ValueError as error:
        has_host, reason = False, f"is no address ({error})"
    is_server = uri.lower().startswith("http")
    is_bad = is_server and not has_host
    if is_bad or not uri.isprintable() or (is_server and " " in uri):
        rule = reason if is_bad else "has a space or a character that cannot be printed"
        raise _refused(uri, rule, "write it like http://HOST:5000 or sqlite:///runs/mlflow.db")
    return parts.scheme


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
    if path.name.startswith(":memory:"):
        rule = "would be lost with this process"
        raise _refused(uri, rule, "name a file, or pass --ship-later to track nothing now")
    try:
        check_path("tracking_uri", path)
    except Refused as refused:
        raise _refused(uri, refused.rule, refused.way_out) from None
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
