"""Runs: the sweeps that stores and MLflow have, with their settings, means and trials.

Of a store journals and reports are read, and for `diff` the artifacts that it names, so that a store of any
size lists at once; of MLflow the runs of sweeps and trials, and the report that the former keeps. No pandas.
"""

import csv
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import yaml

from orchestrator.config.base import Refused
from orchestrator.store import listing
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.journal import Journal
from orchestrator.store.listing import SweepSummary

Row = Mapping[str, str]

HALF = " +-"
"""Ends the name of the column of half a 95 % interval."""

SEEDS, STATUS = "seeds", "status"
"""First columns of a summary and of results behind the axes."""

SKILLS = ("inversion/skill_test", "class/skill", "class/over_floor")
"""Metrics that say whether an attack beats what needs none, the first that a sweep has."""

UNBEATEN = "no better than"
"""Column of yardsticks and floors that a setting does not beat."""

LETTERS = 8
"""Of a sweep's key as it is shown."""

PLACE_DIGITS = 4
"""Fewest digits of the place that names of trials began with."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with half its 95 % interval; None where there is nothing to resample."""

    value: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.value:.4g}" if self.half is None else f"{self.value:.4g} +- {self.half:.2g}"


@dataclass(frozen=True)
class Setting:
    """A row of a sweep's summary."""

    sweep: "StoredSweep"
    axes: Mapping[str, str]
    row: Row

    @property
    def name(self) -> str:
        """Axes with their values."""
        return ", ".join(f"{axis}={value}" for axis, value in self.axes.items()) or "all"

    def mean(self, metric: str) -> Mean | None:
        """Return a metric's mean; None where it was not measured."""
        value, half = _number(self.row.get(metric)), _number(self.row.get(metric + HALF))
        return None if value is None else Mean(value, half)

    @property
    def skill(self) -> tuple[str, Mean] | None:
        """The metric that says whether it beats what needs no attack, and its mean."""
        found = ((name, self.mean(name)) for name in SKILLS)
        return next(((name, mean) for name, mean in found if mean is not None), None)

    @property
    def fault(self) -> str:
        """Why it may not be called best; empty where its skill is shown to be above 0."""
        if self.skill is None:
            return "has no skill"
        _, mean = self.skill
        if mean.half is None:
            return "has no interval"
        if self.row.get(UNBEATEN):
            return f"is no better than {self.row[UNBEATEN]}"
        return "" if mean.value - mean.half > 0 else "has an interval that holds 0"


class Source(Protocol):
    """Where one sweep is read from."""

    @property
    def uri(self) -> str:
        """Of the store or of MLflow, without credentials."""

    @property
    def report(self) -> str:
        """Where the report is."""

    @property
    def note(self) -> str:
        """Which stages of a trial it names."""

    def file(self, name: str) -> bytes | None:
        """Return a file of the sweep: `report/summary.csv`, `forecast.json`; None where it has none."""

    def keys(self, trial: str | None = None) -> list[str]:
        """Return the keys of the stages of the sweep, or of the trial of that name."""

    def stages(self, keys: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return key, stage and, where it is known, code version of those of these stages that are there."""


@dataclass(frozen=True)
class StoreSource:
    """Implements `Source` for a store."""

    store: Artifacts
    key: str
    note = "stages: those that each trial ran itself, not those that it found in the store"

    @property
    def uri(self) -> str:
        """Of the store."""
        return self.store.blobs.uri

    @property
    def report(self) -> str:
        """Where the report is."""
        return f"{self.uri}/sweeps/{self.key}/report"

    def file(self, name: str) -> bytes | None:
        """Return a file of the sweep."""
        return self.store.blobs.get(f"sweeps/{self.key}/{name}")

    def keys(self, trial: str | None = None) -> list[str]:
        """Return the keys of all stages that the sweep needs, or of those that a trial ran in any start; none
        where the journal does not say which trial it is."""
        planned = list(self._of("planned"))
        if trial is None:
            return list(dict.fromkeys(key for one in planned for key in one.get("needs", ())))
        own = self._trial_key(planned, trial)
        ended = (one for one in self._of("ended") if own is not None and one.get("trial") == own)
        return list(dict.fromkeys(key for one in ended for key in one.get("built", ())))

    @staticmethod
    def _trial_key(planned: Sequence[Mapping[str, Any]], trial: str) -> str | None:
        """Return the key of a trial by its name, which in journals without names began with its place."""
        named = [one for one in planned if "names" in one]
        keys = {name: key for one in named for name, key in zip(one["names"], one["trials"], strict=True)}
        place = trial.partition("-")[0]
        if trial in keys or not (len(place) >= PLACE_DIGITS and place.isdecimal()):
            return keys.get(trial)
        older = list(
            dict.fromkeys(key for one in planned if one not in named for key in one.get("trials", ()))
        )
        return older[int(place)] if int(place) < len(older) else None

    def stages(self, keys: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return key, stage and code version of those that are published."""
        found = (one for _, one in listing.published(self.store, keys) if one)
        return [
            (one.key, one.stage, f"{one.code_version}, stage {one.stage} v{one.version}") for one in found
        ]

    def _of(self, event: str) -> Iterator[dict[str, Any]]:
        return (one for one in self._events if one["event"] == event)

    @cached_property
    def _events(self) -> list[dict[str, Any]]:
        return Journal(self.store.blobs, self.key).events()


@dataclass(frozen=True)
class StoredSweep:
    """A sweep of a store or of MLflow."""

    source: Source
    about: SweepSummary
    store: Artifacts | None = None
    """None of one that MLflow has."""

    @property
    def key(self) -> str:
        """Digest of the resolved study."""
        return self.about.key

    @property
    def label(self) -> str:
        """Study and the start of the key."""
        return f"{self.about.study} {self.key[:LETTERS]}"

    def file(self, name: str) -> str:
        """Return a file of its report, empty where it has none."""
        return (self.source.file(f"report/{name}") or b"").decode(errors="replace")

    @cached_property
    def settings(self) -> list[Setting]:
        """The rows of its summary."""
        rows = self._rows("summary.csv")
        axes = _before(rows, SEEDS)
        return [Setting(self, {axis: row[axis] for axis in axes}, row) for row in rows]

    @cached_property
    def trials(self) -> dict[str, Row]:
        """Name of a trial -> its row of the results."""
        return {row["trial"]: row for row in self._rows("results.csv") if row.get("trial")}

    @property
    def metrics(self) -> list[str]:
        """Metrics of the summary, the objective first."""
        names = self.settings[0].row if self.settings else {}
        return [name for name in names if "/" in name and not name.endswith(HALF)]

    @cached_property
    def study(self) -> dict[str, Any]:
        """The resolved study by dotted path; empty where no report is written yet."""
        return dict(_flat(self._plain_study))

    @cached_property
    def _plain_study(self) -> dict[str, Any]:
        try:
            plain = yaml.load(self.file("study.yaml") or "{}", _LOADER)
        except yaml.YAMLError:
            plain = None
        if not isinstance(plain, dict):
            raise self._broken("study.yaml", "is no mapping in YAML")
        return plain

    def _rows(self, name: str) -> list[Row]:
        try:
            lines = csv.DictReader(io.StringIO(self.file(name)), restkey="", restval="")
            return [{str(column): str(cell) for column, cell in row.items()} for row in lines]
        except csv.Error as error:
            raise self._broken(name, f"is no table ({error})") from error

    def _broken(self, name: str, rule: str) -> Refused:
        return Refused("report", f"{self.source.report}/{name}", rule, "write it again with jobs.report")

    @property
    def needs(self) -> list[str]:
        """Keys of all stages that it needs."""
        return self.source.keys()

    def built_by(self, trial: str) -> list[str]:
        """Return the keys of the stages of a trial, as `Source.note` says."""
        return self.source.keys(trial)

    def settings_of(self, trial: str) -> dict[str, Any]:
        """Return the resolved settings of a trial by dotted path; where the study does not say them, of a
        search that learns or of an older version, those of its base beside the trial's axes."""
        row = self.trials[trial]
        names = list(row)
        axes = {axis: row[axis] for axis in names[1 : names.index(STATUS)]} if STATUS in row else {}
        spec = self._specs.get(tuple(axes.items()))
        base = {path: value for path, value in self.study.items() if not path.startswith("sweep")}
        return {**base, **axes} if spec is None else dict(_flat(spec))

    @cached_property
    def _specs(self) -> dict[tuple[tuple[str, str], ...], dict[str, Any]]:
        from orchestrator.config.study import Study  # here: a listing needs none of it
        from orchestrator.sweep.points import expand
        from orchestrator.sweep.search import random_points

        try:
            study = Study.model_validate(self._plain_study)
            ways = {"grid": expand, "random": random_points}
            way = ways.get(study.search.algorithm)
            points = [] if way is None else way(study)[0]
        except ValueError:  # of another version
            return {}
        return {
            tuple((axis, str(value)) for axis, value in point.axes.items()): point.spec.model_dump(
                mode="json"
            )
            for point in points
        }

    @property
    def forecast(self) -> str | None:
        """The forecast beside what it took, in one line."""
        from orchestrator.api import forecast_record  # here: a listing needs none of it

        kept = forecast_record.parsed(self.source.file("forecast.json"))
        return None if kept is None else forecast_record.compared(kept)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def stored_sweeps(stores: Sequence[Artifacts], tracking_uris: Sequence[str] = ()) -> list[StoredSweep]:
    """Return the sweeps of all stores and of all MLflow, the latest first.

    Raise `Refused` if MLflow is not there or cannot be read.
    """
    found = [
        StoredSweep(StoreSource(store, one.key), one, store)
        for store in stores
        for one in listing.sweeps(store.blobs)
    ]
    for uri in tracking_uris:
        from orchestrator.runtime.mlflow.runs import tracked_sweeps  # here: MLflow takes seconds to import

        found += [StoredSweep(source, about) for source, about in tracked_sweeps(uri)]
    return sorted(found, key=lambda one: -one.about.last_ms)


def find_sweep(sweeps: Sequence[StoredSweep], name: str) -> StoredSweep:
    """Return the sweep whose key starts with a name, or the latest of the study of that name.

    Raise `Refused` for none, with the nearest names, or for a start of several keys.
    """
    of_study = [one for one in sweeps if one.about.study == name]
    if of_study:
        return of_study[0]
    of_key = [one for one in sweeps if len(name) > 1 and one.key.startswith(name)]
    if len({one.key for one in of_key}) == 1:
        return of_key[0]
    if of_key:
        shown = ", ".join(one.label for one in of_key[:5])
        raise Refused("sweep", name, f"begins {len(of_key)} sweeps ({shown})", "give more of the key")
    known = list(dict.fromkeys([one.about.study for one in sweeps] + [one.key[:LETTERS] for one in sweeps]))
    raise Refused("sweep", name, "is in no store given", nearest(name, known))


def of_study(sweeps: Sequence[StoredSweep], name: str) -> list[StoredSweep]:
    """Return all sweeps of the study of a name, or the one whose key starts so; raise as `find_sweep`."""
    found = find_sweep(sweeps, name)
    return [one for one in sweeps if one.about.study == name] or [
        one for one in sweeps if one.key == found.key
    ]


def find_trial(sweeps: Sequence[StoredSweep], name: str) -> tuple[StoredSweep, str]:
    """Return the sweep and the trial of SWEEP/TRIAL, by name or else by its place in results.csv, from 0.

    Raise `Refused` for an unknown one.
    """
    sweep_name, _, trial = name.partition("/")
    sweep = find_sweep(sweeps, sweep_name)
    known = list(sweep.trials)
    if trial in known:
        return sweep, trial
    if trial.isascii() and trial.isdigit() and int(trial) < len(known):
        return sweep, known[int(trial)]
    raise Refused("trial", name, f"is none of {sweep.label}", nearest(trial, known))


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the names that one is close to as a way out."""
    close = difflib.get_close_matches(name, known, 3, cutoff=0.5) or known[:3]
    return f"did you mean {' or '.join(close)}" if close else "`ls` lists what is there"


def common_axes(sweeps: Sequence[StoredSweep]) -> list[str]:
    """Return the axes that the summaries of all sweeps have."""
    first, *others = ([*one.settings[0].axes] if one.settings else [] for one in sweeps)
    return [axis for axis in first if all(axis in other for other in others)]


def side_by_side(
    sweeps: Sequence[StoredSweep], axes: Sequence[str]
) -> Iterator[tuple[Mapping[str, str], list[list[Setting]]]]:
    """Yield each combination of values of some axes with the settings of each sweep that have it."""
    places: dict[tuple[str, ...], list[list[Setting]]] = {}
    for number, sweep in enumerate(sweeps):
        for setting in sweep.settings:
            place = tuple(setting.axes[axis] for axis in axes)
            places.setdefault(place, [[] for _ in sweeps])[number].append(setting)
    for place, found in places.items():
        yield dict(zip(axes, place, strict=True)), found


def _before(rows: Sequence[Row], end: str) -> list[str]:
    names = list(rows[0]) if rows else []
    return names[: names.index(end)] if end in names else []


def _number(text: str | None) -> float | None:
    """Return a cell as a number; None for an empty one or NaN."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return None if value != value else value


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every leaf; a list is one."""
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _flat(one, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
