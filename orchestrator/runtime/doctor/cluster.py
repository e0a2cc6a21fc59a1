"""Checks of a Ray cluster from outside: its job server and the token; `nodes` checks it from inside."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config.installation import ROOT
from orchestrator.runtime.doctor.findings import LIMIT_SECONDS, Finding, fail, is_loopback, ok, warn
from orchestrator.runtime.http import ANSWER_SECONDS, get, redact
from orchestrator.runtime.words import last_line

VERSION_BYTES = 10_000  # of the job server's description of itself
TASKS_SECONDS = 30.0  # a cold worker of a busy node takes seconds; one that takes longer is unfit for sweeps
NODES_SECONDS = TASKS_SECONDS + LIMIT_SECONDS  # so that a node which does not answer is named
JOINED_SECONDS = LIMIT_SECONDS + NODES_SECONDS + 5.0  # and the start of the process
_REFUSED = "InvalidAuthToken"  # in Ray's log, once a second
TOKEN = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE with the head's token"
CLOSE = "start head, workers and clients with RAY_AUTH_MODE=token and one token"
REACH = "start the head, open the tunnel to it, or correct RAY_API_SERVER_ADDRESS (http://HEAD:8265)"
JOIN = "correct RAY_ADDRESS (HEAD:6379), RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, or unset RAY_ADDRESS"


def job_server(address: str) -> Iterator[Finding]:
    """Check the server that jobs go to: reachable, closed to strangers, open to us, our version."""
    url = f"{address.rstrip('/')}/api/version"
    body, status = get(url, max_bytes=VERSION_BYTES)
    shown = redact(address)
    if status == 0:
        yield fail("ray jobs", f"no answer from {shown} ({body})", REACH)
        return
    if status == 200:
        yield _open_to_all(urlsplit(address).hostname)
        yield _version(body)
        return
    if status != 401:
        yield fail("ray jobs", f"{shown} answers HTTP {status}, not as Ray's job server does", REACH)
        return
    yield ok("ray jobs", f"{shown} answers 401 without a token")
    yield from _with_token(url)


def _open_to_all(host: str | None) -> Finding:
    words = "the cluster takes jobs without authentication"
    if is_loopback(host):
        return warn("ray jobs", f"{words}, here at an address of this machine", CLOSE)
    return fail("ray jobs", words, CLOSE)


def _with_token(url: str) -> Iterator[Finding]:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode != "token":
        yield fail("ray token", f"this client sends none: RAY_AUTH_MODE={mode or '(unset)'}", TOKEN)
        return
    token, source = _token()
    if not token:
        yield fail("ray token", f"{source} holds none", TOKEN)
        return
    body, status = get(url, {"Authorization": f"Bearer {token}"}, max_bytes=VERSION_BYTES)
    if status != 200:
        yield fail("ray token", f"the token of {source} is refused (HTTP {status})", TOKEN)
        return
    yield _kept(source)
    yield _version(body)


def _token() -> tuple[str, str]:
    """Return Ray's token and its source, the first of those that Ray reads."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip(), str(path)
    except OSError:
        return "", str(path)


def _kept(source: str) -> Finding:
    path = Path(source)
    if path.is_absolute() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warn("ray token", f"accepted, but others may read {source}", f"chmod 600 {source}")
    return ok("ray token", f"accepted, from {source}")


def _version(body: str) -> Finding:
    here = version("ray")
    try:
        there = str(json.loads(body)["ray_version"])
    except (ValueError, KeyError, TypeError):
        return fail("ray version", "the job server reports none", REACH)
    if there != here:
        return fail(
            "ray version", f"{there} there, {here} here", f"install ray=={there} here, or {here} there"
        )
    return ok("ray version", f"{here} there and here")


def joined(address: str, store: str, cache: str) -> Iterator[Finding]:
    """Join a cluster and check its nodes, in another process: Ray may wait for ever, or end its own."""
    if "://" in address:
        yield fail("ray cluster", f"RAY_ADDRESS={redact(address)} is no address to join", JOIN)
        return
    host, _, port = address.rpartition(":")
    if host and port.isdigit():  # `auto` has none
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            yield fail("ray cluster", f"no answer from {address} ({error.strerror or error})", JOIN)
            return
    command = [sys.executable, "-m", "orchestrator.runtime.doctor.nodes", address, store, cache]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, cwd=ROOT
            ) as process,
        ):
            watcher = threading.Thread(target=_watch, args=(process, log), daemon=True)
            watcher.start()
            try:
                yield from _findings(process)
            finally:
                _end(process)
                watcher.join()
        words = log.read_text(encoding="utf-8", errors="replace")
        if _REFUSED in words:
            yield fail("ray cluster", f"{address} refuses this client's token, or got none", TOKEN)
        elif process.returncode == -signal.SIGKILL:
            yield fail("ray cluster", f"did not answer within {JOINED_SECONDS:g} s", JOIN)
        elif process.returncode:
            yield fail("ray cluster", f"cannot be joined: {last_line(words)}", JOIN)


def _findings(process: subprocess.Popen[str]) -> Iterator[Finding]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"status"'):  # the rest is Ray's own output
            yield Finding(**json.loads(line))
    process.wait()


def _watch(process: subprocess.Popen[str], log: Path) -> None:
    """End the process when its time is over, or when Ray's log has that its token is refused."""
    end = time.monotonic() + JOINED_SECONDS
    while process.poll() is None:
        if time.monotonic() > end or _REFUSED in log.read_text(encoding="utf-8", errors="replace"):
            _end(process)
        time.sleep(0.2)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process and those it started, unless it has ended."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
