"""An opened sweep: what is started and ended around a run. tests/jobs/test_sweep.py runs whole sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep, open_tracker
from orchestrator.config.base import Refused
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


def opened(folder: Path) -> Sweep:
    """Open the tiny study for a run in this process."""
    study = tiny.write(folder / "tiny.yaml", {"seed": [0]})
    return Sweep(Options(str(study), [], None, folder / "out", None, None, None, True), local=True)


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
