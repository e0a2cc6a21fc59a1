"""Pixel search: the best image of each row, batches in order, first images that depend on a key alone."""

import torch

from orchestrator.attacks import pixel_search
from orchestrator.attacks.pixel_search import BestImages, SearchResult, first_image, in_batches

CPU = torch.device("cpu")


def test_a_later_image_must_be_better_to_be_kept() -> None:
    lowest = BestImages(torch.zeros(2, 1, 1, 1))
    rows = torch.tensor([0, 1])
    for level, costs in ((0.1, [2.0, 1.0]), (0.2, [1.0, 3.0]), (0.3, [1.0, 0.5])):
        lowest.offer(rows, torch.full((2, 1, 1, 1), level), torch.tensor(costs))
    assert lowest.costs.tolist() == [1.0, 0.5]
    assert torch.equal(lowest.images.flatten(), torch.tensor([0.2, 0.3]))  # of equal costs the earlier one


def test_rows_that_are_not_offered_keep_their_image() -> None:
    lowest = BestImages(torch.zeros(3, 1, 1, 1))
    lowest.offer(torch.tensor([2]), torch.ones(1, 1, 1, 1), torch.tensor([0.5]))
    assert lowest.images.flatten().tolist() == [0.0, 0.0, 1.0]
    assert lowest.costs.tolist() == [torch.inf, torch.inf, 0.5]


def test_batches_are_joined_in_order() -> None:
    sizes = []

    def search(scores: torch.Tensor) -> SearchResult:
        sizes.append(len(scores))
        whole = scores[:, 0].long()
        return SearchResult(scores[:, :, None, None], whole, scores[:, 0], whole)

    scores = torch.arange(2.0 * pixel_search.CPU_BATCH + 1)[:, None]
    result = in_batches(search, scores, CPU)
    assert sizes == [pixel_search.CPU_BATCH, pixel_search.CPU_BATCH, 1]
    assert torch.equal(result.costs, scores[:, 0])
    assert torch.equal(result.images.flatten(), scores[:, 0])


def test_a_first_image_depends_on_its_key_alone() -> None:
    torch.manual_seed(0)
    image = first_image(0.5, 0.1, (1, 4, 4), "mia", 7)
    torch.manual_seed(1)
    assert torch.equal(image, first_image(0.5, 0.1, (1, 4, 4), "mia", 7))
    assert not torch.equal(image, first_image(0.5, 0.1, (1, 4, 4), "mia", 8))
    assert torch.equal(first_image(0.25, 0.0, (1, 2, 2), "mia"), torch.full((1, 2, 2), 0.25))
    assert first_image(0.5, 9.0, (1, 8, 8), "mia").aminmax() == (0.0, 1.0)  # clamped
