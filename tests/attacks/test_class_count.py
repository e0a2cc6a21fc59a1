"""How many classes a victim knows: Chao's estimate by hand, and that it comes closer than counting."""

import statistics

import pytest
import torch

from orchestrator.attacks.class_count import ClassCount, class_count, named_classes


@pytest.mark.parametrize(
    ("labels", "seen", "chao1"),
    [
        ([0, 0, 1, 1, 2], 3, 3 + 1 / 4),  # one class once, two classes twice
        ([0, 1, 2, 3, 3], 4, 4 + 9 / 2),  # three once, one twice
        ([5, 9, 9, 7], 3, 3 + 4 / 2),  # labels need not be dense
        ([0, 1, 2], 3, 3 + 3 * 2 / 2),  # none twice: the bias-corrected form
        ([0, 1, 1, 1], 2, 2.0),  # none twice and one once: nothing was missed
        ([0, 0, 1, 1], 2, 2.0),  # none once
        ([0, 0, 0, 1, 1, 1, 1], 2, 2.0),  # all many times
        ([4], 1, 1.0),
    ],
    ids=str,
)
def test_by_hand(labels: list[int], seen: int, chao1: float) -> None:
    found = class_count(torch.tensor(labels))
    assert found == ClassCount(seen, pytest.approx(chao1))  # type: ignore[arg-type]
    assert isinstance(found.chao1, float)


def test_classes_are_named_by_any_score_that_is_released() -> None:
    scores = torch.tensor([[0.7, 0.0, 0.0, 0.2], [0.0, 0.0, 0.0, 0.9], [0.6, 0.0, 0.0, 0.0]])
    assert named_classes(scores).tolist() == [0, 3]
    assert named_classes(torch.full((2, 4), 0.25)).tolist() == [0, 1, 2, 3]
    labels = torch.eye(5)[[4, 1, 4]]
    assert named_classes(labels).tolist() == sorted({4, 1})
    assert len(named_classes(labels)) == class_count(labels.argmax(1)).seen


def test_the_order_of_the_answers_does_not_matter() -> None:
    labels = torch.tensor([3, 1, 2, 2, 0, 3, 3])
    assert class_count(labels) == class_count(labels.sort().values) == class_count(labels.flip(0))


def test_all_classes_seen_many_times_are_all_there_are() -> None:
    assert class_count(torch.arange(50).repeat(3)) == ClassCount(50, 50.0)


def test_the_estimate_comes_closer_than_the_count() -> None:
    """60 answers of a victim with 50 classes, the n-th of them in proportion to 1/n; in the median of 40
    draws, because a draw with hardly a class seen twice can say anything."""
    frequencies = 1 / torch.arange(1, 51)
    found = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.multinomial(frequencies, 60, replacement=True, generator=generator)
        found.append(class_count(labels))
        assert found[-1].seen == len(set(labels.tolist())) < 50
    estimated, counted = (
        statistics.median(abs(value - 50) for value in values)
        for values in ([one.chao1 for one in found], [one.seen for one in found])
    )
    assert estimated < 0.6 * counted
