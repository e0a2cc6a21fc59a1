"""Kills of a sweep in a fresh folder, MLflow's database included: `python -m tests.drills.kills --kills 100`.

Every start is killed at a moment drawn by the seed, from its first instant to the time that an undisturbed
sweep takes: SIGKILL mostly, else SIGTERM or Ctrl-C. The next start goes on in the same folder or ends the
sweep there undisturbed; then a fresh folder follows. Exit code 0 must mean that the table is that of an
undisturbed sweep to the byte and MLflow holds every trial once. Starts are forked from a process that has
imported everything, so the kills fall into work and not into imports.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny

SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT)
ENDS_HERE = 0.4  # share of the kills after which the sweep goes on undisturbed
TRIALS = 4
LIMIT_SECONDS = 600.0
SWEEP, TRIAL = (
    f"r.run_uuid IN (SELECT run_uuid FROM tags WHERE value = '{kind}')" for kind in ("sweep", "trial")
)
ACTIVE = "FROM runs r WHERE r.lifecycle_stage = 'active' AND"
WHOLE = {  # of MLflow's database after the sweep: query -> its one value
    f"SELECT group_concat(r.status) {ACTIVE} {SWEEP}": "FINISHED",
    f"SELECT COUNT(*) {ACTIVE} {TRIAL} AND r.status = 'FINISHED'": TRIALS,
    f"SELECT COUNT(*) {ACTIVE} {TRIAL}": TRIALS,
    "SELECT COUNT(DISTINCT value) FROM tags WHERE key = 'inversion.trial'": TRIALS,
    "SELECT COUNT(*) FROM tags WHERE key = 'inversion.digest'": TRIALS + 1,
    "SELECT MAX(n) FROM (SELECT COUNT(*) n FROM metrics GROUP BY run_uuid, key, step)": 1,
}


def write_study(folder: Path) -> Path:
    """Write a sweep of four trials whose attacks train for a while and save their state often."""
    changes = {"attack.recipe": {**tiny.RECIPE, "epochs": 60}}
    axes = {"auxiliary.kind": ["same-heldout", "distinct"], "release.truncation": [1, 2]}
    report = {"rows": ["auxiliary"], "columns": 3}
    return tiny.write(
        folder / "tiny.yaml", axes, changes, report=report, resources={"checkpoint_seconds": 0.2}
    )


def sweep(study: Path, out: Path) -> None:
    """Run the command in this process, which was started for it; its output goes to a file."""
    log = os.open(out.parent / f"{out.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    from jobs.sweep import app

    app([str(study), "--local", "--out", str(out)])


@dataclass
class Kills:
    """The drill's state: one folder after the other, killed until there were enough kills."""

    folder: Path
    draw: random.Random
    killed: Counter[str] = field(default_factory=Counter)  # by exit code
    num_folders: int = 0
    num_checked: int = 0
    num_late: int = 0  # kills that came after the end

    def __post_init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["jobs.sweep", "orchestrator.runtime.mlflow.shipping", __name__])
        self.study = write_study(self.folder)
        self.start(self.folder / "warm").join(LIMIT_SECONDS)
        began = time.monotonic()
        self.start(self.folder / "reference").join(LIMIT_SECONDS)
        self.seconds = time.monotonic() - began
        self.reference = (self.folder / "reference" / "tiny" / "results.csv").read_bytes()
        self.check(self.folder / "reference")

    def start(self, out: Path) -> ForkServerProcess:
        """Start the command over a folder."""
        process = self.context.Process(target=sweep, args=(self.study, out))
        process.start()
        while process.exitcode is None and not self._log(out).exists():  # forking itself is not of interest
            time.sleep(0.001)
        return process

    def run(self, num_kills: int) -> None:
        """Kill that often; raise `AssertionError` at the first fault."""
        while self.killed.total() < num_kills:
            self.num_folders += 1
            out = self.folder / f"runs-{self.num_folders}"
            while self.killed.total() < num_kills and self._is_killed(out):
                if self.draw.random() < ENDS_HERE:
                    break
            process = self.start(out)
            process.join(LIMIT_SECONDS)
            assert process.exitcode == 0, f"exit code {process.exitcode}: {self.log(out)}"
            self.check(out)
            print(f"{out.name}: {self.killed.total()} kills so far, whole after the last start", flush=True)

    def _is_killed(self, out: Path) -> bool:
        """Start and kill; return False if the sweep was over before."""
        is_fresh, began = not out.exists(), time.monotonic()
        process, number = self.start(out), self.draw.choice(SIGNALS)
        process.join(self.draw.uniform(0, self.seconds))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, number)
            process.join(LIMIT_SECONDS)
        assert process.exitcode is not None, f"still running after {number.name}"
        if process.exitcode == 0:
            self.num_late += 1
            if is_fresh:  # the machine has become faster
                self.seconds = min(self.seconds, time.monotonic() - began)
            self.check(out)
            return False
        codes = {-number, 128 + number} | ({1} if number == signal.SIGINT else set())  # 1: before its handler
        assert process.exitcode in codes, f"exit code {process.exitcode}: {self.log(out)}"
        self.killed[f"{number.name} {process.exitcode}"] += 1
        return True

    def check(self, out: Path) -> None:
        """Hold a folder, whose sweep said that it is whole, against an undisturbed one."""
        assert (out / "tiny" / "results.csv").read_bytes() == self.reference, f"another table in {out}"
        with closing(sqlite3.connect(out / "mlflow.db")) as database:
            for query, value in WHOLE.items():
                found = database.execute(query).fetchone()[0]
                assert found == value, f"{query}: {found} instead of {value}; {self.log(out)}"
            parent, uri = database.execute(f"SELECT r.run_uuid, r.artifact_uri {ACTIVE} {SWEEP}").fetchone()
        files = out / "mlartifacts" / str(uri).removeprefix("mlflow-artifacts:/")
        assert (files / "report" / "results.csv").read_bytes() == self.reference, parent
        assert len(list((out / "mlartifacts" / "tiny").glob("*/artifacts/images/*.png"))) == 2 * TRIALS
        left = {path.name for path in out.iterdir()} - {"store", "tiny", "mlartifacts", "mlflow.db"}
        assert left == {"mlflow.db.lock"}, f"left in {out}: {left}"
        blobs = Artifacts(DirectoryBlobs(out / "store")).blobs
        assert not blobs.names("conflicts/"), "two runs of a stage gave different bytes"
        assert not blobs.names("quarantine/"), "a kill damaged an artifact"
        self.num_checked += 1

    def log(self, out: Path) -> str:
        """Return the end of what the starts over a folder printed."""
        return self._log(out).read_text()[-3000:]

    def _log(self, out: Path) -> Path:
        return out.parent / f"{out.name}.log"


def main(seed: int, num_kills: int, folder: Path) -> Kills:
    """Run the drill and print its figures; raise `AssertionError` at the first fault."""
    drill = Kills(folder, random.Random(seed))
    print(f"seed {seed}: an undisturbed sweep takes {drill.seconds:.1f} s", flush=True)
    drill.run(num_kills)
    ends = ", ".join(f"{name}: {count}" for name, count in sorted(drill.killed.items()))
    print(f"{drill.killed.total()} kills ({ends}) in {drill.num_folders} folders; {drill.num_late} came late")
    print(f"{drill.num_checked} whole sweeps: same table, every trial in MLflow once, exit code 0")
    return drill


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        main(arguments.seed, arguments.kills, Path(scratch))
    sys.exit(0)
