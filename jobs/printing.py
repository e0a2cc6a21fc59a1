"""Terminal output of a sweep before its end: the plan and a progress line; `jobs/tables.py` has the end."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

from orchestrator.api.forecast import Forecast, StageForecast
from orchestrator.config.installation import to_call
from orchestrator.config.study import Study
from orchestrator.datasets.published import Published
from orchestrator.datasets.shards import HELD_BYTES
from orchestrator.models.budgets import counted
from orchestrator.sweep.adversary import held_parts, held_words
from orchestrator.sweep.points import Dropped
from orchestrator.sweep.records import StageCounts, SweepReport, TrialRecord
from orchestrator.sweep.requests import Requests
from orchestrator.sweep.trial import Task

SILENT_SECONDS = 60.0  # in the log of a job


class SweepProgress:
    """Implements `Listener`: stages and trials done, trials running, the objective so far, time left."""

    def __init__(self, console: Console, objective: str, is_maximized: bool) -> None:
        self._console, self._objective, self._is_maximized = console, objective, is_maximized
        self._lock = threading.Lock()
        self._begun: set[str] = set()  # trials that were not stored already
        self._running: set[str] = set()
        self._missing = self._built = self._ended = self._trials = 0
        self._requests: Requests | None = None
        self._best: tuple[float, str] | None = None
        self._started = self._said = time.monotonic()
        self._closed = threading.Event()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}"),
            RequestsColumn(self),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar: TaskID = self._progress.add_task("stages", total=None, words="")

    def __enter__(self) -> Self:
        self._progress.start()
        if not self._console.is_terminal:
            threading.Thread(target=self._break_silence, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._progress.stop()

    def follow(self, requests: Requests) -> None:
        """Show what the requests to the sweep come to, and leave pauses out of the time left."""
        self._requests = requests

    @property
    def state(self) -> str:
        """Worker groups now and asked, or that it is paused, and what is built; empty where there is nothing
        to say."""
        return "" if self._requests is None else self._requests.state.words

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """A batch is known."""
        with self._lock:
            self._trials += len(tasks)
            self._missing += num_missing
            self._show()
        if num_missing:
            self._say(f"{len(tasks)} trials, {num_missing} stages to run")

    def started(self, task: Task) -> None:
        """A trial runs."""
        with self._lock:
            self._begun.add(task.point.key)
            self._running.add(task.point.key)
            self._show()

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """A trial was adopted or ended; a failure is printed at once."""
        with self._lock:
            self._ended += 1
            self._running.discard(record.key)
            self._built += len(built)
            value = record.metrics.get(self._objective)
            if record.status == "finished" and value is not None and self._is_better(value):
                self._best = (value, record.name)
            self._show()
        if record.key in self._begun and record.status != "failed":
            shown = f", {self._objective}={value:.4g}" if value is not None else ""
            self._say(f"{self._words()}: {record.name} {record.status}{shown}")
        if record.status == "failed":
            self._console.print(
                f"trial {record.name} failed in stage {record.failed_stage}: {record.error}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Add nothing: `print_end` prints the tables."""
        return []

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best[0] if self._is_maximized else value < self._best[0]

    def _say(self, line: str) -> None:
        """Print a line where no bar is shown: in the log of a job."""
        if not self._console.is_terminal:
            self._said = time.monotonic()
            self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)

    def _break_silence(self) -> None:
        """Print what is being built where no line came for `SILENT_SECONDS`, and that has moved since."""
        last = ""
        while not self._closed.wait(max(0.1, self._said + SILENT_SECONDS - time.monotonic())):
            line = f"{self._words()}: {self.state}"
            if time.monotonic() - self._said < SILENT_SECONDS:
                continue
            if self.state and line != last:
                self._say(line)
                last = line
            self._said = time.monotonic()

    def _words(self) -> str:
        return f"{self._built}/{self._missing} stages, {self._ended}/{self._trials} trials"

    def _show(self) -> None:
        words = [self._words()]
        words.append(f"{len(self._running)} running")
        if 0 < self._built < self._missing:
            paused = self._requests.paused_seconds if self._requests else 0.0
            spent = time.monotonic() - self._started - paused
            words.append(f"about {_duration(spent / self._built * (self._missing - self._built))} left")
        if self._best is not None:
            end = "highest" if self._is_maximized else "lowest"  # the best is known when all are compared
            words.append(f"{end} {self._objective} {self._best[0]:.4g}")
        self._progress.update(
            self._bar, total=self._missing or None, completed=self._built, words=", ".join(words)
        )


class RequestsColumn(ProgressColumn):
    """Drawn again and again, also while no trial ends."""

    def __init__(self, progress: SweepProgress) -> None:
        super().__init__()
        self._sweep = progress

    def render(self, task: ProgressTask) -> Text:
        """Return the state of the requests."""
        return Text(self._sweep.state)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )


def print_plan(  # noqa: PLR0913 - one for each part of what is printed
    console: Console,
    study: Study,
    tasks: Sequence[Task],
    dropped: Sequence[Dropped],
    expected: Forecast,
    rate: float | None = None,
    *,
    precision: Sequence[str] = (),
    is_measured: bool = False,
) -> None:
    """Print points, dropped combinations with reasons, lines on the precision, distinct stages with their
    memory, and a forecast of their seconds, priced at `rate` for a device hour; `is_measured`: what could be
    measured was."""
    console.print(f"study {study.study}: {len(tasks)} points")
    if tasks:  # at once: a line costs more to print than a point to plan
        console.print("\n".join(f"  {task.point.name}" for task in tasks), markup=False, soft_wrap=True)
    print_dropped(console, dropped)
    for words in (*_search(study, len(tasks)), *_budgets(tasks), *_held(tasks), *precision):
        console.print(words, markup=False, soft_wrap=True)
    on_device = any(row.device_bytes for row in expected.stages)
    table = Table(
        *("stage", "distinct", "stored", "to run", "images", "mapped", "host", "device"),
        "seconds" if on_device else "CPU seconds",
        title="stages",
        title_justify="left",
    )
    for row in expected.stages:
        sizes = (row.held_bytes, row.mapped_bytes, row.host_bytes, row.device_bytes)
        counts = map(str, (row.distinct, row.stored, row.missing))
        table.add_row(row.stage, *counts, *map(_in_words, sizes), _time(row))
    console.print(table)
    batch = len(tasks) if study.search.algorithm == "optuna" else 0
    time = _forecast(expected, on_device=on_device, batch=batch, is_measured=is_measured)
    for words in (_memory(expected), time, *_price(expected, rate)):
        console.print(words, soft_wrap=True, markup=False)


def print_stand_ins(console: Console, published: Mapping[str, Published], absent: Collection[str]) -> None:
    """Print which sets and weights a plan does without, and how to stage them."""
    for name, about in published.items():
        console.print(
            f"not staged: {name}; its published size stands in, {about.size} ({about.source}); stage it with "
            f"{to_call('stage_data', about.command)}",
            markup=False,
            soft_wrap=True,
        )
    if absent:
        names = ", ".join(absent)
        words = f"not staged: weights {names}; unchecked; stage them with {to_call('stage_weights')}"
        console.print(words, markup=False, soft_wrap=True)


def _time(row: StageForecast) -> str:
    if not row.missing:
        return "0"
    if row.cpu_seconds is None or row.low is None or row.high is None:
        return "unknown"
    rest = f", {row.unknown} unknown" if row.unknown else ""
    return f"{_number(row.cpu_seconds)} ({_number(row.low)}..{_number(row.high)}){rest}"


def _number(value: float) -> str:
    """Return seconds with two digits where they are few."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _memory(expected: Forecast) -> str:
    held, mapped = expected.held_bytes, expected.mapped_bytes
    rest = (
        f"; sets above {_in_words(HELD_BYTES)}, at most {_in_words(mapped)} for a stage, are mapped from "
        "files and read a batch at a time"
    )
    device = f", and {_in_words(expected.device_bytes)} of its accelerator" if expected.device_bytes else ""
    images = f"memory: each worker holds about {_in_words(held)} of images{rest if mapped else ''}"
    return f"{images}; in all about {_in_words(expected.host_bytes)}{device}"


def _forecast(expected: Forecast, *, on_device: bool, batch: int, is_measured: bool) -> str:
    """Return the time of what is missing; of a search that learns, of its first `batch` of trials alone."""
    of = f" of the first batch of {batch} trials" if batch else ""
    names = ", ".join(f"{count} {stage}" for stage, count in expected.unknown.items())
    way_out = "" if is_measured else "; measure one step of each with --calibrate"
    if expected.cpu_seconds is None or expected.low is None or expected.high is None:
        if not names:
            return f"forecast{of}: nothing is left to run"
        return f"forecast{of}: unknown, the store has nothing like {names}{way_out}"
    unit = "seconds" if on_device else "CPU seconds"
    rest = f"; beside that unknown: {names}{way_out}" if names else ""
    words = f"{_number(expected.cpu_seconds)} ({_number(expected.low)}..{_number(expected.high)}) {unit}"
    return f"forecast{of}: about {words}, by the rates of this store{rest}"


def _price(expected: Forecast, rate: float | None) -> Iterator[str]:
    """Yield the price of what is known, at a rate for an hour of a device or a processor."""
    if rate is None or not expected.cpu_seconds or expected.low is None or expected.high is None:
        return
    price = rate * expected.device_hours
    low, high = (price * value / expected.cpu_seconds for value in (expected.low, expected.high))
    rest = ", without what is unknown" if expected.unknown else ""
    yield f"price: about {price:.2f} ({low:.2f}..{high:.2f}) at {rate:g} for a device hour{rest}"


def _in_words(num_bytes: int) -> str:
    """Return bytes in GiB, or in MiB below one."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def _search(study: Study, num_known: int) -> Iterator[str]:
    """Yield a line about a search that learns: what of it is known before it runs."""
    search = study.search
    if search.algorithm != "optuna":
        return
    asked = " and ".join(f"{name} {way}d" for name, way in search.objectives.items())
    stop, ends = search.stop, ""
    if stop:
        ends = (
            f", fewer when the hypervolume of their front grows by at most {stop.tolerance:.2%} over "
            f"{stop.patience} trials"
        )
    yield (
        f"search: {search.sampler} for {asked}; {search.samples} points at most, in batches of "
        f"{search.batch}{ends}; {num_known} are known, later ones depend on results"
    )


def _budgets(tasks: Sequence[Task]) -> Iterator[str]:
    """Yield one line for each distinct frozen-layer budget: parameters that train, of all; for each F that is
    no network of this project that it is F as it is."""
    specs = [(task.point.spec.target, task.point.spec.data) for task in tasks]
    for name in dict.fromkeys(f.named for f, _ in specs if f.foreign):
        yield f"{name}: F as it is, nothing of it trains"
    trained_here = [(f, data) for f, data in specs if not f.foreign]
    shapes = {(f.model, f.budget, f.classes, f.defense.rolss, data): None for f, data in trained_here}
    for model, budget, classes, lacks_skips, data in shapes:
        sizes = {"classes": classes, "channels": data.channels, "image_size": data.image_size}
        frozen = counted(model, budget, last_skips=not lacks_skips, **sizes)
        trained, total = frozen.trainable / 1e6, frozen.total / 1e6
        lacking = " without its last skips" if lacks_skips else ""
        yield (
            f"budget {frozen.cut} of {model.name}{lacking}, width {model.width:g}, k={classes}: "
            f"{trained:.3f} of {total:.3f} million parameters train"
        )


def _held(tasks: Sequence[Task]) -> Iterator[str]:
    """Yield one line for each combination of parts whose private images adversaries hold."""
    counts = Counter(held_words(held_parts(task.point.spec)) for task in tasks)
    for parts, count in counts.items():
        if parts:
            yield f"held: {count} of {len(tasks)} points read images that the adversary held ({parts})"


def print_dropped(console: Console, dropped: Sequence[Dropped]) -> None:
    """Print the number of dropped combinations for each reason."""
    for reason, count in Counter(one.reason for one in dropped).items():
        console.print(f"dropped {count} combinations: {reason}", markup=False, soft_wrap=True)
