"""How many groups fit, which start and which end: decisions without a cluster."""

import pytest

from orchestrator.config.resources import Resources
from orchestrator.runtime.ray.pools import (
    IDLE_SECONDS,
    STUCK_SECONDS,
    Group,
    Node,
    Pool,
    decide,
    pool_of,
    shown,
    slots,
)

GPU_NODE = {"CPU": 8.0, "GPU": 1.0}
WHOLE = pool_of(Resources(gpus_per_worker=1.0))
QUARTER = pool_of(Resources(gpus_per_worker=0.25))
PLAIN = pool_of(Resources())


def group(name: str, pool: Pool, phase: str, seconds: float = 0.0) -> Group:
    return Group(name, pool, phase, seconds)


@pytest.mark.parametrize(
    ("resources", "nodes", "number"),
    [
        ({}, [{"CPU": 2.0}, {"CPU": 1.0}], 3),
        ({"threads": 2}, [{"CPU": 3.0}, {"CPU": 1.0}], 1),  # not two: a worker does not span nodes
        ({"workers": 2, "threads": 2}, [{"CPU": 3.0}, {"CPU": 2.0}], 1),  # a group does
        ({"workers": 3, "threads": 2}, [{"CPU": 3.0}, {"CPU": 2.0}], 0),
        ({"gpus_per_worker": 0.25}, [GPU_NODE, GPU_NODE], 8),
        ({"gpus_per_worker": 0.25}, [{"CPU": 3.0, "GPU": 1.0}], 3),  # CPUs run out first
        ({"gpus_per_worker": 1.0}, [{"CPU": 8.0}], 0),
        ({}, [], 0),
    ],
)
def test_groups_are_counted_node_by_node(resources: dict, nodes: list[Node], number: int) -> None:
    assert slots(pool_of(Resources(**resources)), nodes) == number


def test_a_stage_may_have_resources_of_its_own() -> None:
    resources = Resources(
        gpus_per_worker=1, stages={"evaluation": {"gpus_per_worker": 0.25}, "judge": {"workers": 2}}
    )
    assert pool_of(resources, "evaluation") == QUARTER
    assert pool_of(resources, "target") == pool_of(resources) == WHOLE
    judge = pool_of(resources, "judge")
    assert (judge.workers, judge.gpus_per_worker) == (2, 1)
    assert judge.needs == "2 x (1 CPU, 1 GPU)"


def test_each_waiting_stage_gets_a_group_while_there_is_room() -> None:
    decision = decide({PLAIN: 5}, [group("a", PLAIN, "busy")], [{"CPU": 3.0}], None)
    assert decision.start == (PLAIN, PLAIN)
    assert decision.short == (PLAIN,) * 3
    assert decision.dismiss == ()


def test_groups_that_come_or_idle_are_counted_before_new_ones_start() -> None:
    groups = [group("a", PLAIN, "starting"), group("b", PLAIN, "idle")]
    assert decide({PLAIN: 2}, groups, [{"CPU": 9.0}], None) == decide({}, groups, [{"CPU": 9.0}], None)


def test_the_cap_holds_for_all_pools_together() -> None:
    decision = decide({PLAIN: 5}, [group("a", WHOLE, "busy")], [GPU_NODE], 3)
    assert decision.start == (PLAIN, PLAIN)
    assert decision.short == ()


def test_groups_beyond_a_lowered_cap_end_after_their_stage_those_without_one_first() -> None:
    groups = [
        group("young", PLAIN, "busy", 1.0),
        group("old", PLAIN, "busy", 9.0),
        group("new", PLAIN, "starting"),
        group("idle", WHOLE, "idle"),
        group("going", PLAIN, "retiring", 3.0),
    ]
    orders = [decide({}, groups, [GPU_NODE], cap).retire for cap in (4, 3, 2, 1)]
    assert orders == [(), ("idle",), ("new", "idle"), ("young", "new", "idle")]
    # Where stages of another pool wait, the idle group makes room for them at once, and is not counted twice.
    waiting = [decide({PLAIN: 3}, groups, [GPU_NODE], cap) for cap in (4, 3, 2, 1)]
    assert [one.dismiss for one in waiting] == [("idle",)] * 4
    assert [one.retire for one in waiting] == [(), (), ("new",), ("young", "new")]
    assert decide({PLAIN: 3}, groups, [GPU_NODE], 1).start == ()
    assert decide({PLAIN: 3}, groups, [GPU_NODE], None).retire == ()


def test_a_raised_cap_starts_groups_as_far_as_they_fit() -> None:
    groups = [group("a", PLAIN, "busy")]
    assert decide({PLAIN: 9}, groups, [{"CPU": 3.0}], 2).start == (PLAIN,)
    decision = decide({PLAIN: 9}, groups, [{"CPU": 3.0}], 5)
    assert (decision.start, decision.short) == ((PLAIN, PLAIN), (PLAIN,) * 2)  # room for five is asked for


def test_several_small_groups_share_one_accelerator() -> None:
    assert decide({QUARTER: 9}, [], [GPU_NODE], None).start == (QUARTER,) * 4


def test_a_group_that_idles_makes_room_for_another_pool() -> None:
    decision = decide({QUARTER: 1}, [group("a", WHOLE, "idle")], [GPU_NODE], None)
    assert (decision.start, decision.dismiss, decision.short) == ((), ("a",), ())
    # It still holds the accelerator while it ends.
    assert decide({QUARTER: 1}, [group("a", WHOLE, "ending")], [GPU_NODE], None).start == ()
    assert decide({QUARTER: 1}, [], [GPU_NODE], None).start == (QUARTER,)


def test_a_busy_group_and_one_whose_own_stages_wait_are_left() -> None:
    for phase, own in (("busy", 0), ("idle", 1)):
        decision = decide({QUARTER: 1, WHOLE: own}, [group("a", WHOLE, phase)], [GPU_NODE], None)
        assert decision.dismiss == ()
        assert QUARTER in decision.short


def test_a_group_that_cannot_be_placed_gets_room_from_one_that_idles() -> None:
    groups = [group("new", PLAIN, "starting", STUCK_SECONDS + 1), group("old", WHOLE, "idle")]
    assert decide({PLAIN: 1}, groups, [GPU_NODE], None).dismiss == ("old",)
    groups[0] = group("new", PLAIN, "starting", STUCK_SECONDS - 1)
    assert decide({PLAIN: 1}, groups, [GPU_NODE], None).dismiss == ()


def test_a_group_without_work_ends_after_a_while() -> None:
    groups = [group("a", PLAIN, "idle", IDLE_SECONDS + 1), group("b", PLAIN, "busy", IDLE_SECONDS + 1)]
    assert decide({}, groups, [{"CPU": 9.0}], None).dismiss == ("a",)


def test_a_cluster_in_words() -> None:
    nodes = [GPU_NODE, {"memory": 9.0}, GPU_NODE, {"CPU": 2.0}]
    assert shown(nodes) == "the cluster has 2 x (8 CPU, 1 GPU), 1 x (2 CPU)"
    assert shown([{"memory": 9.0}]) == "the cluster has no node with CPUs"
