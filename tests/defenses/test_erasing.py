"""Random erasing: torchvision's transform of one image, areas and fills by hand, its place in training."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from orchestrator.config import Defense, Erasing, Recipe
from orchestrator.defenses import needs_pixels, objective
from orchestrator.defenses.erasing import colour, erased
from orchestrator.models.ami import AmiClassifier
from orchestrator.training.loop import fit
from orchestrator.training.pairs import Pairs
from orchestrator.training.world import World


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Let each test draw the same numbers and leave none behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "erasing",
    [
        Erasing(),
        Erasing(least=0.02, most=0.9, elongation=3.3, probability=0.5, fill="released"),
        Erasing(least=0.97, most=0.99, elongation=3.0, fill="black"),  # most find no rectangle that fits
    ],
)
def test_a_batch_is_what_torchvision_makes_of_each_image(erasing: Erasing, channels: int) -> None:
    given = torch.rand(60, channels, 16, 16)
    scale, ratio = (erasing.least, erasing.most), (1 / erasing.elongation, erasing.elongation)
    value = colour(erasing, channels).flatten().tolist()
    one = v2.RandomErasing(erasing.probability, scale, ratio, value)
    torch.manual_seed(5)
    wanted, state = torch.stack([one(image) for image in given]), torch.random.get_rng_state()
    torch.manual_seed(5)
    found = erased(given, erasing)
    assert torch.equal(torch.random.get_rng_state(), state)  # neither more nor fewer draws
    torch.testing.assert_close(found, wanted)


def test_each_image_loses_a_square_of_its_own() -> None:
    """10 to 40 % of 400 pixels: squares with a side of 6 (36 pixels, 6.32 rounded) to 13."""
    found = erased(torch.ones(200, 1, 20, 20), Erasing(fill="black"))
    gone = found == 0
    heights, widths = gone.any(3).sum(2), gone.any(2).sum(2)
    assert torch.equal(heights, widths)
    assert torch.equal(gone.sum((1, 2, 3)), (heights * widths).flatten())
    assert (heights.min(), heights.max()) == (6, 13)
    assert len(gone.flatten(1).unique(dim=0)) > 150
    assert gone.any(0).all()  # no pixel is always safe


def test_the_fill_by_hand() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(colour(Erasing(), 3).flatten(), mean)
    torch.testing.assert_close(colour(Erasing(fill="released"), 3).flatten(), (1 + mean) / 2)
    grey = 0.2989 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406
    torch.testing.assert_close(colour(Erasing(), 1).flatten(), torch.tensor([grey]))


def test_an_empty_batch_stays_empty() -> None:
    assert erased(torch.rand(0, 3, 8, 8), Erasing()).shape == (0, 3, 8, 8)


def trained(defense: Defense, augmentation: str = "none") -> Tensor:
    """Return the first weights of a network after an epoch."""
    torch.manual_seed(1)
    network = AmiClassifier(classes=2, channels=1, image_size=32, width=0.01)
    pairs = Pairs(torch.rand(8, 1, 32, 32), torch.arange(8) % 2)
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 4, "augmentation": augmentation})
    fit(network, pairs, objective(defense, 2), recipe, 0, World(), chosen_on=pairs)
    return next(network.parameters()).detach()


def test_training_images_are_erased_and_training_repeats() -> None:
    defense = Defense(erasing=Erasing())
    assert torch.equal(trained(defense), trained(defense))
    assert not torch.equal(trained(defense), trained(Defense()))
    assert not torch.equal(trained(defense), trained(defense, "flip"))


def test_erasing_changes_what_the_first_blocks_see() -> None:
    assert needs_pixels(Defense(erasing=Erasing()))


def test_areas_that_descend_are_refused() -> None:
    with pytest.raises(ValueError, match=r"least=0\.5 must not exceed most=0\.4; lower least or raise most"):
        Erasing(least=0.5)
