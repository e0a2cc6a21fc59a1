"""Seeds: derived numbers and initial weights."""

import torch
from torch import nn

from orchestrator.training.seeds import derive_seed, drawing_from, seeded


def test_a_derived_seed_depends_on_every_part_and_on_their_order() -> None:
    assert derive_seed("a", 1) == derive_seed("a", "1") != derive_seed("a1")
    assert derive_seed("a", "b") != derive_seed("b", "a")
    assert 0 <= derive_seed("x") < 2**63


def test_initial_weights_depend_on_the_seed_alone_and_move_no_generator() -> None:
    torch.manual_seed(1)
    one = seeded(lambda: nn.Linear(2, 2), 3)
    drawn = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(2))
    other, third = (seeded(lambda: nn.Linear(2, 2), seed) for seed in (3, 4))
    assert torch.equal(one.weight, other.weight)  # type: ignore[arg-type]
    assert not torch.equal(one.weight, third.weight)  # type: ignore[arg-type]


def test_seeding_queues_nothing_for_an_accelerator_that_is_not_in_use() -> None:
    """torch.manual_seed formats a stack trace at each call and keeps it until CUDA starts."""
    queued = len(torch.cuda._queued_calls)
    with drawing_from(5):
        drawn = torch.rand(3)
    assert len(torch.cuda._queued_calls) == queued
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(5)))
