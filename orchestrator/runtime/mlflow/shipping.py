"""MLflow client of a sweep: one parent run, one child run per trial.

Every call may be repeated after a crash at any moment and then changes nothing: runs are found by their tags
before they are created, times are fixed, files have fixed names. A run's `inversion.digest` is written last
and marks the run as whole. Importing this module takes seconds, because MLflow does.
"""

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.version import VERSION

from orchestrator.runtime.mlflow import encoding, registry, views
from orchestrator.runtime.mlflow.database import PROXIED, folder_of, prepare, sqlite_path, write_files
from orchestrator.sweep.records import SweepRecord, SweepReport, TrialRecord

logger = logging.getLogger(__name__)

STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
TERMINAL = ("FINISHED", "FAILED", "KILLED")
DIGEST, KIND, SWEEP, TRIAL, LINKS = (
    f"inversion.{name}" for name in ("digest", "kind", "sweep", "trial", "links")
)
ALIVE = "inversion.alive_ms"  # last sign of life of the sweep's process, Unix milliseconds
DEAD_MS = 300_000  # a sweep silent for longer has no process any more
PARENT = "mlflow.parentRunId"
PAGE = 1000  # runs per search


def is_permanent(error: Exception) -> bool:
    """Return whether MLflow understood the call and refuses it, so that repeating it is no use."""
    if not isinstance(error, MlflowException):
        return not isinstance(error, OSError)  # requests' errors are OSErrors
    return 400 <= error.get_http_status_code() < 500 and error.get_http_status_code() not in (408, 429)


class OpenSweep:
    """A sweep's parent run and the known state of its children; opened again after every failed call.

    Raise `Refused` if the database behind a sqlite URI cannot hold it.
    """

    def __init__(self, tracking_uri: str, sweep: SweepRecord) -> None:
        _quieten()
        self.uri = tracking_uri
        self.database = sqlite_path(tracking_uri) if tracking_uri.startswith("sqlite:") else None
        if self.database is not None:
            prepare(self.database)
        self.client = MlflowClient(tracking_uri=tracking_uri)
        self.sweep = sweep
        self.experiment_id = _experiment(self.client, sweep.study, is_server=self.database is None)
        self.parent = self._open_parent()
        self.beat()
        self._close_dead()
        self.children = self._list_children()

    def ship(self, trial: TrialRecord) -> None:
        """Upload one trial; one that MLflow already holds costs no call."""
        digest = encoding.digest(trial)
        known = self.children.get(trial.key)
        if known is not None and known.digest == digest:
            return
        child = self._child(trial)
        self._fill(child, trial)
        run_id, ended_ms = child.info.run_id, encoding.ended_ms(trial, child.info.start_time)
        self.client.set_terminated(run_id, STATUS[trial.status], ended_ms)
        self.client.set_tag(run_id, DIGEST, digest)
        self.children[trial.key] = Child(run_id, digest, pictured=child.data.tags.get(views.PICTURED))

    def finish(self, report: SweepReport, trials: Sequence[TrialRecord]) -> None:
        """Upload the report, write the saved views, close the parent run, register models."""
        run_id = self.parent.info.run_id
        digest = encoding.report_digest(report, trials)
        if self.parent.data.tags.get(DIGEST) != digest:
            known = self.parent.data.metrics
            news = {
                name: value
                for name, value in _sweep_metrics(self.sweep, report).items()
                if known.get(name) != value
            }
            metrics = [Metric(encoding.key(name), value, report.ended_ms, 0) for name, value in news.items()]
            maps = encoding.map_files(report, run_id, self.parent.info.start_time)
            self._upload(self.parent, encoding.report_files(self.sweep, report, trials) | maps)
            self._mark_pictures(trials)
            links = self._views(report, trials)
            tags = {
                LINKS: json.dumps(links),
                "mlflow.note.content": f"{views.links_note(links)}\n\n{report.note}",
                "mlflow.loggedArtifacts": json.dumps([{"path": "tables/trials.json", "type": "table"}]),
            }
            if maps:
                tags["mlflow.loggedImages"] = "True"
            self.client.log_batch(run_id, metrics=metrics, tags=_run_tags(tags))
        ended_ms = max(report.ended_ms, self.parent.info.start_time) if report.ended_ms else None
        self.client.set_terminated(run_id, "FAILED" if report.num_failed else "FINISHED", ended_ms)
        if self.parent.data.tags.get(DIGEST) != digest:  # last: a registry that refuses leaves a closed sweep
            runs = {key: child.run_id for key, child in self.children.items()}
            registry.register(self.uri, self.sweep, report.models, runs, self._upload)
        self.client.set_tag(run_id, DIGEST, digest)
        self.parent = self.client.get_run(run_id)

    def beat(self) -> None:
        """Mark the sweep's process as alive now."""
        self.client.set_tag(self.parent.info.run_id, ALIVE, str(time.time_ns() // 1_000_000))

    def kill(self) -> None:
        """Mark the sweep as stopped by its user."""
        self.client.set_terminated(self.parent.info.run_id, "KILLED")

    def links(self) -> dict[str, str]:
        """Return label -> the part of an address after the server."""
        links: dict[str, str] = json.loads(self.parent.data.tags.get(LINKS, "{}"))
        return links

    def _views(self, report: SweepReport, trials: Sequence[TrialRecord]) -> dict[str, str]:
        """Write the saved views, which MLflow may refuse, and delete the oldest; return the links."""
        others = [axis for axis in self.sweep.axes if axis not in self.sweep.replicates]
        shown = views.Shown(
            metrics=sorted({encoding.key(name) for trial in trials for name in trial.metrics}),
            curves=sorted({encoding.key(curve.name) for trial in trials for curve in trial.curves}),
            images=sorted({encoding.key(name) for trial in trials for name in trial.images}),
            maps=sorted(map(encoding.key, encoding.heat_maps(report))),
            num_settings=len({tuple(str(trial.axes.get(axis)) for axis in others) for trial in trials}),
        )
        saved = views.views(self.sweep, shown)
        if not VERSION.startswith(views.KNOWN_VERSIONS):
            logger.warning("event=views_untested known=%s mlflow=%s", views.KNOWN_VERSIONS[-1], VERSION)
        tags = dict(view.tag(self.sweep.started_ms) for view in saved)
        try:
            known = self.client.get_experiment(self.experiment_id).tags
            for name in views.outdated(known, tags, self.sweep.study):
                self.client.delete_experiment_tag(self.experiment_id, name)
            for name, value in tags.items():
                self.client.set_experiment_tag(self.experiment_id, name, value)
        except MlflowException as error:
            logger.warning("event=views_not_written reason=%r", str(error).splitlines()[0])
        return views.fragments(self.sweep, self.experiment_id, self.parent.info.run_id, saved)

    def _mark_pictures(self, trials: Sequence[TrialRecord]) -> None:
        """Tag the trials that the view of pictures begins with, and no others."""
        wanted = views.pictured(self.sweep, trials)
        for key, child in self.children.items():
            if key in wanted and child.pictured != wanted[key]:
                self.client.set_tag(child.run_id, views.PICTURED, wanted[key])
            elif child.pictured is not None and key not in wanted:
                self.client.delete_tag(child.run_id, views.PICTURED)

    def _open_parent(self) -> Run:
        sweep, name = self.sweep, encoding.sweep_name(self.sweep)
        tags, marks = {SWEEP: sweep.key, KIND: "sweep"}, encoding.sweep_tags(sweep)
        about = {"mlflow.note.content": sweep.about}
        parent = self._find_or_create(tags, name, sweep.started_ms, extra=marks | about)
        run_id, known = parent.info.run_id, parent.data
        if parent.info.status != "RUNNING" or parent.info.run_name != name:
            self.client.update_run(run_id, status="RUNNING", name=name)
        news = {mark: value for mark, value in marks.items() if known.tags.get(mark) != value}
        params = {n: value for n, value in encoding.sweep_params(sweep).items() if n not in known.params}
        if news:
            self.client.log_batch(run_id, tags=_run_tags(news))
        for entries in _batches([Param(n, value) for n, value in params.items()], 100):
            self.client.log_batch(run_id, params=entries)
        return parent

    def _close_dead(self) -> None:
        """Mark sweeps whose process died silently as killed; their own next start opens them again."""
        everywhere = [one.experiment_id for one in self.client.search_experiments()]
        text = f"attributes.status = 'RUNNING' and tags.`{KIND}` = 'sweep'"
        now = time.time_ns() // 1_000_000
        for run in self.client.search_runs(everywhere, text, max_results=PAGE):
            seen = int(run.data.tags.get(ALIVE, run.info.start_time))
            if run.info.run_id != self.parent.info.run_id and now - seen > DEAD_MS:
                logger.info(
                    "event=sweep_closed run=%s silent_seconds=%d", run.info.run_id, (now - seen) // 1000
                )
                self.client.set_terminated(run.info.run_id, "KILLED", seen)

    def _list_children(self) -> dict[str, "Child"]:
        """Return trial key -> its one child run; ghosts are deleted, strays of an earlier parent adopted."""
        found: dict[str, list[Child]] = {}
        for run in self._search({SWEEP: self.sweep.key, KIND: "trial"}):
            found.setdefault(run.data.tags.get(TRIAL, ""), []).append(Child.of(run))
        children = {key: self._keep_first(runs) for key, runs in found.items()}
        for child in children.values():
            if child.parent != self.parent.info.run_id:
                self.client.set_tag(child.run_id, PARENT, self.parent.info.run_id)
        return children

    def _child(self, trial: TrialRecord) -> Run:
        """Return the trial's run, created or found; one that holds other numbers is replaced."""
        tags = {SWEEP: self.sweep.key, KIND: "trial", TRIAL: trial.key}
        known = self.children.get(trial.key)
        child = None if known is None else self.client.get_run(known.run_id)
        if child is not None and not _agrees(child, trial):
            self.client.delete_run(child.info.run_id)
            child = None
        if child is None:
            parent = {PARENT: self.parent.info.run_id}
            child = self._find_or_create(tags, trial.name, trial.started_ms, extra=parent)
        return child

    def _fill(self, child: Run, trial: TrialRecord) -> None:
        run_id, base_ms = child.info.run_id, child.info.start_time
        if child.info.run_name != trial.name:
            self.client.update_run(run_id, name=trial.name)
        for name in encoding.stale_tags(trial, child.data.tags):
            self.client.delete_tag(run_id, name)
        params = [Param(name, value) for name, value in encoding.params(trial).items()]
        metrics = [Metric(*point) for point in encoding.points(trial, base_ms)]
        for entries in _batches(params, 100):
            self.client.log_batch(run_id, params=entries)
        for points in _batches(metrics, 1000):
            self.client.log_batch(run_id, metrics=points)
        for marks in _batches(_run_tags(encoding.tags(trial)), 100):
            self.client.log_batch(run_id, tags=marks)
        if trial.datasets:
            self.client.log_inputs(
                run_id,
                datasets=[
                    _dataset_input(data.context, encoding.dataset_fields(data)) for data in trial.datasets
                ],
            )
        self._upload(child, encoding.picture_files(trial, run_id, base_ms))

    def _upload(self, run: Run, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        if self.database is not None and (here := folder_of(self.database, run.info.artifact_uri)):
            write_files(here, files)  # MLflow's client would ask a server to
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self.client.log_artifacts(run.info.run_id, folder)

    def _find_or_create(
        self, tags: Mapping[str, str], name: str, started_ms: int, *, extra: Mapping[str, str]
    ) -> Run:
        """Find, create, find again: a response lost on the way may have left a second run."""
        if not (found := {run.info.run_id: run for run in self._search(tags)}):
            self.client.create_run(
                self.experiment_id, start_time=started_ms or None, tags={**tags, **extra}, run_name=name
            )
            found = {run.info.run_id: run for run in self._search(tags)}
        return found[self._keep_first(map(Child.of, found.values())).run_id]

    def _keep_first(self, runs: "Iterable[Child]") -> "Child":
        """Return the oldest run and delete its ghosts: later runs with the same tags."""
        first, *ghosts = sorted(runs, key=lambda run: (run.started_ms, run.run_id))
        for ghost in ghosts:
            logger.info("event=ghost_deleted run=%s kept=%s", ghost.run_id, first.run_id)
            self.client.delete_run(ghost.run_id)
        return first

    def _search(self, tags: Mapping[str, str]) -> Iterator[Run]:
        """Yield the runs with these tags, a page in memory at a time."""
        text = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs(
                [self.experiment_id], text, ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token or None
            )
            yield from page
            token = page.token or None


@dataclass(frozen=True)
class Child:
    """What is remembered of a run: of ten thousand trials, their whole runs would fill the memory."""

    run_id: str
    digest: str | None = None  # of the record that it holds, None unless it is whole
    parent: str = ""
    started_ms: int = 0
    pictured: str | None = None  # its place in the view of pictures

    @staticmethod
    def of(run: Run) -> "Child":
        """Return it of a run that was read."""
        tags, info = run.data.tags, run.info
        digest = tags.get(DIGEST) if info.status in TERMINAL else None
        pictured = tags.get(views.PICTURED)
        return Child(info.run_id, digest, tags.get(PARENT, ""), info.start_time, pictured)


def _experiment(client: MlflowClient, study: str, *, is_server: bool) -> str:
    """Return the id of the study's experiment, created or found; a server decides where its files are."""
    found = client.get_experiment_by_name(study)
    if found is None:
        location = None if is_server else f"{PROXIED}{encoding.key(study)}"
        try:
            return str(client.create_experiment(study, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(study)
            if found is None:
                raise
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        logger.warning("event=experiment_restored experiment=%s", study)
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _agrees(child: Run, trial: TrialRecord) -> bool:
    """Return whether the child shows nothing but the record's values: MLflow cannot take a number back."""
    params, metrics = encoding.params(trial), encoding.latest(trial, child.info.start_time)
    return all(params.get(name) == value for name, value in child.data.params.items()) and all(
        _same(metrics.get(name), value) for name, value in child.data.metrics.items()
    )


def _same(ours: float | None, theirs: float) -> bool:
    if ours is None:
        return False
    if math.isinf(ours):
        return (
            math.copysign(1.0, ours) == math.copysign(1.0, theirs) and abs(theirs) > 1e308
        )  # how SQL stores it
    return ours == theirs or (math.isnan(ours) and math.isnan(theirs))


def _sweep_metrics(sweep: SweepRecord, report: SweepReport) -> dict[str, float]:
    counts = {"points": float(sweep.num_points), "dropped": float(sweep.num_dropped), **report.metrics}
    return {f"sweep/{name.removeprefix('sweep/')}": float(value) for name, value in counts.items()}


def _dataset_input(context: str, fields: Mapping[str, str]) -> DatasetInput:
    return DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", context)])


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value[: encoding.MAX_TAG]) for name, value in tags.items()]


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _quieten() -> None:
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent", "mlflow.utils.git_utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
