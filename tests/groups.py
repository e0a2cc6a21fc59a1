"""Groups of test files for a parallel run (`make test`): the files that share a server run in one process.

A Ray cluster or an MLflow server costs tens of CPU seconds to start, and two clusters on two cores starve
each other. Every other file is a group of its own.
"""

from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]
MARKERS = ("ray", "mlflow")
"""Of tests that share a server, the longest group first."""


@cache
def group_of(file: str) -> str:
    """Return the group of a test file, given by its path from the project's folder."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return next((name for name in MARKERS if f"pytest.mark.{name}" in text), file)


def order_of(file: str) -> int:
    """Return the place of a test file's group: long ones start first, so that no process waits at the end."""
    return (*MARKERS, group_of(file)).index(group_of(file))


class ByServer(LoadFileScheduling):
    """Gives each process whole groups of files."""

    def _split_scope(self, nodeid: Any) -> str:
        return group_of(str(nodeid).split("::", 1)[0])
