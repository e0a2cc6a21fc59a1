"""The ledger: what is stored is adopted, what is damaged is rebuilt, batches close whole."""

import logging
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.points import Point
from orchestrator.sweep.records import SweepReport
from orchestrator.sweep.search import fixed_points
from orchestrator.sweep.trial import REBUILDS, Outcome
from tests import tiny
from tests.sweep.books import Books, Sweep, flip

TWO = tiny.study({"auxiliary.kind": ["same-train", "generic"]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Return the undisturbed sweep of two points."""
    return Sweep(TWO, tmp_path_factory.mktemp("finished")).run()


def test_each_distinct_stage_is_built_once(finished: Sweep) -> None:
    assert finished.books.missing == [4 + 2 * 6]  # those from predictions on differ, but for victims
    counts = finished.ledger.stage_counts()
    assert {name: count["run"] for name, count in counts.items()} == {
        "pretrain": 1,
        "target": 1,
        "judge": 1,
        "predictions": 2,
        "victims": 1,
        "inversion": 2,
        "reconstructions": 2,
        "yardsticks": 2,
        "retrieval": 2,
        "evaluation": 2,
    }
    assert all(count["reused"] == 0 for count in counts.values())
    assert len(finished.store.keys()) == 16
    built = [key for event in finished.events("ended") for key in event["built"]]
    assert len(built) == len(set(built)) == 16


def test_records_hold_what_is_known_of_a_trial(finished: Sweep) -> None:
    first, second = finished.books.told
    assert (first.name, first.index, first.status) == ("same-train", 0, "finished")
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
    assert (first.held, second.held) == (("train",), ())
    assert first.metrics["attack/queries_beyond_release"] == 0
    assert all(image.read().startswith(b"\x89PNG") for image in first.images.values())
    assert [(one.name, one.context, one.num_classes) for one in first.datasets] == [("digits", "private", 10)]
    assert first.costs["cost/images_seen"] > 0
    assert first.started_ms <= first.ended_ms
    assert first.stage_keys["target"] == second.stage_keys["target"]


def test_starting_again_adopts_everything_and_runs_nothing(finished: Sweep) -> None:
    again = Sweep(TWO, finished.folder)
    assert again.ledger.has_work() is False
    assert again.ledger.next_tasks() == []
    assert again.books.running == []
    assert again.books.missing == [0]
    assert again.table == finished.table
    assert again.books.told == finished.books.told  # to the millisecond: a tracker changes nothing
    assert sum(count["run"] for count in again.ledger.stage_counts().values()) == 0
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
        time.sleep(0.1)
        with lock:
            asking -= 1
        return get(name)

    monkeypatch.setattr(again.store.blobs, "get", slow_get)
    assert again.ledger.has_work() is False
    assert most == len(finished.store.keys())  # all manifests
    assert again.books.told == finished.books.told  # in the same order
    again.journal.close()


def test_a_larger_study_runs_only_what_is_new(finished: Sweep, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    larger = tiny.study({"auxiliary.kind": ["same-train", "generic"], "release.truncation": [1, 2]})
    sweep = Sweep(larger, tmp_path / "store").run()
    assert sweep.books.running == ["same-train-m002", "generic-m002"]
    run = {name: count["run"] for name, count in sweep.ledger.stage_counts().items() if count["run"]}
    assert run == {"inversion": 2, "reconstructions": 2, "yardsticks": 2, "retrieval": 2, "evaluation": 2}


def test_a_damaged_model_is_set_aside_and_built_again(
    finished: Sweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    part = Sweep(tiny.study({"auxiliary.kind": ["same-train"]}), folder).run()
    target = part.ledger.records[0].stage_keys["target"]
    flip(folder, target, "model.safetensors")
    with caplog.at_level(logging.WARNING):
        sweep = Sweep(TWO, folder).run()
    assert sweep.table == finished.table
    assert "event=artifact_quarantined" in caplog.text
    assert "event=input_damaged stage=predictions action=rebuild" in caplog.text
    assert len(list((folder / "quarantine" / target).iterdir())) == 1
    assert sweep.ledger.stage_counts()["target"] == {"run": 1, "reused": 0}
    assert not (folder / "conflicts").exists()  # the same bytes again


@pytest.mark.parametrize(("stage", "file"), [("target", "curves.json"), ("evaluation", "grid_test.png")])
def test_damage_that_adopting_finds_is_built_again(
    finished: Sweep, tmp_path: Path, stage: str, file: str
) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    flip(tmp_path / "store", finished.ledger.records[0].stage_keys[stage], file)
    sweep = Sweep(TWO, tmp_path / "store").run()
    assert sweep.table == finished.table
    assert sweep.ledger.stage_counts()[stage]["run"] == 1
    assert [sorted(record.images) for record in sweep.ledger.records] == [["grid_test", "grid_train"]] * 2
    curves = {record.name: len(record.curves) for record in sweep.ledger.records}
    assert curves == {record.name: len(record.curves) for record in finished.ledger.records}


def test_all_damage_in_reused_stages_is_built_again_in_one_start(finished: Sweep, tmp_path: Path) -> None:
    part = Sweep(tiny.study({"auxiliary.kind": ["same-train"]}), tmp_path).run()
    keys = part.ledger.records[0].stage_keys
    for stage in ("pretrain", "target", "judge", "inversion"):
        flip(tmp_path, keys[stage], "curves.json")
    flip(tmp_path, keys["predictions"], "scores.npy")
    flip(tmp_path, keys["victims"], "scores_test.npy")
    flip(tmp_path, keys["evaluation"], "grid_test.png")
    sweep = Sweep(TWO, tmp_path).run()
    assert sweep.table == finished.table
    assert {name: count["run"] for name, count in sweep.ledger.stage_counts().items()} == {
        name: count["run"] for name, count in finished.ledger.stage_counts().items()
    } | {
        "yardsticks": 1,
        "reconstructions": 1,
        "retrieval": 1,
    }  # the first trial's are whole, and no adopting reads them
    assert len([path for path in (tmp_path / "quarantine").iterdir() if path.is_dir()]) == 7
    assert not (tmp_path / "conflicts").exists()
    shown = {record.name: (record.images, record.curves) for record in sweep.ledger.records}
    assert shown == {record.name: (record.images, record.curves) for record in finished.ledger.records}


def test_a_store_that_damages_what_is_built_fails_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tiny.study({"auxiliary.kind": ["same-train"]}), tmp_path)
    get = sweep.store.blobs.get
    judge = sweep.ledger.next_tasks()[0].stages["judge"].key
    monkeypatch.setattr(
        sweep.store.blobs,
        "get",
        lambda name: b"rot" if judge in name and name.endswith("curves.json") else get(name),
    )
    sweep.ledger = sweep.open(fixed_points(sweep.study, sweep.preflight)[0], sweep.books)
    (record,) = sweep.run().ledger.records
    assert (record.status, record.failed_stage) == ("failed", "judge")
    lost = f"stored files of judge {judge[:12]} are damaged or gone"
    assert record.error == f"{lost} after {REBUILDS} runs; check the store's disk"
    assert "inversion/mse_test" in record.metrics
    assert "judge/accuracy" not in record.metrics


def test_a_report_that_finds_damage_has_the_trials_run_again(finished: Sweep, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    sweep = Sweep(TWO, tmp_path / "store")
    assert sweep.ledger.has_work() is False
    first, second = (record.stage_keys["evaluation"] for record in sweep.ledger.records)
    flip(tmp_path / "store", first, "reconstructions_test.npy")
    flip(tmp_path / "store", second, "victims_test.npy")
    assert sweep.ledger.reopen() == 2
    assert sweep.ledger.records == []
    assert sweep.run().table == finished.table
    assert sweep.ledger.built == {first, second}
    assert sweep.ledger.reopen() == 0


def test_trials_that_a_pause_leaves_while_damage_is_rebuilt_run_after_it(
    finished: Sweep, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    sweep = Sweep(TWO, tmp_path / "store")
    assert sweep.ledger.has_work() is False
    flip(tmp_path / "store", sweep.ledger.records[0].stage_keys["evaluation"], "reconstructions_test.npy")
    assert sweep.ledger.reopen() == 1
    assert sweep.ledger.has_work()  # an executor takes the trial, and leaves it
    assert len(sweep.ledger.next_tasks()) == 1
    sweep.ledger.go_on()
    assert len(sweep.ledger.records) == 1
    assert sweep.run().table == finished.table


def test_a_damaged_manifest_counts_as_absent(finished: Sweep, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "store")
    key = finished.ledger.records[0].stage_keys["inversion"]
    manifest = tmp_path / "store" / "artifacts" / key[:2] / key / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{}")
    sweep = Sweep(TWO, tmp_path / "store").run()
    assert sweep.table == finished.table
    assert sweep.ledger.built == {key}


class Batches:
    """A search of two batches that notes what it is told."""

    ended = ""

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
    points = [task.point for task in sweep.ledger.next_tasks()]
    search = Batches(points)
    ledger = sweep.open(search, Books())
    first, second = ledger.next_tasks()
    ledger.end(second, Outcome("failed", error="x"))
    assert ledger.next_tasks() == []  # the batch is not over
    for stage in first.stages.values():
        sweep.store.publish(Artifact(stage.key, stage.name, stage.version, {}), {})
    ledger.end(first, Outcome("finished"))
    assert search.told == [[(0, True), (1, False)]]
    (third,) = ledger.next_tasks()
    ledger.end(third, Outcome("pruned"))
    assert ledger.next_tasks() == []
    assert search.told == [[(0, True), (1, False)], [(2, False)]]
    sweep.journal.close()


def test_the_end_reaches_every_listener_and_its_lines_come_back(finished: Sweep) -> None:
    again = Sweep(TWO, finished.folder)
    assert again.ledger.has_work() is False
    report = SweepReport({}, {}, "", 0, 0)
    assert again.ledger.finish(report) == ["0 stages run"]
    assert again.books.reports == [report]
    (event,) = again.events("finish")
    assert event["finished"] == 2
    assert event["stages"]["inversion"] == {"run": 0, "reused": 2}
    again.journal.close()


def test_an_interrupted_trial_leaves_no_record_and_halts(tmp_path: Path) -> None:
    sweep = Sweep(TWO, tmp_path)
    first, _ = sweep.ledger.next_tasks()
    sweep.ledger.end(first, Outcome("left"))
    assert sweep.ledger.is_halted
    assert sweep.ledger.next_tasks() == []
    assert sweep.books.told == []
    sweep.journal.close()
