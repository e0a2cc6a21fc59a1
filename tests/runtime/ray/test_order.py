"""The order in which trials are drawn: neighbours in a grid share stages, trials that run should not."""

from collections import Counter

import pytest

from benchmarks.scale import laid
from orchestrator.runtime.ray.order import TaskQueue
from orchestrator.stages.graph import Stage
from orchestrator.sweep.points import Point
from orchestrator.sweep.trial import Task
from tests import tiny

SPEC = tiny.spec()


def stage(name: str, number: int, *needs: Stage) -> Stage:
    """Return a stage that needs others."""
    return Stage(name, 1, {"data": {"number": number}}, {}, {one.name: one.key for one in needs})


def task(index: int, *stages: Stage) -> Task:
    """Return a trial of these stages."""
    return Task(Point(index, {}, SPEC), {one.name: one for one in stages})


def grid(num_targets: int, num_each: int) -> list[Task]:
    """Return trials in a grid's order: those of a target follow each other."""
    targets = [stage("target", number) for number in range(num_targets)]
    return [
        task(number, target, stage("inversion", number, target))
        for number, target in enumerate(one for one in targets for _ in range(num_each))
    ]


def taken(queue: TaskQueue, *, may_wait: bool = True) -> Task:
    """Return the next trial."""
    drawn = queue.take(may_wait=may_wait)
    assert drawn is not None
    return drawn[0]


def test_trials_of_different_targets_are_drawn_first() -> None:
    queue = TaskQueue(grid(4, 3))
    drawn = [taken(queue) for _ in range(4)]
    assert [one.point.index for one in drawn] == [0, 3, 6, 9]
    assert len(queue) == 8
    queue.end(drawn[1])  # its target is built: its neighbours wait for no trial
    assert [taken(queue).point.index for _ in range(2)] == [4, 5]
    assert queue.take(may_wait=False) is None  # nothing is left but trials whose targets are being built
    next_one = queue.take()
    assert next_one is not None
    assert (next_one[0].point.index, next_one[1]) == (1, drawn[0].stages["target"].key)
    queue.built(drawn[2].stages["target"].key)  # before its own trial ends
    assert taken(queue, may_wait=False).point.index == 7


def test_of_equal_trials_the_one_with_most_to_build_comes_first() -> None:
    shared = stage("judge", 0)
    short, long = task(0, shared), task(1, shared, stage("target", 1), stage("inversion", 1))
    queue = TaskQueue([short, long])
    assert taken(queue) is long
    assert taken(queue) is short
    assert queue.take() is None


def test_a_stage_that_ends_before_it_is_taken_is_no_work_left() -> None:
    """Trials that run again have left the queue: their end still frees what others wait for."""
    target = stage("target", 0)
    built = task(9, target, stage("inversion", 9, target))
    one, two = task(0, target), task(1, stage("target", 1))
    queue = TaskQueue([one, two])
    queue.end(built)
    queue.end(built)
    assert taken(queue) is two  # the first has nothing to build any more


def test_every_trial_is_drawn_once_and_seldom_shares_a_stage_being_built() -> None:
    """Sixteen at a time through a graph whose neighbours share three of four stages."""
    tasks = [Task(Point(number, {}, SPEC), laid(number, 400, 200)) for number in range(400)]
    queue, running, drawn, waits = TaskQueue(tasks), list[Task](), Counter[int](), 0
    built: set[str] = set()
    while queue or running:
        while queue and len(running) < 16:
            busy = {one.key for other in running for one in other.stages.values()} - built
            new = taken(queue)
            waits += bool(busy & {one.key for one in new.stages.values()})
            drawn[new.point.index] += 1
            running.append(new)
        ended = running.pop(0)
        built |= {one.key for one in ended.stages.values()}
        queue.end(ended)
    assert drawn == Counter(range(400))
    assert waits < 20 * 4  # in the grid's order: 385 of 400


@pytest.mark.parametrize("count", [1, 5])
def test_an_empty_queue_is_false(count: int) -> None:
    queue = TaskQueue(grid(1, count))
    for _ in range(count):
        assert queue
        taken(queue)
    assert not queue
