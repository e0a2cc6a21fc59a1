"""Record of a forecast: what a sweep was expected to take when it began, and what it took.

`sweeps/KEY/forecast.json` is written before the first stage runs, and again at the end with what they took.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.api.forecast import Forecast
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.journal import Journal, now_ms
from orchestrator.store.listing import published
from orchestrator.sweep.rates import seconds_of
from orchestrator.sweep.records import StageCounts, SweepReport, TrialRecord
from orchestrator.sweep.trial import Task

logger = logging.getLogger(__name__)


def file_of(sweep: str) -> str:
    """Return the blob that holds the forecast of a sweep."""
    return f"sweeps/{sweep}/forecast.json"


def read(blobs: Blobs, sweep: str) -> dict[str, Any] | None:
    """Return what `ForecastListener` keeps of a sweep; None where it has none, or none that can be read.

    `made_ms`, `trials`, `forecast` as of `Forecast.plain`, and at the end `actual`: key -> seconds of the
    stages of the forecast that were run since.
    """
    return parsed(blobs.get(file_of(sweep)))


def parsed(data: bytes | None) -> dict[str, Any] | None:
    """Return what is in the file, as `read` does."""
    try:
        kept = json.loads(data) if data else None
    except ValueError:
        return None
    return kept if isinstance(kept, dict) and isinstance(kept.get("forecast"), dict) else None


class ForecastListener:
    """Implements `Listener`: keeps the forecast of a sweep's first batch and compares it with the end.

    No error of the forecast stops a sweep: it is logged, and the sweep has no forecast then.
    """

    def __init__(
        self, store: Artifacts, sweep: str, journal: Journal, make: Callable[[Sequence[Task]], Forecast]
    ) -> None:
        self._store, self._sweep, self._journal, self._make = store, sweep, journal, make
        self._kept: dict[str, Any] | None = None

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Forecast what is missing of the first batch that misses any."""
        try:
            self._forecast(tasks, num_missing)
        except Exception:
            logger.warning("no forecast is kept of this sweep", exc_info=True)

    def _forecast(self, tasks: Sequence[Task], num_missing: int) -> None:
        if self._kept is None:
            self._kept = read(self._store.blobs, self._sweep)
        if self._kept is None and num_missing:
            about = self._make(tasks).plain()
            self._kept = {"made_ms": now_ms(), "trials": len(tasks), "forecast": about}
            self._write(self._kept)

    def started(self, task: Task) -> None:
        """A trial runs."""

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """A trial was adopted or ended; the journal has what it ran."""

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Keep what was run since the forecast, and return both in one line."""
        try:
            return self._compared(stages)
        except Exception:
            logger.warning("the forecast is not compared with what the stages took", exc_info=True)
            return []

    def _compared(self, stages: StageCounts) -> list[str]:
        if self._kept is None:
            return []
        if "actual" not in self._kept or any(entry.get("run") for entry in stages.values()):
            self._kept["actual"] = self._actual(self._kept)
            self._write(self._kept)
        return [line] if (line := compared(self._kept)) else []

    def _actual(self, kept: Mapping[str, Any]) -> dict[str, float]:
        """Return what the stages of the forecast took that were run since: others are of later batches."""
        since = (event for event in self._journal.events() if event["time_ms"] >= kept["made_ms"])
        built = {key for event in since if event["event"] == "ended" for key in event.get("built", ())}
        keys = [key for key in kept["forecast"].get("missing", ()) if key in built]
        return {key: round(seconds_of(one), 3) for key, one in published(self._store, keys) if one}

    def _write(self, kept: Mapping[str, Any]) -> None:
        self._store.blobs.put(file_of(self._sweep), json.dumps(kept, sort_keys=True).encode())


def compared(kept: Mapping[str, Any]) -> str | None:
    """Return in one line the forecast of the stages that were run since beside what they took; None where no
    such stage had a forecast.

    Kinds of stages without a forecast are named: no number stood for them.
    """
    actual, about = kept.get("actual") or {}, kept["forecast"]
    known = {key: one for key, one in about.get("missing", {}).items() if one}
    run = [one for key, one in known.items() if key in actual]
    expected, low, high = (sum(one[part] for one in run) for part in ("seconds", "low", "high"))
    if not expected:
        return None
    spent = sum(actual[key] for key in known if key in actual)
    unknown = [row["stage"] for row in about["stages"] if row["unknown"]]
    rest = f"; without a forecast: {', '.join(unknown)}" if unknown else ""
    words = f"forecast: {expected:,.0f} ({low:,.0f}..{high:,.0f}) seconds, actual {spent:,.0f}"
    return f"{words}, a factor of {spent / expected:.2f}, {len(run):,} of {len(known):,} stages run{rest}"
