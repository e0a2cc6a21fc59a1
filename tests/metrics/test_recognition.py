"""Recognition by distance: distances, ranks and thresholds by hand."""

import numpy as np
import pytest
import torch

from orchestrator.metrics.recognition import (
    Calibration,
    calibrate,
    class_distances,
    false_positives,
    ranks,
    threshold,
)


def test_the_distance_to_a_class_is_the_mean_over_its_images() -> None:
    references = torch.tensor([[0.0, 0.0], [6.0, 8.0], [3.0, 0.0]])
    found = class_distances(torch.tensor([[3.0, 4.0]]), references, torch.tensor([0, 0, 1]), 2)
    assert found.tolist() == [[5.0, 4.0]]  # (5 + 5) / 2, 4


def test_many_images_are_compared_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    images, references = torch.rand(23, 5, generator=generator), torch.rand(40, 5, generator=generator)
    labels = torch.arange(40) % 4
    every = np.linalg.norm(images.numpy()[:, None] - references.numpy()[None], axis=2)
    expected = np.stack([every[:, labels == label].mean(axis=1) for label in range(4)], axis=1)
    whole = class_distances(images, references, labels, 4)
    assert np.allclose(whole, expected, atol=1e-5)
    monkeypatch.setattr("orchestrator.metrics.recognition.BATCH", 7)
    assert torch.allclose(class_distances(images, references, labels, 4), whole, atol=1e-6)
    assert class_distances(images[:0], references, labels, 4).shape == (0, 4)
    with pytest.raises(ValueError, match="class 4 has no image to be near to"):
        class_distances(images, references, labels, 5)


def test_the_nearest_class_has_rank_1() -> None:
    distances = torch.tensor([[0.2, 0.5, 0.9], [0.2, 0.5, 0.9], [0.5, 0.5, 0.1]])
    assert ranks(distances, torch.tensor([0, 2, 1])).tolist() == [1.0, 3.0, 2.0]


def test_the_threshold_lies_between_what_it_separates() -> None:
    own, others = torch.tensor([0.3, 0.4]), torch.tensor([0.8, 0.6])
    assert threshold(own, others) == pytest.approx(0.5)


def test_a_threshold_where_persons_overlap_by_hand() -> None:
    """At 0.55: 3 of 4 accepted, 3 of 4 refused; at 0.75: 4 and 2; both are 1.5, and the smaller is taken."""
    own, others = torch.tensor([0.2, 0.3, 0.4, 0.7]), torch.tensor([0.5, 0.65, 0.8, 0.9])
    shares = {
        t: (own <= t).double().mean() + (others > t).double().mean() for t in (0.1, 0.25, 0.45, 0.55, 0.75)
    }
    assert float(shares[0.45]) == float(shares[max(shares, key=lambda t: float(shares[t]))]) == 1.75
    assert threshold(own, others) == pytest.approx(0.45)
    # Nobody is told apart: the smallest distance, which accepts one of each.
    assert threshold(torch.tensor([0.5]), torch.tensor([0.5])) == 0.5


def test_errors_are_counted_on_pairs_that_did_not_choose_the_threshold() -> None:
    own = torch.tensor([0.2, 0.9, 0.4, 0.3])  # 0.2 and 0.4 choose
    others = torch.tensor([0.6, 0.1, 0.8, 0.7])  # 0.6 and 0.8 choose
    assert calibrate(own, others) == Calibration(pytest.approx(0.5), 0.5, 0.5)  # type: ignore[arg-type]


def test_false_positives_are_a_share_of_what_the_judge_accepts() -> None:
    accepted, recognised = torch.tensor([1.0, 1, 1, 1, 0, 0]), torch.tensor([1.0, 0, 0, 0, 0, 1])
    assert false_positives(accepted, recognised) == 0.75
    assert false_positives(torch.zeros(6), recognised) is None
