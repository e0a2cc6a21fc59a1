"""A group's process group on two real processes, set up as Ray Train's controller does on its workers."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import pytest

from orchestrator.runtime.ray import process_group
from orchestrator.runtime.ray.process_group import ProcessGroup, join, leave


class Workers:
    """The part of Ray Train's worker group that a backend calls; each worker is a process."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        self._processes = [ProcessPoolExecutor(1, mp_context=context) for _ in range(size)]
        self.calls: list[Callable[..., Any]] = []

    def __len__(self) -> int:
        return len(self._processes)

    def execute_single_async(self, rank: int, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a call in one process."""
        self.calls.append(call)
        return self._processes[rank].submit(call, *arguments)

    def execute_single(self, rank: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a call in one process returns."""
        return self.execute_single_async(rank, call, *arguments).result(60)

    def execute_async(self, call: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
        """Begin a call in every process."""
        return [self.execute_single_async(rank, call, *arguments) for rank in range(len(self))]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.shutdown()


def summed(value: int) -> int:
    """Return the sum of the ranks' values, in one of them."""
    import torch

    total = torch.tensor([value])
    torch.distributed.all_reduce(total)
    return int(total)


def is_connected() -> bool:
    """Return whether this process is in a group."""
    import torch

    return torch.distributed.is_initialized()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Workers]]:
    """Return a maker of workers, whose futures stand in for Ray's references."""
    monkeypatch.setattr(process_group.ray, "get", lambda futures: [one.result(120) for one in futures])
    monkeypatch.setattr(process_group.ray, "wait", lambda futures, **_: [one.result(60) for one in futures])
    made: list[Workers] = []

    def make(size: int) -> Workers:
        made.append(Workers(size))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_two_workers_meet_and_part(workers: Callable[[int], Workers]) -> None:
    two, config = workers(2), ProcessGroup("gloo")
    setup = config.backend_cls()
    setup.on_start(two, config)
    values = [two.execute_single_async(rank, summed, rank + 1) for rank in range(2)]
    assert [value.result(60) for value in values] == [3, 3]
    setup.on_shutdown(two, config)
    assert [two.execute_single(rank, is_connected) for rank in range(2)] == [False, False]
    assert two.calls.count(join) == two.calls.count(leave) == 2


def test_a_single_worker_is_left_alone(workers: Callable[[int], Workers]) -> None:
    one, config = workers(1), ProcessGroup("gloo")
    setup = config.backend_cls()
    setup.on_start(one, config)
    setup.on_shutdown(one, config)
    assert not one.calls
    assert config.to_dict() == {"backend": "gloo"}
