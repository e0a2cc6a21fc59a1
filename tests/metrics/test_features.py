"""Feature metrics against values computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from orchestrator.metrics.features import (
    Overlap,
    by_class,
    centroid_distance,
    frechet_distance,
    knn_distance,
    mean_overlap,
    overlap_by_class,
    precision_recall_density_coverage,
)

PRIVATE = torch.tensor([[0.0, 0.0], [4.0, 0.0], [100.0, 100.0], [0.0, 2.0]])
PRIVATE_LABELS = torch.tensor([0, 0, 1, 0])
FOUND = torch.tensor([[3.0, 1.0], [103.0, 104.0], [0.0, 2.0]])
FOUND_LABELS = torch.tensor([0, 1, 0])


def line(*values: float) -> Tensor:
    """Features of one dimension, (N, 1)."""
    return torch.tensor(values)[:, None]


def normal(seed: int, shape: tuple[int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(features: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """Return features moved so that their mean is exactly `mean` and their covariance root @ root.T."""
    centred = features - features.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(centred.T.cov()), centred.T, upper=False)
    return (root @ white).T + mean


def test_knn_distance_is_squared_and_within_the_class() -> None:
    """(1, 1) from (4, 0); (3, 4) from the only image of class 1; the same point."""
    distances = knn_distance(FOUND, FOUND_LABELS, PRIVATE, PRIVATE_LABELS)
    torch.testing.assert_close(distances, torch.tensor([2.0, 25.0, 0.0], dtype=torch.float64))


def test_centroid_distance_is_not_squared() -> None:
    """Class 0 has its centroid at (4/3, 2/3)."""
    distances = centroid_distance(FOUND, FOUND_LABELS, PRIVATE, PRIVATE_LABELS)
    expected = [math.hypot(5 / 3, 1 / 3), 5.0, math.hypot(4 / 3, 4 / 3)]
    torch.testing.assert_close(distances, torch.tensor(expected, dtype=torch.float64))


def test_an_image_is_at_no_distance_from_itself_however_long_its_features() -> None:
    features = (1e3 + normal(0, (60, 2048))).float()
    labels = torch.zeros(60, dtype=torch.long)
    assert knn_distance(features, labels, features, labels).tolist() == [0.0] * 60


def test_a_class_without_private_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="found_labels has class 1, of which there is no private image"):
        knn_distance(FOUND, FOUND_LABELS, PRIVATE[:2], PRIVATE_LABELS[:2])


def test_by_class_keeps_the_images_order() -> None:
    values = by_class(
        lambda some, others: some[:, 0] + len(others), FOUND, FOUND_LABELS, PRIVATE, PRIVATE_LABELS
    )
    assert values.tolist() == [6.0, 104.0, 3.0]


def test_frechet_distance_of_two_gaussians() -> None:
    """Along common axes it is the squared distance of the means and of the standard deviations."""
    real = with_moments(
        normal(1, (50, 2)), torch.tensor([0.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 2.0]).double())
    )
    found = with_moments(
        normal(2, (40, 2)), torch.tensor([3.0, 4.0]).double(), torch.diag(torch.tensor([4.0, 1.0]).double())
    )
    assert frechet_distance(real, found) == pytest.approx(25 + (4 - 1) ** 2 + (1 - 2) ** 2, rel=1e-9)
    assert frechet_distance(found, real) == pytest.approx(35, rel=1e-9)


def test_frechet_distance_of_turned_gaussians() -> None:
    """diag(1, 9) and the same turned by 90 degrees: tr (S T)^(1/2) is 3 + 3."""
    root = torch.diag(torch.tensor([1.0, 3.0]).double())
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    mean = torch.zeros(2).double()
    real, found = (
        with_moments(normal(3, (30, 2)), mean, root),
        with_moments(normal(4, (30, 2)), mean, turn @ root),
    )
    assert frechet_distance(real, found) == pytest.approx(10 + 10 - 2 * 6, rel=1e-9)


def test_frechet_distance_of_fewer_images_than_features() -> None:
    """It is exact through the singular values of one set times the other."""
    real, found = normal(5, (20, 64)).float(), normal(6, (15, 64)).float() + 0.5
    roots = [(each - each.mean(0)).double() / math.sqrt(len(each) - 1) for each in (real, found)]
    means = (real.double().mean(0) - found.double().mean(0)).square().sum()
    spread = roots[0].square().sum() + roots[1].square().sum()
    expected = means + spread - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    assert frechet_distance(real, found) == pytest.approx(float(expected), abs=1e-3)
    assert 0.0 <= frechet_distance(real, real) < 1e-3


@pytest.mark.parametrize(("num_real", "num_found"), [(1, 5), (5, 1), (5, 0)])
def test_frechet_distance_of_one_image_is_undefined(num_real: int, num_found: int) -> None:
    assert math.isnan(frechet_distance(torch.rand(num_real, 3), torch.rand(num_found, 3)))


@pytest.mark.parametrize("k", [3, 5])
def test_a_set_overlaps_with_itself(k: int) -> None:
    features = normal(7, (12, 4)).float()
    overlap = precision_recall_density_coverage(features, features, k=k)
    assert (overlap.precision, overlap.recall, overlap.coverage) == (1.0, 1.0, 1.0)
    assert overlap.density == pytest.approx((k + 1) / k)


def test_sets_far_apart_do_not_overlap() -> None:
    features = normal(8, (12, 4))
    assert precision_recall_density_coverage(features, features + 1e3) == Overlap(0.0, 0.0, 0.0, 0.0)


def test_overlap_by_hand() -> None:
    """Real 0, 1, 3, 10 reach 1, 1, 2, 7 to their nearest one; found 1.5, 4, 30 reach 2.5, 2.5, 26.

    1.5 lies in the balls around 1 and 3, 4 in those around 3 and 10, 30 in none. Of the real images, the ball
    around 1.5 holds 0, 1 and 3, the one around 4 holds 3, and the one around 30 holds 10.
    """
    overlap = precision_recall_density_coverage(line(0, 1, 3, 10), line(1.5, 4, 30), k=1)
    assert overlap.precision == pytest.approx(2 / 3)
    assert overlap.recall == 1.0
    assert overlap.density == pytest.approx(4 / (1 * 3))
    assert overlap.coverage == 3 / 4


def test_recall_counts_real_images_not_found_ones() -> None:
    """As above with one more real image, which no found one reaches, although each found one reaches some."""
    assert precision_recall_density_coverage(line(0, 1, 3, 10, 1000), line(1.5, 4, 30), k=1).recall == 4 / 5


def test_the_second_neighbour_by_hand() -> None:
    """Real 0, 1, 3 reach 3, 2, 3; found 5 lies in the ball of 3 alone and is too lonely for a recall."""
    overlap = precision_recall_density_coverage(line(0, 1, 3), line(5), k=2)
    assert (overlap.precision, overlap.density, overlap.coverage) == (1.0, 0.5, pytest.approx(1 / 3))
    assert math.isnan(overlap.recall)


@pytest.mark.parametrize(("num_real", "num_found"), [(3, 5), (4, 0)])
def test_too_few_images_are_an_error(num_real: int, num_found: int) -> None:
    text = f"{num_real} real and {num_found} found images are too few: k=3 needs at least 4 real ones and one"
    with pytest.raises(ValueError, match=text):
        precision_recall_density_coverage(torch.rand(num_real, 2), torch.rand(num_found, 2), k=3)


def test_overlap_of_each_class_that_has_enough_images() -> None:
    """Class 0 is as above, class 1 found far away, class 2 has one real image, class 3 was not found."""
    private = torch.cat([line(0, 1, 3, 10), line(0, 1), line(0), line(0, 1)])
    private_labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 3])
    found, found_labels = torch.cat([line(1.5, 4, 30), line(99), line(0)]), torch.tensor([0, 0, 0, 1, 2])
    overlaps = overlap_by_class(found, found_labels, private, private_labels, k=1)
    assert list(overlaps) == [0, 1]
    mean = mean_overlap(overlaps.values())
    assert mean.precision == pytest.approx((2 / 3 + 0) / 2)
    assert mean.recall == 1.0  # class 1 has none
    assert mean.density == pytest.approx((4 / 3 + 0) / 2)
    assert mean.coverage == pytest.approx((3 / 4 + 0) / 2)


def test_the_mean_over_no_class_is_undefined() -> None:
    mean = mean_overlap([])
    assert all(math.isnan(value) for value in (mean.precision, mean.recall, mean.density, mean.coverage))
