"""Scale benchmark: `python -m benchmarks.scale`, a large sweep through the real driver on a simulated clock.

Trials of the demo's study run in 64 worker groups of one accelerator each. The searcher of Ray Tune, the
broker and its client, the trial's walk, ledger, journal, store, leases and the rule that starts groups are
the product's own; only Ray is missing, and stages wait for a random time and publish files of the demo's
sizes. A graph of `--stages` stages is laid under the trials, of which neighbours share most: the worst order
for a queue. `--planned` runs the study's own stages instead, 5.5 a trial.

Prints for a quarter, half and all of the trials, each in a process of its own: the makespan beside its lower
bound (all work over all groups, or the longest chain of stages), broker calls, CPU seconds by part, memory of
the process (with the broker's, which is another one in a sweep), the journal's bytes; and how each grows, as
an exponent of the trials. MLflow takes a sample of the records in a database of its own, half of them before
and half after other runs were added; its whole is extrapolated.
"""

import argparse
import asyncio
import functools
import io
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from ray.tune.experiment import Trial as TuneTrial

from benchmarks.simulation import SimulatedLoop
from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep
from orchestrator.runtime.ray.broker import LISTEN_SECONDS, Broker
from orchestrator.runtime.ray.connect import num_drivers
from orchestrator.runtime.ray.groups import TICK_SECONDS
from orchestrator.runtime.ray.pools import Group, Pool, decide
from orchestrator.runtime.ray.tune import OUTCOME, BrokerClient, TaskSearcher, unpacked
from orchestrator.stages.graph import STAGES, Stage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal, now_ms
from orchestrator.store.leases import LocalLeases
from orchestrator.sweep.journal import JournalListener
from orchestrator.sweep.ledger import Ledger, Listener
from orchestrator.sweep.points import Point
from orchestrator.sweep.records import SweepRecord, TrialRecord
from orchestrator.sweep.search import FixedPoints
from orchestrator.sweep.trial import Trial

POOL = Pool(gpus_per_worker=1.0)
NODE = {"CPU": 8.0, "GPU": 1.0}
MEAN_SECONDS = {"pretrain": 300.0, "target": 300.0, "judge": 300.0, "inversion": 300.0}
OTHER_SECONDS = 30.0
SPREAD = 0.7
"""Standard deviation of the logarithm of stage lengths of one kind: in the demo 0.1 to 0.5 of inverters, 0.3
to 0.7 of targets, by their settings. Nothing in the simulation knows a length before its stage ends."""
LAYERS = {"target": 0.02, "predictions": 0.08, "inversion": 0.3, "evaluation": 0.6}
"""Stages of the laid graph in the order they run, as shares of all; each needs the one before."""
EPOCHS = 25
GROUP_SECONDS, DRIVER_SECONDS = 20.0, 1.0  # until a started group takes work, and a drawn trial asks for it
SIDE = 104  # pixels of a noise picture that is as large as the demo's grids, 32 kB
PICTURES = {"evaluation": ("inversion_train.png", "inversion_test.png")}
METRICS = 12  # of a stage
SAMPLE = 60  # records that MLflow takes


def laid(number: int, num_trials: int, num_stages: int) -> dict[str, Stage]:
    """Return the stages of a trial in the laid graph; neighbouring trials share what they can."""
    stages: dict[str, Stage] = {}
    position, of, needs = number, num_trials, {}
    for name, share in reversed(LAYERS.items()):
        count = max(1, round(share * num_stages))
        position, of = position * count // of, count
        needs[name] = position
    before: Stage | None = None
    for name in LAYERS:
        role = "attack" if name == "evaluation" else "before"
        needed = {role: before.key} if before else {}
        stages[name] = before = Stage(name, 1, {"data": {"number": needs[name]}}, {}, needed)
    return stages


@dataclass
class Costs:
    """What one simulated sweep cost."""

    trials: int = 0
    stages: int = 0
    makespan: float = 0.0  # simulated seconds
    bound: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)  # of the broker, by method
    cpu: dict[str, float] = field(default_factory=dict)  # seconds, by part
    journal_bytes: int = 0
    sweep_bytes: int = 0  # of memory, beyond what this process had before the first point
    process_bytes: int = 0  # of memory, in all
    mlflow_seconds: tuple[float, float] = (0.0, 0.0)  # CPU seconds a record, before and after other runs
    most_drivers: int = 0

    def spend(self, part: str, call: Callable[[], Any]) -> Any:
        """Call, and count the CPU seconds of the calling thread."""
        start = time.thread_time()
        try:
            return call()
        finally:
            self.add(part, time.thread_time() - start)

    def add(self, part: str, seconds: float) -> None:
        """Count CPU seconds."""
        self.cpu[part] = self.cpu.get(part, 0.0) + seconds


class SimulatedSweep:
    """One sweep: the driver's own objects, and stand-ins for Ray, groups and stages."""

    def __init__(
        self,
        opened: Sweep,
        plan: Callable[[Point], Mapping[str, Stage]],
        folder: Path,
        setting: "Setting",
    ) -> None:
        self.loop, self.costs, self.broker = SimulatedLoop(), Costs(), Broker()
        self.store = Artifacts(DirectoryBlobs(folder))
        self.journal = Journal(self.store.blobs, opened.study.key)
        listeners: list[Listener] = [JournalListener(self.journal)]
        self.ledger = Ledger(opened.search, plan, self.store, opened._describe, listeners=listeners)
        self.searcher = TaskSearcher(self.ledger, lambda: num_drivers(setting.groups), self._list_ended)
        self.groups, self.spread = setting.groups, setting.spread
        self.leases = LocalLeases()
        self.lengths: dict[str, float] = {}
        self.running: dict[str, tuple[str, float]] = {}  # group -> phase and since when
        self.tune_trials: dict[str, TuneTrial] = {}
        self.num_driving = 0
        self.is_drawn = False

    def run(self) -> Costs:
        """Run the sweep to its end."""
        costs = self.costs
        with self.journal:
            assert costs.spend("plan and adopt", self.ledger.has_work)
            assert costs.spend("searcher", self.searcher.prefetch)
            self._draw_lengths()
            asyncio.set_event_loop(self.loop)
            try:
                self.loop.run_until_complete(self._simulate())
            except RuntimeError as error:
                raise self.loop.failure or error from error
            finally:
                self.loop.close()
        costs.makespan = self.loop.time()
        costs.trials, costs.stages = len(self.ledger.records), len(self.ledger.needed)
        assert {record.status for record in self.ledger.records} == {"finished"}
        assert len(self.ledger.built) == costs.stages, "every stage is built once, and noted by one trial"
        folder = f"sweeps/{self.journal._folder.split('/')[1]}/journal/"
        costs.journal_bytes = sum(entry.size for entry in self.store.blobs.entries(folder))
        return costs

    def _draw_lengths(self) -> None:
        """Draw every stage's length; the bound follows from them alone."""
        generator = random.Random(0)
        longest = 0.0
        for task in self.searcher._waiting._tasks:
            ends: dict[str, float] = {}
            for stage in task.stages.values():
                if stage.key not in self.lengths:
                    mean = MEAN_SECONDS.get(stage.name, OTHER_SECONDS)
                    factor = generator.lognormvariate(-(self.spread**2) / 2, self.spread)  # 1 on average
                    self.lengths[stage.key] = mean * factor
                start = max((ends[key] for key in stage.needs.values()), default=0.0)
                ends[stage.key] = start + self.lengths[stage.key]
            longest = max(longest, *ends.values())
        self.costs.bound = max(sum(self.lengths.values()) / self.groups, longest)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """Call the broker as an actor is called."""
        self.costs.calls[method] += 1
        return await getattr(self.broker, method)(*arguments)

    def _list_ended(self, since: int) -> list[str]:
        """Ask the broker from the loop itself, where the searcher runs; `ended` waits for nothing."""
        self.costs.calls["ended"] += 1
        try:
            self.broker.ended(since).send(None)
        except StopIteration as returned:
            keys: list[str] = returned.value
            return keys
        raise AssertionError("unreachable")

    async def _simulate(self) -> None:
        watch = self.loop.create_task(self._watch())
        while not (self.is_drawn and self.num_driving == 0):
            self._draw()
            await asyncio.sleep(TICK_SECONDS)
        await self._ask("stop")
        await watch
        while self.running:
            await asyncio.sleep(TICK_SECONDS)

    def _draw(self) -> None:
        """Start trials as Tune does, until the searcher has none now."""
        while not self.is_drawn:
            name = f"{len(self.tune_trials):05d}"
            config = self.costs.spend("searcher", partial(self.searcher.suggest, name))
            if not isinstance(config, dict):
                self.is_drawn = config is TaskSearcher.FINISHED
                return
            self.tune_trials[name] = TuneTrial("drive", config=config, trial_id=name, stub=True)
            self.num_driving += 1
            self.costs.most_drivers = max(self.costs.most_drivers, self.num_driving)
            start, end = partial(self._drive, config), partial(self._end, name)
            self.loop.call_later(DRIVER_SECONDS, self.loop.start_thread, start, end)

    def _drive(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Walk a trial in a thread, as the trainable does in its process; return its last result."""
        task = unpacked(config["task"])
        stages = [Stage(**plain) for plain in task["stages"]]

        def call(method: str, *arguments: Any) -> Any:
            return self.loop.call_from_thread(partial(self._ask, method, *arguments))

        client = BrokerClient(call, task["priorities"], dict.fromkeys(STAGES, POOL.name))
        trial = Trial(stages, self.store, self.leases, "sweep")
        client.walk(trial, task["compared"], lambda progress: None)
        return {"config": config, OUTCOME: json.dumps(asdict(trial.outcome)), "done": True}

    def _end(self, name: str, result: dict[str, Any]) -> None:
        self.num_driving -= 1
        self.tune_trials[name].update_last_result(result)
        self.costs.spend("ledger and journal", partial(self.searcher.on_trial_complete, name, result))
        if self.searcher.error is not None:
            raise self.searcher.error
        self._draw()

    async def _watch(self) -> None:
        """Start and dismiss groups as `WorkerGroups` does."""
        pools, number = {POOL.name: POOL}, 0
        nodes = [NODE] * self.groups
        while not (self.is_drawn and self.num_driving == 0):
            start = time.thread_time()
            state = await self._ask("state")
            for name, group in state["groups"].items():
                phase = self.running[name][0]
                now_phase = "busy" if group["building"] else "idle"
                if phase not in ("ending", now_phase):
                    self.running[name] = (now_phase, self.loop.time())
            queued = {pools[pool]: count for pool, count in state["queued"].items() if count}
            every = [
                Group(name, POOL, phase, self.loop.time() - since)
                for name, (phase, since) in self.running.items()
            ]
            decision = decide(queued, every, nodes, None)
            self.costs.add("watch", time.thread_time() - start)
            if decision.dismiss:
                await self._ask("dismiss", decision.dismiss)
                self.running |= {name: ("ending", self.loop.time()) for name in decision.dismiss}
            for _ in decision.start:
                number += 1
                self.running[f"group-{number}"] = ("starting", self.loop.time())
                self.loop.create_task(self._serve(f"group-{number}"))
            await asyncio.sleep(TICK_SECONDS)

    async def _serve(self, group: str) -> None:
        """Take stages as a worker does; a stage waits for its length and publishes."""
        await asyncio.sleep(GROUP_SECONDS)
        await self._ask("begin", group, POOL.name)
        await self._ask("arrive", group, "node")
        listening = self.loop.create_task(self._listen(group))
        position = 0
        while (plain := await self._ask("take", group, 0, position)) is not None:
            position += 1
            stage = Stage(**plain)
            seconds = self.lengths[stage.key]
            for epoch in range(1, EPOCHS + 1):
                await asyncio.sleep(seconds / EPOCHS)
                await self._ask("report", stage.key, {"epoch": epoch, "validation_loss": 1.0 / epoch})
            self._publish(stage, seconds)
            await self._ask("finish", group, stage.key, None, True)
        listening.cancel()
        await asyncio.wait([listening])
        await self._ask("lose", group)
        del self.running[group]

    async def _listen(self, group: str) -> None:
        while not await self._ask("must_leave", group, LISTEN_SECONDS):
            continue

    def _publish(self, stage: Stage, seconds: float) -> None:
        losses = [1.0 / epoch for epoch in range(1, EPOCHS + 1)]
        files = {"curves.json": json.dumps({f"{stage.name}/train_loss": losses}).encode()}
        files |= dict.fromkeys(PICTURES.get(stage.name, ()), picture())
        metrics = {f"{stage.name}/metric_{number}": 1.0 / (number + 1) for number in range(METRICS)}
        cost = {"wall_seconds": seconds, "cpu_seconds": seconds, "images_seen": 1.0}
        artifact = Artifact(
            stage.key,
            stage.name,
            stage.version,
            dict(stage.specs),
            metrics=metrics,
            cost=cost,
            created_ms=now_ms(),
        )
        self.store.publish(artifact, files)


@functools.cache
def picture() -> bytes:
    """Return a PNG of noise."""
    file = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), random.Random(0).randbytes(SIDE * SIDE * 3)).save(file, format="PNG")
    return file.getvalue()


def resident_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Setting:
    """What is simulated, beside the number of trials."""

    stages: int | None  # of the laid graph; None plans the study's own
    groups: int = 64
    spread: float = SPREAD
    mlflow_runs: int = 0  # beside which half of a sample of the records is shipped; 0 ships none

    def words(self) -> list[str]:
        """Return the options that name it."""
        words = ["--groups", str(self.groups), "--spread", str(self.spread)]
        words += ["--mlflow-runs", str(self.mlflow_runs)]
        return words + (["--planned"] if self.stages is None else ["--stages", str(self.stages)])


def simulate(num_trials: int, setting: Setting) -> Costs:
    """Simulate one sweep in a store of its own."""
    before = resident_bytes()
    with tempfile.TemporaryDirectory(prefix="scale-", dir=memory_folder()) as scratch:
        folder = Path(scratch)
        start = time.process_time()
        opened = open_demo(num_trials, folder)
        spent = time.process_time() - start
        plan: Callable[[Point], Mapping[str, Stage]] = opened.plan
        if (num_stages := setting.stages) is not None:
            plan = lambda point: laid(point.index, num_trials, num_stages)  # noqa: E731
        sweep = SimulatedSweep(opened, plan, folder / "store", setting)
        costs = sweep.run()
        costs.add("plan and adopt", spent)
        costs.sweep_bytes, costs.process_bytes = resident_bytes() - before, resident_bytes()
        if setting.mlflow_runs:
            with Journal(sweep.store.blobs, opened.study.key) as journal:
                record = opened.sweep_record(journal)
            costs.mlflow_seconds = ship(record, sweep.ledger.records[:SAMPLE], folder, setting.mlflow_runs)
    return costs


def ship(
    record: SweepRecord, records: Sequence[TrialRecord], folder: Path, others: int
) -> tuple[float, float]:
    """Return the CPU seconds of a record in MLflow, with none and with `others` runs in its experiment."""
    from orchestrator.runtime.mlflow.shipping import OpenSweep  # here: MLflow is not part of what is measured

    opened = OpenSweep(f"sqlite:///{folder}/mlflow.db", record)

    def mean(part: Sequence[TrialRecord]) -> float:
        start = time.process_time()
        for one in part:
            opened.ship(one)
        return (time.process_time() - start) / len(part)

    mean(records[:2])  # what a first use loads
    half = len(records) // 2
    first = mean(records[2:half])
    for number in range(others):
        tags = {"inversion.sweep": "another", "inversion.kind": "trial", "inversion.trial": str(number)}
        opened.client.create_run(opened.experiment_id, tags=tags)
    return first, mean(records[half:])


def open_demo(num_trials: int, folder: Path) -> Sweep:
    """Return the demo's study over as many seeds as the trials need, cut to their number."""
    seeds = f"sweep.seed={list(range(math.ceil(num_trials / 32)))}"
    options = Options("demo", [seeds], None, folder / "out", str(folder / "store"), None, None, True)
    opened = Sweep(options)
    assert isinstance(opened.search, FixedPoints)
    opened.search = FixedPoints(opened.search.points[:num_trials])
    return opened


def memory_folder() -> str | None:
    """Return a folder in memory where there is one: a disk's time is no part of this."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def in_process(num_trials: int, setting: Setting) -> Costs:
    """Simulate in a process of its own, whose memory is then this sweep's."""
    words = [sys.executable, "-m", "benchmarks.scale", "--only", str(num_trials), *setting.words()]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    plain = json.loads(done.stdout)
    return Costs(**{**plain, "calls": Counter(plain["calls"])})


def rows(every: Sequence[Costs]) -> dict[str, list[float]]:
    """Return what is printed of each sweep, label -> values."""
    parts = sorted({part for one in every for part in one.cpu})
    found = {
        "stages": [float(one.stages) for one in every],
        "makespan over its bound": [one.makespan / one.bound for one in every],
        "trial drivers at a time, most": [float(one.most_drivers) for one in every],
        "broker: calls": [float(one.calls.total()) for one in every],
        "broker: calls a simulated second": [one.calls.total() / one.makespan for one in every],
    }
    found |= {f"CPU s: {part}": [one.cpu[part] for one in every] for part in parts}
    found["memory of the sweep, MiB"] = [one.sweep_bytes / 2**20 for one in every]
    found["memory of the process, MiB"] = [one.process_bytes / 2**20 for one in every]
    found["journal, kB"] = [one.journal_bytes / 1e3 for one in every]
    return found


GROWING = ("broker: calls", "CPU s: ", "memory of the sweep, MiB", "journal, kB")
"""Labels of rows that a larger sweep increases."""


def exponent(trials: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope between the first and the last sweep in logarithms: 1 is linear, 2 the square."""
    return math.log(values[-1] / values[0]) / math.log(trials[-1] / trials[0])


def print_table(every: Sequence[Costs]) -> None:
    """Print a column for each sweep and the exponent of what grows."""
    trials = [one.trials for one in every]
    print(f"{'trials':34}" + "".join(f"{count:12,}" for count in trials) + "   growth")
    for label, values in rows(every).items():
        grows = label.startswith(GROWING) and all(value > 0 for value in values)
        shown = f"{exponent(trials, values):9.2f}" if grows else ""
        print(f"{label:34}" + "".join(f"{value:12,.2f}" for value in values) + shown)
    first, second = every[-1].mlflow_seconds
    if second:
        whole = second * trials[-1]
        print(
            f"MLflow, CPU s a record: {first:.3f}, beside other runs {second:.3f}; all, if so: {whole:,.0f}"
        )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000, help="in the largest sweep; default: 10000")
    parser.add_argument("--stages", type=int, default=3_000, help="of its laid graph; default: 3000")
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--spread", type=float, default=SPREAD, help="of the logarithm of a stage's length")
    parser.add_argument("--planned", action="store_true", help="the study's own stages instead")
    parser.add_argument("--mlflow-runs", type=int, default=1_000, help="other runs; 0 leaves MLflow out")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    stages = None if arguments.planned else arguments.stages
    setting = Setting(stages, arguments.groups, arguments.spread, arguments.mlflow_runs)
    if arguments.only:
        print(json.dumps(vars(simulate(arguments.only, setting))))
        return
    every = []
    for part in (4, 2, 1):
        runs = arguments.mlflow_runs if part == 1 else 0
        smaller = replace(setting, stages=stages and stages // part, mlflow_runs=runs)
        every.append(in_process(arguments.trials // part, smaller))
    print_table(every)


if __name__ == "__main__":
    main()
