"""Worker groups on a real Ray: groups that were asked to end do so in spite of the broker's death, and what a
dead controller had reserved comes free.

A group is a thread here that calls the broker as a worker does: no worker is started. The driver is a
process of its own: Ray reads a cluster's token once in a process, and other tests may have started it here.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.config.resources import Resources
from orchestrator.runtime.ray.connect import start_ray
from orchestrator.runtime.ray.pools import Pool, pool_of
from orchestrator.sweep.requests import Size
from tests.servers import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PLAIN = pool_of(Resources())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.usefixtures("second_node")
def test_a_group_that_was_asked_to_end_does_so_though_the_broker_died_meanwhile(
    ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_cluster.env.items():
        monkeypatch.setenv(name, value)
    run_driver(end_a_group_whose_broker_dies)


@pytest.mark.usefixtures("second_node")
def test_what_a_dead_controller_had_reserved_comes_free_while_another_group_works(
    ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_cluster.env.items():
        monkeypatch.setenv(name, value)
    run_driver(lose_a_controller_beside_a_group)


def run_driver(target: Callable[[], None]) -> None:
    """Run a function in a process of its own, which must end well in time."""
    driver = multiprocessing.get_context("spawn").Process(target=target)
    driver.start()
    driver.join(280)
    is_stuck = driver.is_alive()
    driver.kill()
    driver.join()
    assert not is_stuck
    assert driver.exitcode == 0, "the driver's error is above"


def end_a_group_whose_broker_dies() -> None:
    start_ray()
    import ray

    from orchestrator.runtime.ray.groups import WorkerGroups
    from orchestrator.runtime.ray.tune import start_broker

    broker, size, may_build = start_broker(), Size(2), threading.Event()

    def serve(name: str, pool: Pool) -> None:
        while True:
            try:
                position = 0
                ray.get(broker.begin.remote(name, pool.name))
                while ray.get(broker.take.remote(name, 0, position)) is not None:
                    position += 1
                    may_build.wait()
                return
            except LookupError:  # the broker knows no group: it begins again, as a worker does
                continue

    groups = WorkerGroups(size, broker, [PLAIN], train=serve, patience_seconds=0.0, say=print)
    for key in ("a", "b"):
        ray.get(broker.submit.remote({"name": "target"}, key, PLAIN.name, 1))
    groups.start()
    until(lambda: sum(bool(one["building"]) for one in state(ray, broker).values()) == 2)
    ray.get(broker.report.remote("a", {"epoch": 3, "epochs": 20}))
    until(lambda: sorted(size.building) == ["target", "target (epoch 3 of 20)"])
    size.asked = 1
    until(lambda: "retiring" in [one.phase for one in list(groups._running.values())])
    ray.kill(broker, no_restart=False)
    may_build.set()
    until(lambda: size.groups == 1 and len(state(ray, broker)) == 1)
    ray.get(broker.stop.remote())
    groups.join(60)
    assert (size.groups, size.building) == (0, ())


def lose_a_controller_beside_a_group() -> None:
    start_ray()
    import ray
    from ray.util import placement_group, placement_group_table

    from orchestrator.runtime.ray.groups import WorkerGroups
    from orchestrator.runtime.ray.tune import start_broker

    class Controller:
        def reserve(self) -> None:
            ray.get(placement_group([{"CPU": 1}]).ready())

    def states() -> list[str]:
        return [one["state"] for name, one in placement_group_table().items() if name not in of_others]

    of_others = set(placement_group_table())
    broker, may_build, may_fail = start_broker(), threading.Event(), threading.Event()
    started: list[str] = []

    def run(name: str, pool: Pool) -> None:
        started.append(name)
        if len(started) == 2:
            may_fail.wait()
            controller = ray.remote(num_cpus=0)(Controller).remote()
            ray.get(controller.reserve.remote())
            assert states() == ["CREATED"]
            ray.kill(controller)
            raise RuntimeError("its controller died")
        ray.get(broker.begin.remote(name, pool.name))
        if ray.get(broker.take.remote(name, 0, 0)) is not None:
            may_build.wait()

    groups = WorkerGroups(Size(2), broker, [PLAIN], train=run, patience_seconds=0.0, say=print)
    for key in ("a", "b"):
        ray.get(broker.submit.remote({"name": "target"}, key, PLAIN.name, 1))
    groups.start()
    until(lambda: any(one["building"] for one in state(ray, broker).values()) and len(started) == 2)
    may_fail.set()
    until(lambda: states() == ["REMOVED"])
    assert not may_build.is_set()
    may_build.set()
    ray.get(broker.stop.remote())
    groups.join(60)


def state(ray: Any, broker: Any) -> dict[str, Any]:
    groups: dict[str, Any] = ray.get(broker.state.remote())["groups"]
    return groups
