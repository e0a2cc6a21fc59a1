"""Retrieval of the own private image, ranks among classes: by hand, by another program, and at chance."""

import math

import pytest
import torch

from orchestrator.metrics.classification import is_among
from orchestrator.metrics.retrieval import MEASURES, class_rank, nearest_class, own_image

CLASSES = torch.tensor([0, 1, 0, 0, 2])
GALLERY = torch.tensor([[0.0], [5.0], [1.0], [4.0], [9.0]])  # class 0 has 0, 1 and 4


def test_ranks_by_hand() -> None:
    """At 1.2 the distances to 0, 1 and 4 are 1.44, 0.04 and 7.84; class 2 has one image alone."""
    labels, queries = torch.tensor([0, 0, 0, 2]), torch.tensor([[1.2], [1.2], [1.2], [9.0]])
    found = own_image(queries, labels, torch.tensor([2, 0, 3, 4]), GALLERY, CLASSES)
    assert list(found) == list(MEASURES)
    assert found["rank"][:3].tolist() == [1, 2, 3]
    assert found["nearer"][:3].tolist() == [0, 0.5, 1]
    assert found["top1"][:3].tolist() == [1, 0, 0]
    assert found["chance"][:3].tolist() == pytest.approx([1 / 3] * 3)
    assert all(math.isnan(found[name][3]) for name in MEASURES)


def test_equally_near_images_take_their_places_by_lot() -> None:
    """0.5 is as far from 0 as from 1; of three equal images one stands second on average."""
    one = own_image(torch.tensor([[0.5]]), torch.tensor([0]), torch.tensor([0]), GALLERY, CLASSES)
    assert {name: value.item() for name, value in one.items()} == {
        "rank": 1.5,
        "nearer": 0.25,
        "top1": 0.5,
        "chance": pytest.approx(1 / 3),
    }
    same, places = torch.full((3, 2), 0.3), torch.arange(3)
    found = own_image(same + 0.1, torch.zeros(3).long(), places, same, torch.zeros(3).long())
    assert found["rank"].tolist() == [2.0] * 3
    assert found["top1"].tolist() == pytest.approx([1 / 3] * 3)


def test_what_depends_on_the_label_alone_is_at_chance_whatever_it_is() -> None:
    """Every image of a class is attacked and all have one reconstruction: the ranks are 1 to n."""
    generator = torch.Generator().manual_seed(0)
    gallery, classes = torch.rand(60, 8, generator=generator), torch.arange(60) % 3
    guesses = torch.rand(3, 8, generator=generator)[classes]
    found = own_image(guesses, classes, torch.arange(60), gallery, classes)
    assert found["nearer"].mean().item() == pytest.approx(0.5)
    assert (
        found["top1"].mean().item() == pytest.approx(found["chance"].mean().item()) == pytest.approx(1 / 20)
    )


def test_another_program_finds_the_same_ranks() -> None:
    generator = torch.Generator().manual_seed(1)
    gallery = torch.randint(0, 256, (50, 3, 4, 4), generator=generator) / 255.0
    classes = torch.randint(0, 4, (50,), generator=generator)
    own = torch.randperm(50, generator=generator)[:20]
    queries = (gallery[own] + 0.3 * torch.randn(20, 3, 4, 4, generator=generator)).clamp(0, 1)
    found = own_image(queries, classes[own], own, gallery, classes)
    for row, place in enumerate(own.tolist()):
        others = [one for one in range(50) if classes[one] == classes[place]]
        order = sorted(others, key=lambda one: ((gallery[one] - queries[row]) ** 2).sum().item())
        assert found["rank"][row] == order.index(place) + 1
        assert found["nearer"][row] == pytest.approx(order.index(place) / (len(others) - 1))


def test_the_rank_among_classes_says_which_k_accept() -> None:
    logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5]])
    assert class_rank(logits, torch.tensor([2, 1, 2])).tolist() == [2, 2, 3]
    drawn = torch.randint(0, 4, (40, 9), generator=torch.Generator().manual_seed(2)).float()
    wanted = torch.arange(40) % 9
    for k in (1, 3, 5):
        among = is_among(drawn, wanted, k)
        assert among is not None
        assert torch.equal(class_rank(drawn, wanted) <= k, among == 1)


def test_the_nearest_image_of_all_classes_names_one() -> None:
    queries = torch.tensor([[1.2], [4.6], [4.4], [30.0]])
    found = nearest_class(queries, GALLERY, CLASSES)
    assert found.tolist() == [0, 1, 0, 2]
