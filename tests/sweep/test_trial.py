"""A sweep's books: what is stored is adopted, what is damaged is rebuilt, what fails fails alone."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.datasets import Location
from orchestrator.report.tables import csv, results_table
from orchestrator.runtime.search import search_points
from orchestrator.stages.graph import Stage, StageFailed, plan
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.leases import LocalLeases
from orchestrator.sweep.local import LocalExecutor, LocalLauncher
from orchestrator.sweep.points import Point
from orchestrator.sweep.records import DatasetInput, SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.trial import (
    REBUILDS,
    Collector,
    Edges,
    FixedPoints,
    Outcome,
    Points,
    Report,
    Source,
    Task,
    run_trial,
)
from orchestrator.sweep.validation import Preflight
from tests import tiny


class Books:
    """A tracker and watcher that remember what they were told."""

    def __init__(self) -> None:
        self.told: list[TrialRecord] = []
        self.missing: list[int] = []
        self.running: list[str] = []

    def start(self, sweep: SweepRecord) -> None:
        """Nothing to open."""

    def record(self, trial: TrialRecord) -> None:
        """Remember a trial."""
        self.told.append(trial)

    def finish(self, report: SweepReport) -> list[str]:
        """Nothing to close."""
        return []

    def interrupted(self) -> None:
        """Nothing to close."""

    def planned(self, tasks: Sequence[Task], missing: int) -> None:
        """Remember how many stages are not stored."""
        self.missing.append(missing)

    def started(self, task: Task) -> None:
        """Remember that a trial runs."""
        self.running.append(task.point.name)

    def ended(self, record: TrialRecord, built: Sequence[str]) -> None:
        """Nothing to show."""


@dataclass
class Sweep:
    """One start of a sweep over a store, in this process."""

    study: Study
    folder: Path
    books: Books = field(default_factory=Books)

    def __post_init__(self) -> None:
        self.store = Artifacts(DirectoryBlobs(self.folder))
        self.journal = Journal(self.store.blobs, self.study.key)
        preflight = Preflight(Location())
        search, _, _ = search_points(self.study, preflight)
        sources = {
            name: DatasetInput(name, about.digest, about.source, "", about.num_images, about.num_classes)
            for name, about in preflight.descriptions.items()
        }
        self.source = Source(
            search,
            lambda point: plan(point.spec, preflight.digests, tiny.PROFILE),
            Collector(self.store, sources.__getitem__),
            self.books,
            self.journal,
            self.books,
        )
        launcher = LocalLauncher(self.store, Location(), 60.0)
        self.edges = Edges(self.store, LocalLeases(), launcher, "this-test")

    def run(self) -> "Sweep":
        """Run everything that is not stored."""
        if self.source.has_work():
            LocalExecutor(self.edges).run(self.source)
        self.journal.close()
        return self

    @property
    def table(self) -> str:
        """The results as CSV."""
        return csv(results_table(self.source.records)).decode()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the journal's events of one kind."""
        return [event for event in self.journal.events() if event["event"] == name]


TWO = tiny.study({"auxiliary.kind": ["same-train", "generic"]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Return the undisturbed sweep of two points."""
    return Sweep(TWO, tmp_path_factory.mktemp("finished")).run()


def test_each_distinct_stage_is_built_once(finished: Sweep) -> None:
    assert finished.books.missing == [4 + 2 * 3]  # predictions, inversion and evaluation differ
    counts = finished.source.stage_counts()
    assert {name: count["run"] for name, count in counts.items()} == {
        "pretrain": 1,
        "target": 1,
        "judge": 1,
        "predictions": 2,
        "victims": 1,
        "inversion": 2,
        "evaluation": 2,
    }
    assert all(count["reused"] == 0 for count in counts.values())
    assert len(finished.store.keys()) == 10
    built = [key for event in finished.events("ended") for key in event["built"]]
    assert len(built) == len(set(built)) == 10


def test_records_hold_what_is_known_of_a_trial(finished: Sweep) -> None:
    first, second = finished.books.told
    assert (first.name, first.index, first.status) == ("0000-same-train", 0, "finished")
    assert dict(first.axes) == {"auxiliary": "same-train"}
    assert first.params["target.recipe.epochs"] == 1
    assert first.params["target.pretrain.dataset"] == "none"
    assert {curve.name for curve in first.curves} >= {
        "pretrain/train_loss",
        "target/validation_accuracy",
        "judge/validation_loss",
        "inversion/validation_loss",
    }
    assert all([step for step, _ in curve.values] == [1] for curve in first.curves)
    assert set(first.images) == {"grid_train", "grid_test"}
    assert all(image.startswith(b"\x89PNG") for image in first.images.values())
    assert [(one.name, one.context, one.num_classes) for one in first.datasets] == [("digits", "private", 10)]
    assert first.costs["cost/images_seen"] > 0
    assert first.started_ms <= first.ended_ms
    assert first.stage_keys["target"] == second.stage_keys["target"]


def test_starting_again_adopts_everything_and_runs_nothing(finished: Sweep) -> None:
    again = Sweep(TWO, finished.folder)
    assert again.source.has_work() is False
    assert again.source.ask() == []
    assert again.books.running == []
    assert again.books.missing == [0]
    assert again.table == finished.table
    assert again.books.told == finished.books.told  # to the millisecond: a tracker changes nothing
    assert sum(count["run"] for count in again.source.stage_counts().values()) == 0
    again.journal.close()


def test_a_store_that_answers_slowly_is_asked_many_things_at_once(
    finished: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Sweep(TWO, finished.folder)
    get, asking, most, lock = again.store.blobs.get, 0, 0, threading.Lock()

    def slow_get(name: str) -> bytes | None:
        nonlocal asking, most
        with lock:
            asking += 1
            most = max(most, asking)
        time.sleep(0.05)
        with lock:
            asking -= 1
        return get(name)

    monkeypatch.setattr(again.store.blobs, "get", slow_get)
    assert again.source.has_work() is False
    assert most == len(finished.store.keys())  # all manifests
    assert again.books.told == finished.books.told  # in the same order
    again.journal.close()


def test_a_larger_study_runs_only_what_is_new(finished: Sweep, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    larger = tiny.study({"auxiliary.kind": ["same-train", "generic"], "release.truncation": [1, 2]})
    sweep = Sweep(larger, tmp_path / "store").run()
    assert sweep.books.running == ["0001-same-train-m002", "0003-generic-m002"]
    run = {name: count["run"] for name, count in sweep.source.stage_counts().items() if count["run"]}
    assert run == {"inversion": 2, "evaluation": 2}


def test_a_damaged_model_is_set_aside_and_built_again(
    finished: Sweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    part = Sweep(tiny.study({"auxiliary.kind": ["same-train"]}), folder).run()
    target = part.source.records[0].stage_keys["target"]
    flip(folder, target, "model.safetensors")
    with caplog.at_level(logging.WARNING):
        sweep = Sweep(TWO, folder).run()
    assert sweep.table == finished.table
    assert "event=artifact_quarantined" in caplog.text
    assert "event=input_damaged stage=predictions action=rebuild" in caplog.text
    assert len(list((folder / "quarantine" / target).iterdir())) == 1
    assert sweep.source.stage_counts()["target"] == {"run": 1, "reused": 0}
    assert not (folder / "conflicts").exists()  # the same bytes again


@pytest.mark.parametrize(("stage", "file"), [("target", "curves.json"), ("evaluation", "grid_test.png")])
def test_damage_that_adopting_finds_is_built_again(
    finished: Sweep, tmp_path: Path, stage: str, file: str
) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    flip(tmp_path / "store", finished.source.records[0].stage_keys[stage], file)
    sweep = Sweep(TWO, tmp_path / "store").run()
    assert sweep.table == finished.table
    assert sweep.source.stage_counts()[stage]["run"] == 1
    assert [sorted(record.images) for record in sweep.source.records] == [["grid_test", "grid_train"]] * 2
    curves = {record.name: len(record.curves) for record in sweep.source.records}
    assert curves == {record.name: len(record.curves) for record in finished.source.records}


def test_a_damaged_manifest_counts_as_absent(finished: Sweep, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    key = finished.source.records[0].stage_keys["inversion"]
    manifest = tmp_path / "store" / "artifacts" / key[:2] / key / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{}")
    sweep = Sweep(TWO, tmp_path / "store").run()
    assert sweep.table == finished.table
    assert sweep.source.built == {key}


def test_a_failing_stage_fails_its_trial_alone(tmp_path: Path) -> None:
    study = tiny.study({"attack.recipe.validation_fraction": [0.999, 0.1], "release.truncation": [1, 2]})
    sweep = Sweep(study, tmp_path).run()
    assert [record.status for record in sweep.source.records] == ["failed", "failed", "finished", "finished"]
    for record in sweep.source.records[:2]:
        assert record.failed_stage == "inversion"
        assert record.error == (
            "ValueError: 0 images are left to train on 1 workers after holding out 64 of 64; "
            "at least 2 are needed: give more images or lower recipe.validation_fraction."
        )
        assert record.metrics["target/accuracy"] > 0  # what was reached is known
        assert record.images == {}
    assert [(event["status"], event["stage"]) for event in sweep.events("ended")][:2] == [
        ("failed", "inversion")
    ] * 2
    again = Sweep(study, tmp_path).run()
    assert again.books.running == [
        record.name for record in sweep.source.records[:2]
    ]  # failures are tried again
    assert again.table == sweep.table


def test_an_error_that_would_repeat_is_not_paid_for_twice(tmp_path: Path) -> None:
    study = tiny.study(
        {"auxiliary.kind": ["same-train", "generic"]}, {"target.recipe.validation_fraction": 0.999}
    )
    sweep = Sweep(study, tmp_path)
    sweep.run()
    assert [(record.failed_stage, record.status) for record in sweep.source.records] == [
        ("target", "failed")
    ] * 2
    assert isinstance(sweep.edges.launcher, LocalLauncher)
    assert len(sweep.edges.launcher.failures) == 1


def test_a_pruned_trial_is_remembered(finished: Sweep, tmp_path: Path) -> None:
    study = tiny.study({"attack.seed": [0, 1]}, {"attack.recipe": {**tiny.RECIPE, "epochs": 3}})
    first = Sweep(study, tmp_path)
    one, other = first.source.ask()
    for task, goes_on in ((one, True), (other, False)):
        first.source.started(task)
        report: Report = {True: lambda progress: True, False: lambda progress: False}[goes_on]
        first.source.tell(task, run_trial(task.stages.values(), first.edges, report))
    first.journal.close()
    assert [record.status for record in first.source.records] == ["finished", "pruned"]
    assert first.source.records[1].failed_stage == "inversion"
    assert first.source.records[1].error == "stopped after epoch 1 of 3"
    again = Sweep(study, tmp_path)
    assert again.source.has_work() is False
    assert [record.status for record in again.source.records] == ["finished", "pruned"]
    again.journal.close()


class Counting:
    """A launcher that publishes at once and counts; it may fail in a planned way."""

    def __init__(self, store: Artifacts, failures: Sequence[StageFailed] = ()) -> None:
        self.store, self.failures = store, list(failures)
        self.built: list[str] = []

    def build(self, stage: Stage, report: Report) -> bool:
        """Publish an empty artifact after a moment."""
        if self.failures:
            raise self.failures.pop(0)
        time.sleep(0.02)
        self.built.append(stage.key)
        self.store.publish(Artifact(stage.key, stage.name, stage.version, {}), {})
        return True


def test_two_sweeps_on_one_store_build_each_stage_once(tmp_path: Path) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    leases = LocalLeases()
    launcher = Counting(store)
    sweeps = [Sweep(study, tmp_path) for study in (TWO, tiny.study(TWO.sweep, search={"seed": 1}))]
    assert sweeps[0].study.key != sweeps[1].study.key
    threads = []
    for number, sweep in enumerate(sweeps):
        edges = Edges(store, leases, launcher, f"owner-{number}")
        threads.append(threading.Thread(target=LocalExecutor(edges).run, args=(sweep.source,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(launcher.built) == len(set(launcher.built)) == 10
    assert sorted([*sweeps[0].source.built, *sweeps[1].source.built]) == sorted(launcher.built)
    for sweep in sweeps:
        assert [record.status for record in sweep.source.records] == ["finished", "finished"]
        sweep.journal.close()


@pytest.mark.parametrize(
    ("failures", "outcome"),
    [
        ([StageFailed("x", "bad byte", "corrupt")] * (REBUILDS - 1), ("finished", None)),
        ([StageFailed("x", "bad byte", "corrupt")] * REBUILDS, ("failed", "bad byte")),
        ([StageFailed("x", "no memory")], ("failed", "no memory")),
        ([StageFailed("x", "workers kept dying", "lost")], ("failed", "workers kept dying")),
        ([StageFailed("x", "told to stop", "cancelled")], ("pruned", "told to stop")),
    ],
    ids=["heals", "damaged again and again", "error", "lost", "cancelled"],
)
def test_how_a_trial_ends(
    tmp_path: Path, failures: list[StageFailed], outcome: tuple[str, str | None]
) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    stages = list(tiny.stages(tiny.spec()).values())
    launcher = Counting(store, failures)
    ended = run_trial(stages, Edges(store, LocalLeases(), launcher, "me"), lambda progress: True)
    assert (ended.status, ended.error) == outcome
    if ended.status == "finished":
        assert list(ended.built) == [stage.key for stage in stages] == launcher.built


class Batches:
    """A search of two batches that notes what it is told."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.batches = [list(points[:2]), list(points[2:])]
        self.told: list[list[tuple[int, bool]]] = []

    def ask(self) -> list[Point]:
        """Return the next batch."""
        return self.batches.pop(0) if self.batches else []

    def tell(self, batch: Sequence[tuple[Point, Mapping[str, float] | None]]) -> None:
        """Note indices and whether there were metrics."""
        self.told.append([(point.index, metrics is not None) for point, metrics in batch])


def test_a_batch_is_told_whole_in_the_order_it_was_asked(tmp_path: Path) -> None:
    sweep = Sweep(tiny.study({"seed": [0, 1, 2]}), tmp_path)
    points = [task.point for task in sweep.source.ask()]
    search: Points = Batches(points)
    source = Source(search, sweep.source.plan, sweep.source.collector, Books(), sweep.journal, Books())
    first, second = source.ask()
    source.tell(second, Outcome("failed", error="x"))
    assert source.ask() == []  # the batch is not over
    source.tell(first, Outcome("finished"))
    assert isinstance(search, Batches)
    assert search.told == [[(0, True), (1, False)]]
    (third,) = source.ask()
    source.tell(third, Outcome("pruned"))
    assert source.ask() == []
    assert search.told == [[(0, True), (1, False)], [(2, False)]]
    sweep.journal.close()


def test_fixed_points_are_asked_once() -> None:
    points: Callable[[], list[Point]] = FixedPoints([]).ask
    assert points() == []


def flip(store: Path, key: str, file: str) -> None:
    """Turn one bit of a stored file."""
    (path,) = (store / "artifacts" / key[:2] / key).glob(f"*-{file}")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
