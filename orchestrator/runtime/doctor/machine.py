"""Checks of this machine: Python, the libraries, torch's accelerators, room for the cache of data sets."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator import __version__
from orchestrator.config.installation import ROOT
from orchestrator.runtime.doctor import gpu
from orchestrator.runtime.doctor.findings import LIMIT_SECONDS, Finding, fail, ok, room, warn
from orchestrator.runtime.open_store import NODE_CACHE
from orchestrator.runtime.words import sentences

MINIMUM = {"ray": "2.60", "torch": "2.14", "mlflow": "3.17.2", "boto3": "1.44"}  # as in pyproject.toml
PYTHON = (3, 11)
INSTALL = "install the project's requirements.lock into this environment (make test does)"


def installed() -> Iterator[Finding]:
    """Check the versions of Python and of the libraries."""
    found = versions()
    words = f"Python {platform.python_version()}, project {__version__}"
    if sys.version_info < PYTHON:
        yield fail("python", words, f"use Python {PYTHON[0]}.{PYTHON[1]} or later")
    else:
        yield ok("python", words)
    missing = [name for name, number in found.items() if not number]
    old = [name for name, number in found.items() if number and is_older(number, MINIMUM[name])]
    words = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    if missing or old:
        yield fail("libraries", words, INSTALL)
    else:
        yield ok("libraries", words)


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries, empty where one is missing; nothing is imported."""
    return {name: _version(name) for name in MINIMUM}


def is_older(number: str, than: str) -> bool:
    """Return whether one version precedes another; only leading numbers count."""
    return _numbers(number) < _numbers(than)


def accelerators() -> Iterator[Finding]:
    """Check in a process of its own that torch loads; report the GPUs that it sees."""
    command = [sys.executable, "-m", gpu.__name__]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_SECONDS - 1, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        yield warn("torch", "takes long to load", "look for a slow or full disk, and run this again")
        return
    if done.returncode:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield fail("torch", f"does not load: {sentences(words)}", INSTALL)
        return
    found = json.loads(done.stdout.splitlines()[-1])
    if fault := gpu.driver_fault(found):
        yield warn("torch", *fault)
        return
    names = ", ".join(found["names"])
    yield ok(
        "torch",
        f"sees {found['count']} GPUs: {names}" if names else "sees no GPU; it can train on processors",
    )


def cache_room(folder: Path = NODE_CACHE) -> Iterable[Finding]:
    """Check the room for data sets that are read from a bucket."""
    return [room("cache", str(folder), free_bytes(folder))]


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be made on."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())


def differing(of: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the versions that differ between places, each as `torch: 2.15.0 on A, 2.14.1 on B`."""
    names = dict.fromkeys(name for found in of.values() for name in found)
    lines = []
    for name in names:
        where: dict[str, list[str]] = {}
        for place, found in of.items():
            where.setdefault(found.get(name) or "missing", []).append(place)
        if len(where) > 1:
            words = ", ".join(f"{number} on {' and '.join(places)}" for number, places in where.items())
            lines.append(f"{name}: {words}")
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _numbers(number: str) -> list[int]:
    leading = []
    for part in number.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        leading.append(int(digits))
    return leading
