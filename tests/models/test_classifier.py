"""The base of classifiers on a chain of two blocks: features, hidden representations, later starts."""

import torch
from torch import nn

from orchestrator.models.classifier import Classifier


class Doubling(Classifier):
    """Two blocks that double and add one, and a head that sums."""

    hidden_taps = (1,)
    fixed = range(1)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Scale(2.0), Shift(1.0))
        self.head = Sum()


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.factor


class Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.by


class Sum(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.sum(1, keepdim=True)


IMAGES = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_logits_are_the_head_of_the_features() -> None:
    network = Doubling()
    assert network.features(IMAGES).tolist() == [[3.0, 5.0], [7.0, 9.0]]
    assert network(IMAGES).tolist() == [[8.0], [16.0]]


def test_hidden_representations_are_taken_after_the_tapped_blocks() -> None:
    logits, hidden = Doubling().with_hidden(IMAGES)
    assert logits.tolist() == [[8.0], [16.0]]
    assert [one.tolist() for one in hidden] == [[[2.0, 4.0], [6.0, 8.0]]]


def test_a_network_that_starts_behind_its_first_block_leaves_it_out_for_that_long() -> None:
    network = Doubling()
    with network.starting_at(1):
        assert network.features(IMAGES).tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert network.features(IMAGES).tolist() == [[3.0, 5.0], [7.0, 9.0]]


def test_fixed_blocks_stay_in_evaluation_mode() -> None:
    network = Doubling().train()
    assert [block.training for block in network.blocks] == [False, True]
    assert network.head.training
    assert not any(module.training for module in network.eval().modules())
