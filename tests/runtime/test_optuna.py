"""Optuna's search: the same study asks for the same points, whichever trial finished first, and again when it
starts again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import InverterAttack
from orchestrator.config.study import Study, StudyError
from orchestrator.datasets import Location
from orchestrator.runtime.optuna import OptunaPoints
from orchestrator.runtime.search import search_points
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import Known, SearchMemory
from orchestrator.sweep.ledger import Points
from orchestrator.sweep.points import Dropped, Point
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.searches import AXES, OFFSETS, searched


def opened(study: Study) -> tuple[Points, int, list[Dropped]]:
    """Open the search of a study."""
    return search_points(study, Preflight(Location()))


def value(point: Point) -> dict[str, float]:
    """Return made-up metrics of a point: small offsets and large m are best."""
    offset, m = float(point.axes["attack.offset"]), point.spec.release.truncation or 9
    return {"inversion/mse_test": offset / m, "target/accuracy": offset}


def asked(points: Points, *, backwards: bool = False, failing: Sequence[int] = ()) -> list[list[Point]]:
    """Ask to the end and tell every batch, in order or from its end."""
    batches = []
    while batch := points.ask():
        results: list[tuple[Point, Mapping[str, float] | None]] = [
            (point, None if point.index in failing else value(point)) for point in batch
        ]
        points.tell(results[::-1] if backwards else results)
        batches.append(batch)
    return batches


def keys(batches: Sequence[Sequence[Point]]) -> list[list[tuple[int, str]]]:
    """Return what identifies the points of each batch."""
    return [[(point.index, point.key) for point in batch] for batch in batches]


def test_optuna_asks_the_same_again_when_told_the_same() -> None:
    study = searched("optuna", samples=14, batch=4, seed=5)
    first = asked(opened(study)[0])
    assert [len(batch) for batch in first] == [4, 4, 4, 2]
    assert keys(first) == keys(asked(opened(study)[0]))
    assert keys(first) == keys(asked(opened(study)[0], backwards=True))  # told in index order all the same
    assert keys(first) != keys(asked(opened(searched("optuna", samples=14, batch=4, seed=6))[0]))


def test_optuna_is_told_in_index_order_whatever_finished_first() -> None:
    study = searched("optuna", {"attack.offset": OFFSETS}, samples=6, batch=6)
    search = OptunaPoints(study, Preflight(Location()))
    asked(search, backwards=True)
    ends = [trial.datetime_complete for trial in search._optuna.trials]
    assert len(set(ends)) > 1
    assert ends == sorted(ends)


def test_optuna_goes_on_past_failures_the_same_way() -> None:
    study = searched("optuna", samples=14, batch=4, seed=5)
    first = asked(opened(study)[0], failing=[1, 6])
    assert keys(first) == keys(asked(opened(study)[0], failing=[1, 6]))
    assert [point.index for batch in first for point in batch] == list(range(14))


def test_optuna_learns_where_the_good_points_are() -> None:
    study = searched("optuna", {"attack.offset": {"low": 0.0, "high": 50.0}}, samples=40, batch=4)
    points = [point for batch in asked(opened(study)[0]) for point in batch]
    early, late = (
        sum(float(p.axes["attack.offset"]) for p in part) / 10 for part in (points[:10], points[-10:])
    )
    assert late < early / 2


def test_optuna_points_exist_are_distinct_and_dropped_ones_are_known() -> None:
    search, number, dropped = opened(searched("optuna", samples=20, batch=5))
    points = [point for batch in asked(search) for point in batch]
    assert len(points) == number == 20
    assert all((p.spec.release.truncation or 1) <= p.spec.target.classes for p in points)
    assert len({point.key for point in points}) == 20
    assert dropped
    assert all("must lie in 1..target.classes" in one.reason for one in dropped)


def test_optuna_ends_when_there_is_nothing_new() -> None:
    study = searched("optuna", {"attack.offset": [1.0, 2.0, 3.0]}, samples=9, batch=2)
    offsets = [point.axes["attack.offset"] for batch in asked(opened(study)[0]) for point in batch]
    assert sorted(offsets) == [1.0, 2.0, 3.0]


def test_optuna_takes_several_objectives() -> None:
    objectives = {"inversion/mse_test": "minimize", "target/accuracy": "maximize"}
    study = searched("optuna", samples=12, batch=3, objectives=objectives)
    first = asked(opened(study)[0])
    assert keys(first) == keys(asked(opened(study)[0]))
    assert sum(map(len, first)) == 12


def test_optuna_values_may_be_null_or_parts() -> None:
    axes = {
        "release.truncation": [1, None],
        "attack.model": [{"name": "ami-digit", "width": 0.01}, {"name": "ami-digit", "width": 0.02}],
    }
    search, _, _ = opened(searched("optuna", axes, samples=4, batch=4))
    specs = [point.spec for point in search.ask()]
    made = {
        (one.release.truncation, one.attack.model.width)
        for one in specs
        if isinstance(one.attack, InverterAttack)
    }
    assert made == {(1, 0.01), (1, 0.02), (None, 0.01), (None, 0.02)}


@pytest.mark.parametrize("name", ["inversion/loss", "attack.other/kappa_test"])
def test_an_objective_that_nothing_measures_names_the_known_ones(name: str) -> None:
    search = OptunaPoints(searched("optuna", samples=2, objectives={name: "minimize"}), Preflight(Location()))
    batch = search.ask()
    with pytest.raises(StudyError) as caught:
        search.tell([(point, value(point)) for point in batch])
    assert str(caught.value) == (
        f"search.objectives names {name}, which no stage measures; choose from inversion/mse_test, "
        "target/accuracy."
    )


def test_a_trial_whose_objective_is_undefined_fails_and_the_search_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kappa = "attack.other/kappa_test"
    other = {"judges": {"classifiers": {"other": {"model": tiny.DIGIT, "seed": 9}}}}
    asked_for = {"algorithm": "optuna", "samples": 3, "batch": 2, "objectives": {kappa: "maximize"}}
    search = OptunaPoints(tiny.study(AXES, other, search=asked_for), Preflight(Location()))
    first, second = search.ask()
    search.tell([(first, value(first)), (second, value(second) | {kappa: 0.5})])  # all judged alike: no kappa
    told = [search._asked[point.key].number for point in (first, second)]
    assert [search._optuna.trials[number].state.name for number in told] == ["FAIL", "COMPLETE"]
    assert f"event=objective_undefined trial={first.index} metric={kappa} " in caplog.text
    assert len(search.ask()) == 1


@pytest.mark.parametrize("axes", [{"release.truncation": [7, 9]}, {"target.classes": [6, 7]}])
@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_a_search_whose_draws_are_all_impossible_is_refused(algorithm: str, axes: Any) -> None:
    with pytest.raises(StudyError, match=r"^sweep: no draw can exist; (release|target)\.\w+=\d must lie in"):
        opened(searched(algorithm, axes))


DEFENSES = [{"label": "none"}, {"label": "BiDO", "bido": {}}]
WEIGHTS = {"when": {"target.defense": "BiDO"}, "low": 0.01, "high": 1.0, "log": True}
FRONT = {"class/judge_top1": "minimize", "target/accuracy": "maximize"}
CONDITIONAL: dict[str, Any] = {
    "target.defense": DEFENSES,
    "target.defense.bido.weight_x": WEIGHTS,
    "target.defense.bido.weight_y": WEIGHTS,
    "target.budget": ["full", "block1"],
}
ASKED: dict[str, Any] = {
    "algorithm": "optuna",
    "samples": 3,
    "batch": 1,
    "objectives": {"inversion/mse_test": "minimize", "target/accuracy": "maximize"},
}
SAMPLERS: list[dict[str, Any]] = [{"sampler": "tpe"}, {"sampler": "nsga-ii", "population": 4}]


def traded(point: Point) -> dict[str, float]:
    """Return made-up objectives: a larger weight leaks less and is less accurate, a smaller one is no use."""
    weight = point.spec.target.defense.bido.weight_x if point.spec.target.defense.bido else 0.0
    return {"class/judge_top1": 1.0 - weight, "target/accuracy": 1.0 - weight**2}


def front_study(sampler: dict[str, Any], **more: Any) -> Study:
    """Return a search of a defense's weights, which exist only with it."""
    changes = {"attack": {"name": "optimization", "steps": 1}, "evaluation": {"task": "class-inference"}}
    asked_for = {"algorithm": "optuna", "samples": 16, "batch": 4, "objectives": FRONT, **sampler, **more}
    return tiny.study(CONDITIONAL, changes, search=asked_for)


def gone_on(search: Points, failing: Sequence[int] = ()) -> list[list[tuple[int, str]]]:
    """Ask to the end and tell every batch; return the points' keys."""
    batches = []
    while batch := search.ask():
        search.tell([(point, None if point.index in failing else traded(point)) for point in batch])
        batches.append(batch)
    return keys(batches)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_search_asks_a_defenses_weights_only_with_it_and_the_same_again(sampler: dict[str, Any]) -> None:
    study = front_study(sampler)
    search, batches = opened(study)[0], []
    while batch := search.ask():
        search.tell([(point, traded(point)) for point in batch])
        batches.append(batch)
    points = [point for batch in batches for point in batch]
    for point in points:
        bido = point.spec.target.defense.bido
        assert (point.axes["target.defense.bido.weight_x"] == "-") == (bido is None)
        assert point.axes["target.defense.bido.weight_y"] == (bido.weight_y if bido else "-")
    assert {point.axes["defense"] for point in points} == {"none", "BiDO"}
    assert len({point.key for point in points}) == len(points) == 16
    assert keys(batches) == gone_on(opened(study)[0])
    assert search.ended == "all 16 samples were asked"


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_search_that_starts_again_is_told_what_it_was_told_whatever_became_of_it(
    sampler: dict[str, Any], tmp_path: Path
) -> None:
    study, searches = front_study(sampler), []
    for start in range(2):  # the second start finds that what had failed finishes
        with Journal(DirectoryBlobs(tmp_path), study.key) as journal:
            search = OptunaPoints(study, Preflight(Location()))
            search.memory = SearchMemory(journal)
            searches.append(gone_on(search, failing=[] if start else [1, 2, 6]))
    assert searches[0] == searches[1]
    assert searches[0] == gone_on(opened(study)[0], failing=[1, 2, 6])


def test_a_search_stops_when_its_front_no_longer_grows() -> None:
    stop = {"patience": 4, "tolerance": 1.0}
    search = OptunaPoints(front_study(SAMPLERS[0], stop=stop), Preflight(Location()))
    assert [len(batch) for batch in gone_on(search)] == [4]
    assert search.ended.startswith("the hypervolume of the front, ")
    assert search.ask() == []


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_stored_trials_are_told_before_the_search_asks(sampler: dict[str, Any]) -> None:
    known = [
        Known({"target.defense": DEFENSES[0], "target.budget": "full"}, [0.9, 0.9]),
        *(
            Known(
                {
                    "target.defense": DEFENSES[1],
                    "target.defense.bido.weight_x": 0.02 * number,
                    "target.defense.bido.weight_y": 0.5,
                    "target.budget": "block1",
                },
                [0.5 - 0.01 * number, 0.8],
            )
            for number in range(1, 12)
        ),
    ]
    asked_warm = []
    for _ in range(2):
        search = OptunaPoints(front_study(sampler), Preflight(Location()))
        search.start_warm(known)
        asked_warm.append(gone_on(search))
        told = [trial.values for trial in search._optuna.trials[:12]]
        assert told == [one.objectives for one in known]
    assert asked_warm[0] == asked_warm[1] != gone_on(opened(front_study(sampler))[0])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_stored_trial_that_is_asked_again_counts_once(sampler: dict[str, Any]) -> None:
    """All that can be asked of two axes without ranges is stored but one."""
    study = tiny.study({"target.budget": ["full", "block1", "block2"]}, search=ASKED | sampler)
    known = [Known({"target.budget": budget}, [0.5, 0.5]) for budget in ("full", "block1")]
    search = OptunaPoints(study, Preflight(Location()))
    search.start_warm(known)
    points: list[Point] = []
    while batch := search.ask():
        search.tell([(point, {"inversion/mse_test": 0.5, "target/accuracy": 0.5}) for point in batch])
        points += batch
    assert {point.axes["budget"] for point in points} == {"full", "block1", "block2"}
    counted = [trial.params["target.budget"] for trial in search._optuna.trials if trial.values]
    assert sorted(counted) == ["block1", "block2", "full"]
