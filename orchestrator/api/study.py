"""Studies in Python: loaded, changed, planned and run as the commands do, with the same store and reports.

import orchestrator as inv

study = inv.Study.load("demo", scale="smoke").with_({"sweep.seed": [0]})
results = study.run(local=True)
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.api.options import DATA, RUNS, STORE, TRACKING, Options
from orchestrator.api.shipped import find_study
from orchestrator.api.sweep import Sweep, open_tracker
from orchestrator.config.base import Refused, one_line
from orchestrator.config.load import read_study
from orchestrator.config.study import Study as StudySpec
from orchestrator.sweep.records import StageCounts, SweepReport, TrialRecord
from orchestrator.sweep.trial import Task

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.api.results import Results

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a study would run."""

    trials: "pd.DataFrame"
    """A row for each trial: its name, swept values, and how many of its stages are stored and missing."""

    stages: "pd.DataFrame"
    """A row for each kind of stage: how many are distinct, stored and missing; the bytes of images that a
    worker holds and maps, and of its memory and its accelerator's in all; the CPU seconds (or an
    accelerator's) of those missing with an interval of 90 %, NaN where nothing in the store is like them, and
    how many of them are in no number (`unknown`)."""

    dropped: "pd.DataFrame"
    """A row for each combination of values that cannot exist, with the reason."""

    queries: "pd.DataFrame"
    """A row for each service that is attacked: images without an answer, requests for them, those left of the
    budget, and whether searches will ask for more."""


@dataclass(frozen=True)
class Study:
    """A study file with a scale and overrides; nothing is computed before `run`."""

    file: str
    scale: str | None = None
    overrides: tuple[str, ...] = ()
    spec: StudySpec = field(init=False, repr=False, compare=False)
    """The study as it is validated: base, sweep, search, report, resources."""

    def __post_init__(self) -> None:
        spec = read_study(find_study(self.file), overrides=self.overrides, scale=self.scale)
        object.__setattr__(self, "spec", spec)

    @classmethod
    def load(cls, study: str | Path, *, scale: str | None = None, overrides: Sequence[str] = ()) -> Self:
        """Return a study file, or the shipped study of a name, with `path=value` overrides as of `--set`; one
        may be given as plain text.

        Raise `StudyError` or `Refused` for a file, a scale or a value that cannot be used.
        """
        given = (overrides,) if isinstance(overrides, str) else tuple(overrides)
        return cls(str(study), scale, given)

    def with_(self, changes: Mapping[str, Any]) -> Self:
        """Return the study with settings changed: {"target.budget": "full", "sweep.seed": [0, 1]}.

        Paths are those of `--set`. Raise `StudyError` or `Refused` for what the study does not take.
        """
        return self.load(
            self.file, scale=self.scale, overrides=(*self.overrides, *map(_override, changes.items()))
        )

    @property
    def yaml(self) -> str:
        """The resolved study, as the report keeps it."""
        return self.spec.yaml()

    def plan(
        self, *, data: str | Path | None = None, store: str | Path | None = None, out: str | Path = RUNS
    ) -> Plan:
        """Return trials, stages and what cannot exist; nothing is run or written. Options as in `run`.

        Raise `StudyError` or `Refused` for what cannot be run as written.
        """
        import pandas as pd  # here, as everywhere in this file: it takes half a second to import

        opened = Sweep(self._options(data, store, out), plans=True)
        needed = opened.needed_queries()  # before the search moves on
        tasks = opened.first_tasks()
        stored = set(opened.store.keys())
        trials = []
        for task in tasks:
            missing = sum(stage.key not in stored for stage in task.stages.values())
            numbers = {"stored": len(task.stages) - missing, "missing": missing}
            trials.append({"trial": task.point.name, **task.point.axes, **numbers})
        rows = [vars(row) for row in opened.forecast(tasks).stages]
        dropped = pd.DataFrame([{**one.axes, "reason": one.reason} for one in opened.dropped])
        stages = pd.DataFrame(rows).astype(dict.fromkeys(("cpu_seconds", "low", "high"), float))
        asked = [{**vars(one), "service": one.service.name} for one in needed]
        queries = pd.DataFrame(asked, columns=["service", "images", "requests", "left", "is_least"])
        return Plan(pd.DataFrame(trials), stages, dropped, queries)

    def run(
        self,
        *,
        local: bool = True,
        data: str | Path | None = None,
        store: str | Path | None = None,
        out: str | Path = RUNS,
        tracking_uri: str | None = None,
        ship_later: bool = False,
        say: Say | None = None,
    ) -> "Results":
        """Run what is missing of the study and return its results; what is stored is not computed again.

        `local` runs in this process, otherwise on Ray: at RAY_ADDRESS, or started on this machine. `data`,
        `store`, `out`, `tracking_uri` and `ship_later` are the options of `jobs.sweep`, with its defaults and
        environment variables. `say`, such as `print`, is called with a line for each trial that ends, and at
        the end with the lines of `links`: where the comparison is, or what MLflow did not take.

        A trial that fails is a row of the results with its error. Raise `StudyError` or `Refused` for what
        cannot be run as written.
        """
        from orchestrator.api.results import Results

        tracking = tracking_uri or os.environ.get(TRACKING)
        opened = Sweep(self._options(data, store, out, tracking, ship_later=ship_later), local=local)
        opened.check_queries()
        tracker = open_tracker(opened)
        progress = Lines(say or _silent)
        with (
            _torch_kept() if local else nullcontext(),
            opened.started(tracker, [progress], progress.say) as run,
        ):
            while (executor := run.next_executor()) is not None:
                executor.run(run.ledger)
            folder = opened.write(run.files)
            links = run.ledger.finish(opened.report(run.ledger, run.files))
            for line in links:
                progress.say(line)
        return Results(opened.study, run.ledger.records, run.files, opened.store, folder, tuple(links))

    def _options(
        self,
        data: str | Path | None,
        store: str | Path | None,
        out: str | Path,
        tracking_uri: str | None = None,
        *,
        ship_later: bool = False,
    ) -> Options:
        return Options(
            study=self.file,
            overrides=self.overrides,
            scale=self.scale,
            out=Path(out),
            store=str(store) if store else os.environ.get(STORE),
            data=str(data) if data else os.environ.get(DATA),
            tracking_uri=tracking_uri,
            ship_later=ship_later,
        )


class Lines:
    """Implements `Listener`: a line for each trial that this start ran."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._num_trials = self._num_ended = 0
        self._started: set[str] = set()

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """A batch is known."""
        self._num_trials += len(tasks)
        self.say(f"{len(tasks)} trials, {num_missing} stages to run")

    def started(self, task: Task) -> None:
        """A trial runs."""
        self._started.add(task.point.key)

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """A trial was adopted or ended."""
        self._num_ended += 1
        if record.key in self._started:
            error = f" in {record.failed_stage}: {record.error}" if record.status == "failed" else ""
            self.say(f"{self._num_ended}/{self._num_trials} {record.name} {record.status}{error}")

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Add nothing."""
        return []


def _override(change: tuple[str, Any]) -> str:
    """Return a setting as `--set` takes it; numbers of NumPy as Python's.

    JSON's escapes of two halves are no YAML, those of single characters are.
    """
    path, value = change
    try:
        return f"{path}={one_line(json.dumps(value, default=_plain, ensure_ascii=False))}"
    except (TypeError, ValueError):
        way_out = "give text, numbers, true or false, None, lists or mappings"
        raise Refused(path, repr(value)[:60], "is nothing that a study can hold", way_out) from None


def _plain(value: Any) -> Any:
    """Return what JSON holds in place of a path or of NumPy's; raise `TypeError` for anything else."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _silent(line: str) -> None:
    """Say nothing."""


def _torch_kept() -> AbstractContextManager[None]:
    """Leave torch as the caller has it: a local run fixes threads and kernels of the process."""
    from orchestrator.training.kernels import profile_kept

    return profile_kept()
