"""The world of a single process: nothing is wrapped, gathered or agreed on. tests/test_workers.py has two."""

import torch
from torch import nn

from orchestrator.training.world import CANCEL, World


def test_a_single_process_trains_the_model_itself_on_the_cpu_in_float32() -> None:
    world, model = World(), nn.Linear(1, 1)
    assert world.wrap(model) is model
    assert (world.rank, world.size, world.device.type, world.precision) == (0, 1, "cpu", "float32")


def test_a_single_process_has_every_row_and_decides_for_itself() -> None:
    rows = torch.rand(3, 2)
    assert torch.equal(World().gather(rows), rows)
    assert World().agree(CANCEL) == CANCEL


def test_by_default_reports_continue_and_nothing_is_preempted() -> None:
    world = World()
    assert world.report({"loss": 1.0})
    assert not world.is_preempted()
    assert world.checkpoint is None
