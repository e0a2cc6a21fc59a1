"""Look at a tracking URI before a sweep starts and keep MLflow quiet; MLflow itself is not imported here."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMES = ("http", "https", "sqlite")
ANSWER_SECONDS = 3.0  # a health check that takes longer counts as an outage

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


def redact(text: str) -> str:
    """Hide user and password of every URI in a text."""
    return re.sub(r"://[^/\s]*@", "://***@", text)  # up to the last @: a password may hold one


def sqlite_path(uri: str) -> Path:
    """Return the file of `sqlite:///relative.db` or `sqlite:////absolute.db`."""
    return Path(unquote(uri.split("?", 1)[0].removeprefix("sqlite:///")))


def check_tracking(uri: str) -> None:
    """Raise ValueError with the way out if nothing can be tracked at `uri` now."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme == "sqlite" and uri.startswith("sqlite:///"):
        _check_folder(uri)
    else:
        raise ValueError(
            f"tracking_uri={redact(uri)} must start with http://, https:// or sqlite:///; "
            "use sqlite:///runs/mlflow.db to track without a server."
        )


def _check_server(uri: str) -> None:
    reason = _why_silent(
        re.sub(r"://[^/]*@", "://", uri.rstrip("/")) + "/health"
    )  # health asks for no password
    if reason is None:
        return
    if reason == "HTTP 403":
        raise ValueError(
            f"tracking_uri={redact(uri)}: MLflow refuses this host name (HTTP 403); start it with "
            f"--allowed-hosts {urlsplit(uri).hostname}:*, or use an address that it allows."
        )
    raise ValueError(
        f"tracking_uri={redact(uri)}: MLflow does not answer ({reason}); start it, or pass --ship-later "
        "to go on and send the results by running the same command again."
    )


def _why_silent(url: str) -> str | None:
    """Return None if the address answers, else a few words."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return redact(str(error.reason))
    except (OSError, ValueError) as error:
        return redact(str(error)) or type(error).__name__


def _check_folder(uri: str) -> None:
    path = sqlite_path(uri)
    if path.is_dir():
        raise ValueError(f"tracking_uri={uri} is a folder; name a file in it, such as {uri}/mlflow.db.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)) or (
        path.exists() and not os.access(path, os.W_OK)
    ):
        raise ValueError(f"tracking_uri={uri}: {folder} is not writable; name a file in a folder that is.")
