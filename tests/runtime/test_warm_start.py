"""Warm start: a search is told of what other sweeps left of its very settings, and of nothing else."""

from pathlib import Path
from typing import Any

from orchestrator.config.normalise import normalise
from orchestrator.config.study import Study
from orchestrator.datasets import Location
from orchestrator.runtime.search import Start, search_points
from orchestrator.runtime.warm_start import stored_trials
from orchestrator.stages.graph import plan
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import JournalListener, Known
from orchestrator.sweep.points import Point
from orchestrator.sweep.records import DatasetInput
from orchestrator.sweep.search import fixed_points
from orchestrator.sweep.trial import Task
from orchestrator.sweep.validation import Preflight
from tests import tiny

DEFENSES = [{"label": "none"}, {"label": "BiDO", "bido": {}}]
WEIGHT = "target.defense.bido.weight_x"
AXES: dict[str, Any] = {
    "target.defense": DEFENSES,
    WEIGHT: {"when": {"target.defense": "BiDO"}, "low": 0.1, "high": 1.0},
}
GRID = AXES | {WEIGHT: {"when": {"target.defense": "BiDO"}, "values": [0.2, 0.4, 5.0]}}
OBJECTIVES = {"inversion/mse_test": "minimize", "target/accuracy": "maximize"}
SEARCH = {"algorithm": "optuna", "samples": 4, "batch": 2, "objectives": OBJECTIVES, "warm_start": True}


class Place:
    """A store with sweeps whose stages are published at once, with made-up metrics."""

    def __init__(self, folder: Path) -> None:
        self.store = Artifacts(DirectoryBlobs(folder))
        self.preflight = Preflight(Location())

    def task(self, point: Point) -> Task:
        """Return a point with its stages."""
        return Task(point, plan(normalise(point.spec), self.preflight.digests, tiny.PROFILE))

    def swept(self, study: Study, *, without: int | None = None) -> list[Task]:
        """Journal a grid and publish the stages of its points, all but the last of one."""
        points, _ = fixed_points(study, self.preflight)
        tasks = [self.task(point) for point in points.ask()]
        with Journal(self.store.blobs, study.key) as journal:
            JournalListener(journal).planned(tasks, 0)
        for number, task in enumerate(tasks):
            left = list(task.stages.values())[: -1 if number == without else None]
            for stage in left:
                metrics = {"inversion/mse_test": 0.1 * number} if stage.name == "evaluation" else {}
                metrics |= {"target/accuracy": 1.0 - 0.1 * number} if stage.name == "target" else {}
                self.store.publish(Artifact(stage.key, stage.name, stage.version, {}, metrics=metrics), {})
        return tasks

    def describe(self, name: str) -> DatasetInput:
        """Return a data set as records have it."""
        about = self.preflight.descriptions[name]
        return DatasetInput(name, about.digest, about.source, "", about.num_images, about.num_classes)

    def known(self, study: Study) -> list[Known]:
        """Return what the store has for a study."""
        return stored_trials(study, self.preflight, self.task, self.store, self.describe)


def values(known: list[Known]) -> list[tuple[Any, Any, list[float]]]:
    """Return label, weight and rounded objectives, sorted."""
    found = [
        (one.values["target.defense"]["label"], one.values.get(WEIGHT), [round(v, 6) for v in one.objectives])
        for one in known
    ]
    return sorted(found, key=str)


def test_a_search_is_told_of_the_settings_that_it_may_ask_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.swept(tiny.study(GRID))
    study = tiny.study(AXES, search=SEARCH)
    assert values(place.known(study)) == [  # not of 5.0, which is outside of the range
        ("BiDO", 0.2, [0.1, 0.9]),
        ("BiDO", 0.4, [0.2, 0.8]),
        ("none", None, [0.0, 1.0]),
    ]


def test_another_base_and_trials_that_are_not_whole_count_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.swept(tiny.study(GRID), without=1)
    study = tiny.study(AXES, search=SEARCH)
    assert [one[1] for one in values(place.known(study))] == [0.4, None]
    assert place.known(tiny.study(AXES, {"attack.seed": 6}, search=SEARCH)) == []
    assert (
        len(place.known(tiny.study({**AXES, "attack.seed": [5, 6]}, search=SEARCH))) == 0
    )  # not swept there


def test_what_a_sweep_began_with_stays_whatever_the_store_has_later(tmp_path: Path) -> None:
    place, study = Place(tmp_path), tiny.study(AXES, search=SEARCH)
    first, lines = tiny.study(GRID | {WEIGHT: {"when": {"target.defense": "BiDO"}, "values": [0.2]}}), []
    asked = []
    for stored in (first, tiny.study(GRID)):
        place.swept(stored)
        search, _, _ = search_points(study, place.preflight)
        start = Start(study, place.preflight, place.task, place.store, place.describe)
        with Journal(place.store.blobs, study.key) as journal:
            lines.append(start.begin(search, journal))
        asked.append([point.key for point in search.ask()])
    assert lines == ["warm start: the search is told of 2 stored trials of these settings"] * 2
    assert asked[0] == asked[1]
