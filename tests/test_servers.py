"""Spans modules: the servers of tests end with the process that started them, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.servers import end, guarded
from tests.sweeps import ROOT

STARTS_A_SERVER = """
import os, sys, time
from pathlib import Path
from tests.servers import guarded
server = guarded(["sh", "-c", "sleep 300 & sleep 300"], os.environ, Path(sys.argv[1]))
print(server.pid, flush=True)
time.sleep(300)
"""


def members(group: int) -> list[str]:
    """Return the names of the running processes of a group."""
    found = []
    for one in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(one.pid) == group and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one.name())
    return found


def wait_for(holds: Callable[[], bool]) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_the_tests_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    words = [sys.executable, "-c", STARTS_A_SERVER, str(tmp_path / "log")]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tests:
        assert tests.stdout is not None
        group = int(tests.stdout.readline())
        wait_for(lambda: "sleep" in members(group))
        tests.send_signal(number)
    wait_for(lambda: not members(group))


def test_a_server_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    server = guarded(["sh", "-c", "sleep 300 & sleep 300"], os.environ, tmp_path / "log")
    wait_for(lambda: "sleep" in members(server.pid))
    end(server)
    wait_for(lambda: not members(server.pid))
