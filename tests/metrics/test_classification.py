"""Top-k accuracy by hand, and where it is undefined."""

import pytest
import torch

from orchestrator.metrics.classification import is_among, topk_accuracy

LOGITS = torch.tensor([[3.0, 2, 1, 0, -1, -2, -3], [0, 0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("labels", "k", "expected"),
    [
        ([0, 0], 1, 1.0),
        ([1, 1], 1, 0.0),
        ([1, 1], 2, 1.0),  # equal logits rank by class index
        ([4, 4], 5, 1.0),
        ([5, 4], 5, 0.5),
        ([6, 6], 5, 0.0),
    ],
)
def test_topk_accuracy(labels: list[int], k: int, expected: float) -> None:
    assert topk_accuracy(LOGITS, torch.tensor(labels), k) == expected


def test_each_row_is_right_or_wrong() -> None:
    found = is_among(LOGITS, torch.tensor([1, 0]), 1)
    assert found is not None
    assert found.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_top5_of_at_most_five_classes_is_undefined(classes: int) -> None:
    assert topk_accuracy(torch.rand(4, classes), torch.zeros(4, dtype=torch.long), 5) is None
