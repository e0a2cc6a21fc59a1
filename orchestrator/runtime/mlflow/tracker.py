"""MLflow tracker: records are queued and shipped by one background thread, so a sweep never waits for MLflow.

MLflow is a view of the store. An outage is waited out; running the same command again ships the records that
are still queued when the sweep ends: every record is queued again, and what MLflow already holds is skipped.
"""

import importlib
import logging
import random
import shlex
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from orchestrator.config.base import Refused
from orchestrator.config.installation import ROOT, called
from orchestrator.runtime.http import redact
from orchestrator.runtime.mlflow.check import LOCAL_NAME, set_environment
from orchestrator.runtime.mlflow.database import sqlite_path
from orchestrator.sweep.records import StageCounts, SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.trial import Task

if TYPE_CHECKING:
    from orchestrator.runtime.mlflow.shipping import OpenSweep

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0  # how long `finish` waits without a single record arriving
MAX_PAUSE_SECONDS = 30.0  # between two tries while the sweep runs; 2 once it has ended
BEAT_SECONDS = 60.0  # between two signs of life
MAX_REFUSALS = 3  # a record that MLflow understands and refuses this often is left out
CLOSE_SECONDS = 0.9  # what an interrupted sweep spends on marking its run in MLflow
LOCAL_UI = f"http://{LOCAL_NAME}:5000"


class MlflowTracker:
    """Implements `Tracker`: ships one sweep to `tracking_uri`, a server or a SQLite file."""

    def __init__(self, tracking_uri: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._uri = tracking_uri
        self._patience = patience_seconds
        self._waiting: deque[TrialRecord | SweepReport] = deque()
        self._trials: dict[str, TrialRecord] = {}  # in the order they first ended
        self._changed = threading.Condition()
        self._ending = threading.Event()  # cuts pauses short
        self._stopped = False
        self._refused: list[str] = []  # records that are left out, with the reason
        self._unusable = ""  # why MLflow takes no record of this sweep at all
        self._sweep: SweepRecord | None = None
        self._opened: OpenSweep | None = None
        self._beat_at = time.monotonic()

    def open(self, sweep: SweepRecord) -> None:
        """Begin shipping in the background; the parent run appears as soon as MLflow answers."""
        set_environment()
        self._sweep = sweep
        threading.Thread(target=self._ship_all, name="mlflow-shipper", daemon=True).start()

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Ship nothing: only ended trials have runs."""

    def started(self, task: Task) -> None:
        """Ship nothing: only ended trials have runs."""

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """Queue one ended trial."""
        with self._changed:
            self._trials[record.key] = record
            self._waiting.append(record)
            self._changed.notify_all()

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Wait while records arrive, close the parent run, return links or what is still waiting."""
        with self._changed:
            self._waiting.append(report)
            self._ending.set()
            self._changed.notify_all()
            self._wait_until_shipped()
            self._stopped = True
            self._changed.notify_all()
        lines = [f"MLflow refused {text}" for text in self._refused]
        if self._waiting:
            missing = f"{len(self._waiting)} of {len(self._trials) + 1} records"
            way_out = "running the same command again sends them."
            if self._unusable:
                reason = self._unusable.rstrip(".")
                way_out = f"it says: {reason}. After that is corrected the same command sends them."
            return [*lines, f"MLflow at {redact(self._uri)} did not take {missing}; {way_out}"]
        return lines + self._where_to_look()

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has every record, known once the sweep is finished."""
        return not (self._waiting or self._refused)

    def interrupted(self) -> None:
        """Mark the parent run as killed if MLflow answers at once; the rest is sent by the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._ending.set()
        closing = threading.Thread(target=self._kill, name="mlflow-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _kill(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._opened is None and time.monotonic() < deadline:
            time.sleep(0.02)  # the shipper may be about to open the sweep, which marks it as running
        try:
            if self._opened is not None:
                self._opened.kill()
        except Exception as error:
            logger.warning("event=tracking_not_closed reason=%r", _first_line(error))

    def _wait_until_shipped(self) -> None:
        """Return once nothing waits, or nothing has moved for `patience_seconds`."""
        last, since = len(self._waiting), time.monotonic()
        while self._waiting and not self._stopped:
            self._changed.wait(timeout=1.0)
            now = time.monotonic()
            if len(self._waiting) != last:
                last, since = len(self._waiting), now
            elif now - since > self._patience:
                return
            if int(now - since) % 10 == 5:
                logger.info("event=tracking_waits records=%d uri=%s", last, redact(self._uri))

    def _ship_all(self) -> None:
        # MLflow's import takes seconds: off the main thread.
        shipping = importlib.import_module("orchestrator.runtime.mlflow.shipping")
        self._try(shipping, None)
        while True:
            with self._changed:
                if not self._waiting and not self._stopped:
                    self._changed.wait(BEAT_SECONDS)
                if self._stopped:
                    return
                item = self._waiting[0] if self._waiting else None
            self._try(shipping, item)  # None: nothing to ship for a while, so only mark the sweep as alive
            with self._changed:
                if item is not None and not self._stopped:
                    self._waiting.popleft()
                self._changed.notify_all()

    def _try(self, shipping: ModuleType, item: TrialRecord | SweepReport | None) -> None:
        """Deliver one record, repeating until MLflow takes it; None only opens the sweep."""
        refusals, pause = 0, 0.5
        while not self._stopped:
            try:
                self._deliver(shipping, item)
                return
            except Exception as error:  # any of MLflow: the shipper outlives it, the store has the numbers
                is_open, self._opened = self._opened is not None, None
                refusals += int(shipping.is_permanent(error))
                if refusals >= MAX_REFUSALS or isinstance(error, Refused):
                    self._refuse(item if is_open else None, error)
                    return
                logger.warning("event=tracking_retried seconds=%.1f reason=%r", pause, _first_line(error))
            limit = 2.0 if self._ending.is_set() else MAX_PAUSE_SECONDS
            self._pause(min(pause, limit) * random.uniform(0.5, 1.0))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _deliver(self, shipping: ModuleType, item: TrialRecord | SweepReport | None) -> None:
        if self._opened is None:
            self._opened = shipping.OpenSweep(self._uri, self._sweep)
        if isinstance(item, TrialRecord):
            self._opened.ship(item)
        elif isinstance(item, SweepReport):
            self._opened.finish(item, list(self._trials.values()))
        if not isinstance(item, SweepReport):
            self._beat(self._opened)

    def _beat(self, sweep: "OpenSweep") -> None:
        """Mark the sweep as alive every `BEAT_SECONDS`."""
        if time.monotonic() - self._beat_at >= BEAT_SECONDS:
            sweep.beat()
            self._beat_at = time.monotonic()

    def _pause(self, seconds: float) -> None:
        """Sleep; the end of the sweep wakes it."""
        if self._ending.is_set():
            time.sleep(min(seconds, 2.0))
        else:
            self._ending.wait(seconds)

    def _refuse(self, item: TrialRecord | SweepReport | None, error: Exception) -> None:
        """Leave a record out, or all of them where the sweep itself cannot be opened."""
        if item is None:
            with self._changed:
                self._unusable, self._stopped = _first_line(error), True
                self._changed.notify_all()
            logger.error("event=tracking_refused uri=%s reason=%r", redact(self._uri), _first_line(error))
            return
        name = item.name if isinstance(item, TrialRecord) else "the report"
        self._refused.append(f"{name}: {_first_line(error)}")
        logger.error("event=record_refused record=%r reason=%r", name, _first_line(error))

    def _where_to_look(self) -> list[str]:
        if self._opened is None:
            return []
        is_local = self._uri.startswith("sqlite:")
        base = LOCAL_UI if is_local else redact(self._uri).rstrip("/")
        lines = [f"MLflow: start it with `{self._ui_command()}`, then open"] if is_local else ["MLflow:"]
        return lines + [f"  {label:9} {base}{link}" for label, link in self._opened.links().items()]

    def _ui_command(self) -> str:
        path, words = sqlite_path(self._uri), called("ui")
        if path == Path("runs/mlflow.db"):
            return "make ui" if Path.cwd() == ROOT else shlex.join(words)
        if path.name == "mlflow.db":
            return shlex.join([*words, "--runs", str(path.parent)])
        return shlex.join([*words, "--tracking-uri", self._uri])


def _first_line(error: Exception) -> str:
    return redact((str(error).splitlines() or [type(error).__name__])[0])[:300]
