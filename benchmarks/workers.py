"""Processes of a sweep: `python -m benchmarks.workers`, memory and CPU seconds of each role, on Linux.

Runs the demo's smoke variant on a Ray of its own, on loopback, with an empty store, in two worker groups, and
follows every process of it through /proc: proportional memory (PSS, pages shared by n processes count 1/n
each), CPU seconds, and whether torch's library is mapped. The sum of memory is taken when it is largest. CPU
seconds before the first stage are those of all processes, ended ones included, until the first worker logs
that it has taken one. Other load leaves memory as it is and adds to CPU seconds: compare in turns.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MARK = "INVERSION_MEASURED"  # in the environment of every process of the sweep
POLL_SECONDS = 1.0
MOST_SECONDS = 10.0  # between two looks; ten times what a look took, as looks must not slow the start
TICKS = os.sysconf("SC_CLK_TCK")
ROLES = {
    "sweep's own process": r"jobs\.sweep",
    "train worker": r"RayTrainWorker",
    "group's controller": r"TrainController",
    "group's helpers": r"PlacementGroupCleaner|SynchronizationActor|DatasetManager",
    "trial driver": r"ImplicitFunc",
    "broker": r"Broker",
    "leases": r"Leases",
    "Ray's coordinator": r"AutoscalingCoordinator",
    "Ray's idle workers": r"ray::IDLE|default_worker\.py",
    "Ray's servers": r"gcs_server|raylet|dashboard|Dashboard|RuntimeEnvAgent|agent|monitor",
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # what has Ray choose 127.0.0.1, on any system


@dataclass
class Process:
    """What was seen of one process."""

    role: str = ""
    cpu_seconds: float = 0.0
    most_bytes: int = 0  # PSS
    has_torch: bool = False


@dataclass
class Seen:
    """What was seen of a whole sweep."""

    processes: dict[int, Process] = field(default_factory=dict)
    most_bytes: Counter[str] = field(default_factory=Counter)  # role -> PSS, at the moment of the largest sum
    counts: Counter[str] = field(default_factory=Counter)  # role -> processes at that moment
    cpu_before_stages: float | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all processes."""
        return sum(one.cpu_seconds for one in self.processes.values())


def marked(mark: str) -> Iterator[int]:
    """Yield the processes whose environment has the mark."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)
            except OSError:  # it has ended, or is another user's
                continue


def look(seen: Seen, mark: str) -> None:
    """Add one look at every process of the sweep."""
    now: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for pid in marked(mark):
        folder = Path("/proc") / str(pid)
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
            rollup = (folder / "smaps_rollup").read_text()
            maps = (folder / "maps").read_text()
        except OSError:  # it has ended
            continue
        if (pss := re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)) is None:
            continue  # it ends
        one = seen.processes.setdefault(pid, Process())
        role = next((name for name, pattern in ROLES.items() if re.search(pattern, command)), command[:60])
        one.role = role if role != "Ray's idle workers" or not one.role else one.role
        one.cpu_seconds = sum(map(int, times)) / TICKS
        one.most_bytes = max(one.most_bytes, int(pss[1]) * 1024)
        one.has_torch |= "libtorch_cpu" in maps
        now[one.role] += int(pss[1]) * 1024
        counts[one.role] += 1
    if now.total() > seen.most_bytes.total():
        seen.most_bytes, seen.counts = now, counts


def has_stage(temporary: Path) -> bool:
    """Return whether a worker has logged that it has taken a stage."""
    logs = temporary.glob("ray/session_*/logs/worker-*")
    return any(b"event=stage_taken" in log.read_bytes() for log in logs if log.stat().st_size)


def measure(words: list[str], folder: Path, temporary: Path) -> Seen:
    """Run a sweep with its store and report in `folder`; return what was seen of it."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    environment = {**os.environ, **LOOPBACK, MARK: mark, "RAY_TMPDIR": str(temporary)}
    environment.pop("RAY_ADDRESS", None)  # of another Ray
    command = [sys.executable, "-m", "jobs.sweep", *words, "--store", str(folder / "store")]
    command += ["--out", str(folder / "out"), "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    seen = Seen()
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        while running.poll() is None:
            began = time.monotonic()
            look(seen, mark)
            if seen.cpu_before_stages is None and has_stage(temporary):
                seen.cpu_before_stages = seen.cpu_seconds
            time.sleep(min(MOST_SECONDS, max(POLL_SECONDS, 10 * (time.monotonic() - began))))
    text = (folder / "log").read_text()
    if running.returncode:
        raise RuntimeError(text[-3000:])
    if "event=ray_start_failed" in text:
        raise RuntimeError("Ray started late, and what it had begun is in the sums: measure again")
    return seen


def print_table(seen: Seen) -> None:
    """Print a row for each role, then the sums."""
    print(f"{'role':24} {'processes':>9} {'largest MiB':>12} {'CPU s':>8} {'at once':>8} {'MiB':>6}  torch")
    roles = {one.role for one in seen.processes.values() if one.role}
    for role in sorted(roles, key=lambda name: (*ROLES, name).index(name)):
        every = [one for one in seen.processes.values() if one.role == role]
        largest, spent = max(one.most_bytes for one in every) / 2**20, sum(one.cpu_seconds for one in every)
        at_once = f"{seen.counts[role]:8} {seen.most_bytes[role] / 2**20:6.0f}"
        torch = sum(one.has_torch for one in every)
        print(f"{role:24} {len(every):9} {largest:12.0f} {spent:8.1f} {at_once}  {torch or '-'}")
    before = seen.cpu_before_stages
    print(f"most memory at one moment: {seen.most_bytes.total() / 2**30:.2f} GiB (PSS)")
    print(f"CPU seconds before the first stage: {'-' if before is None else f'{before:.1f}'}")
    print(f"CPU seconds in all: {seen.cpu_seconds:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, help="of `jobs.sweep`; default: demo --scale smoke"
    )
    words = parser.parse_args().words or ["demo", "--scale", "smoke"]
    with (
        tempfile.TemporaryDirectory(prefix="workers-") as folder,
        tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as temporary,
    ):
        print_table(measure(words, Path(folder), Path(temporary)))


if __name__ == "__main__":
    main()
