"""Random kills for as long as it takes: `python -m tests.drills.soak --seed 7 --kills 20`.

Every 20 to 60 s one process of the cluster, drawn by the seed, gets SIGKILL: a train worker, a train
controller, a trial driver, the broker, the leases, a node's raylet, the sweep's own process or the MLflow
server. Nodes and MLflow are started again as an autoscaler or a supervisor would, a sweep whose process died
is submitted again with the same command. Should the sweep end too early, another follows until all kills are
done. Tables must be the bytes of an undisturbed run. The S3 server keeps its objects in memory and is left
alone.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.drills.drills import Drill, write_study
from tests.drills.rig import ENDED, ROLES, Rig, rig
from tests.sweeps import run_locally

SEEDS = 8  # 64 trials: enough work for some twenty kills
KILLED = (*ROLES, "raylet", "mlflow")


def main(seed: int, kills: int, folder: Path) -> None:
    """Run the soak; raise `AssertionError` at the first difference."""
    draw = random.Random(seed)
    reference = run_locally(write_study(folder, "reference", SEEDS), folder / "reference")
    killed: Counter[str] = Counter()
    redone, redone_seconds, sweeps, submits = 0, 0.0, 0, 0
    began = time.monotonic()
    with rig(folder) as running:
        while sum(killed.values()) < kills:
            sweeps += 1
            drill = Drill(running, f"soak-{sweeps}", folder, reference, SEEDS)
            drill.submit()
            due = time.monotonic() + draw.uniform(20, 60)
            while True:
                status = running.status(drill.jobs[-1])
                if status == "SUCCEEDED":
                    break
                if status in ENDED:
                    drill.submit()
                if time.monotonic() >= due and sum(killed.values()) < kills:
                    process = draw.choice(KILLED)
                    if kill(running, process, draw):
                        killed[process] += 1
                        drill.killed.append(process)
                        print(
                            f"{time.monotonic() - began:6.0f} s  kill {sum(killed.values())}: {process}",
                            flush=True,
                        )
                    due = time.monotonic() + draw.uniform(20, 60)
                time.sleep(0.5)
            drill.check()
            epochs, seconds = drill.redone()
            redone, redone_seconds = redone + epochs, redone_seconds + seconds
            submits += len(drill.jobs)
            print(
                f"sweep {sweeps}: same table after {len(drill.killed)} kills, {len(drill.jobs)} submits",
                flush=True,
            )
    spent = time.monotonic() - began
    print(f"seed {seed}: {sum(killed.values())} kills in {spent:.0f} s: {dict(killed)}")
    print(
        f"{sweeps} sweeps, {submits} submits, {redone} epochs ({redone_seconds:.1f} s) redone; every table "
        "has the same bytes"
    )


def kill(running: Rig, process: str, draw: random.Random) -> bool:
    """Kill one process of that kind; False if there is none now. Bring nodes and MLflow back."""
    if process == "mlflow":
        running.kill_mlflow()
        running.start_mlflow()
        return True
    found = running.processes(process)
    if not found:
        return False
    with suppress(ProcessLookupError):
        draw.choice(found).kill()
    if process == "raylet":
        running.restart_nodes()
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        main(arguments.seed, arguments.kills, Path(scratch))
    sys.exit(0)
