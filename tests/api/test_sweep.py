"""An opened sweep: what is started and ended around a run. tests/jobs/test_sweep.py runs whole sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep, open_tracker
from orchestrator.config.base import Refused
from orchestrator.runtime import matrix_units
from orchestrator.store.journal import Journal
from orchestrator.sweep.json_tracker import JsonTracker
from orchestrator.sweep.local import LocalExecutor
from orchestrator.sweep.records import StageCounts, SweepRecord, SweepReport, TrialRecord
from orchestrator.sweep.trial import Task
from tests import tiny


class Told:
    """Implements `Tracker`: keeps the names of the events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.is_complete = True

    def open(self, sweep: SweepRecord) -> None:
        """Keep the study's name and the number of points."""
        self.events.append(f"open {sweep.study} {sweep.num_points}")

    def planned(self, tasks: Sequence[Task], num_missing: int) -> None:
        """Keep the number of stages to run."""
        self.events.append(f"planned {num_missing}")

    def started(self, task: Task) -> None:
        """Keep the event."""
        self.events.append("started")

    def ended(self, record: TrialRecord, built: Sequence[str] = ()) -> None:
        """Keep the event."""
        self.events.append("ended")

    def finished(self, report: SweepReport, stages: StageCounts) -> list[str]:
        """Keep the event."""
        self.events.append("finished")
        return []

    def interrupted(self) -> None:
        """Keep the event."""
        self.events.append("interrupted")


def opened(
    folder: Path, changes: dict[str, Any] | None = None, *, local: bool = True, **settings: bool
) -> Sweep:
    """Open the tiny study, for a run in this process unless it is not `local`."""
    study = tiny.write(folder / "tiny.yaml", {"seed": [0]}, changes)
    options = Options(str(study), [], None, folder / "out", None, None, None, True)
    return Sweep(options, local=local, **settings)


WIDE = {"target.model.width": 0.25}
AVX2, AMX = "flags\t: avx2\n", "flags\t: avx2 amx_bf16\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file from which this machine's processor is read."""
    monkeypatch.setattr(matrix_units, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def run_to_its_end(sweep: Sweep) -> tuple[list[str], int]:
    """Run a sweep; return the lines for people and how many stages it ran."""
    lines: list[str] = []
    with sweep.started(Told(), say=lines.append) as run:
        while (executor := run.next_executor()) is not None:
            executor.run(run.ledger)
        sweep.write(run.files)
        return lines, len(run.ledger.built)


def test_a_sweep_goes_on_with_its_precision_on_another_processor(tmp_path: Path, cpuinfo: Path) -> None:
    cpuinfo.write_text(AVX2)
    lines, num_built = run_to_its_end(opened(tmp_path, WIDE))
    assert (lines, num_built) == (["precision: float32 on cpu (neither amx_bf16 nor avx512_bf16)"], 10)
    cpuinfo.write_text(AMX)
    assert run_to_its_end(opened(tmp_path, WIDE)) == ([], 0)
    stored = opened(tmp_path, WIDE, writes=False)
    (task,) = stored.first_tasks()
    assert all(stored.store.find(stage.key) for stage in task.stages.values())


def test_a_started_sweep_keeps_bfloat16_and_warns_where_it_is_slow(tmp_path: Path, cpuinfo: Path) -> None:
    keys = []
    for text in (AMX, AVX2):
        cpuinfo.write_text(text)
        lines: list[str] = []
        with opened(tmp_path, WIDE).started(Told(), say=lines.append) as run:
            assert run.next_executor() is not None  # and ends with nothing run
        (task,) = opened(tmp_path, WIDE).first_tasks()
        keys.append([(stage.key, stage.profile["precision"]) for stage in task.stages.values()])
    assert keys[0] == keys[1]
    assert [precision for _, precision in keys[0]].count("bfloat16") == 2
    assert lines[0].startswith("precision: bfloat16 on cpu (as this sweep began, amx_bf16; ")
    assert lines[1].startswith("warning: this sweep began in bfloat16, ")
    assert len(lines) == 2


def test_a_plan_looks_at_this_machine_and_not_at_the_cluster(
    tmp_path: Path, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo.write_text(AMX)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    sweep = opened(tmp_path, WIDE, local=False, plans=True)
    sweep.first_tasks()
    words = "amx_bf16, of this machine; a run asks the cluster's nodes; float32 below width 0.25"
    assert sweep.precision_lines() == [f"precision: bfloat16 on cpu ({words})"]
    assert not (tmp_path / "out").exists()


def fail(sweep: Sweep, tracker: Told, error: BaseException, files: Mapping[str, bytes]) -> None:
    """Start a sweep, and raise an error while it runs or, with a report's files, after that."""
    with sweep.started(tracker) as run:
        if not files:
            assert isinstance(run.next_executor(), LocalExecutor)
        run.files.update(files)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is full")], ids=repr)
def test_a_run_that_does_not_end_is_marked_and_the_next_start_goes_on(
    error: BaseException, tmp_path: Path
) -> None:
    tracker, sweep = Told(), opened(tmp_path)
    for number in range(2):
        with pytest.raises(type(error)):
            fail(opened(tmp_path), tracker, error, {})
        assert tracker.events[3 * number :] == ["open tiny 1", "planned 10", "interrupted"]
    starts = [one for one in Journal(sweep.store.blobs, sweep.study.key).events() if one["event"] == "start"]
    assert len(starts) == 2


def test_what_fails_after_the_report_is_made_leaves_a_finished_run_alone(tmp_path: Path) -> None:
    tracker = Told()
    with pytest.raises(BrokenPipeError):
        fail(opened(tmp_path), tracker, BrokenPipeError(), {"results.csv": b""})
    assert tracker.events == ["open tiny 1"]


def test_the_first_tasks_are_those_of_a_plan_and_write_nothing(tmp_path: Path) -> None:
    (task,) = opened(tmp_path).first_tasks()
    assert (task.point.name, len(task.stages)) == ("s0", 10)
    assert not (tmp_path / "out").exists()


def test_a_tracker_writes_only_where_it_can(tmp_path: Path) -> None:
    sweep = opened(tmp_path)
    assert isinstance(open_tracker(sweep), JsonTracker)
    sweep.folder.parent.mkdir(exist_ok=True)
    sweep.folder.touch()
    with pytest.raises(
        Refused, match=r"^out=.*tiny is no folder, and this command writes to one of that name"
    ):
        open_tracker(sweep)
