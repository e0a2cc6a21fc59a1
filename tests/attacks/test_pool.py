"""Pools: order and ties of the best, answers in batches."""

import torch

from orchestrator.attacks import pool
from orchestrator.attacks.pool import Pool, answers, best_of


def test_the_best_first_and_of_equal_ones_the_first() -> None:
    assert best_of(torch.tensor([0.1, 0.7, 0.7, 0.9]), 3).tolist() == [3, 1, 2]


def test_each_class_has_its_own_starts() -> None:
    variables = torch.tensor([[0.0], [1.0], [2.0]])
    scores = torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    assert Pool(variables, scores).best(torch.tensor([1, 0]), 2).tolist() == [[[0.0], [2.0]], [[1.0], [2.0]]]


def test_answers_are_those_of_one_batch() -> None:
    variables = torch.arange(2.0 * pool.BATCH + 3)[:, None].requires_grad_()
    sizes = []

    def answer(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return 2 * images

    found = answers(lambda batch: batch + 1, answer, variables, torch.device("cpu"))
    assert torch.equal(found, 2 * (variables.detach() + 1))
    assert not found.requires_grad
    assert sizes == [pool.BATCH, pool.BATCH, 3]
