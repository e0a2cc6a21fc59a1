"""Spans PPA and StyleGAN2: candidates are truncated, what is searched of them, images beyond [0, 1]."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import ppa
from orchestrator.attacks.latent import GenerativePrior, LatentSearch, normal_rows
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.threat import WhiteBox
from tests.models.stylegans import LATENT, SIDE, STYLE, small

POOL = 24


class Colours(nn.Module):
    """Three classes: how red, green or blue an image is."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(5.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.mean(dim=(2, 3))


def searching(**settings: Any) -> LatentSearch:
    attack = config.PpaAttack(name="ppa", **{"pool": POOL, "starts": 4, "steps": 3, "views": 2, **settings})
    return ppa.search(attack, WhiteBox(Colours()), GenerativePrior(small(), None))


def candidates() -> Tensor:
    """Return the styles of the pool, (N, layers, d), truncated as the authors do."""
    latents = normal_rows(torch.zeros(1), (POOL, LATENT), "ppa pool", 0)[0]
    return small().styles(latents, psi=0.3, cutoff=3)


def best() -> Tensor:
    """Return the places of the four best candidates of each class by the mean of image and mirror image."""
    images, target = small().synthesize(candidates()).clamp(0, 1), Colours()
    both = [target(one).softmax(1) for one in (images, images.flip(3))]
    return (sum(both) / 2).topk(4, dim=0).indices.T


def test_released_starts_are_the_first_layer_of_the_best_candidates() -> None:
    starts = searching(psi=0.3, cutoff=3).method.start(torch.arange(3))
    assert starts.shape == (3, 4, STYLE)
    torch.testing.assert_close(starts, candidates()[:, 0][best()], rtol=1e-5, atol=1e-6)


def images_of(search: LatentSearch, starts: Tensor) -> Tensor:
    return search._prior.generator(starts.flatten(0, 1)).detach()


def test_corrected_starts_are_the_images_that_were_scored() -> None:
    search = searching(psi=0.3, cutoff=3, truncation="corrected")
    images = images_of(search, search.method.start(torch.arange(3)))
    torch.testing.assert_close(
        images, small().synthesize(candidates()[best().flatten()]), rtol=1e-4, atol=1e-4
    )


def test_released_starts_repeat_one_style_and_are_other_images() -> None:
    search = searching(psi=0.3, cutoff=3)
    starts = search.method.start(torch.arange(3))
    images = images_of(search, starts)
    repeated = starts.flatten(0, 1)[:, None].expand(-1, small().num_styles, -1)
    torch.testing.assert_close(images, small().synthesize(repeated), rtol=1e-4, atol=1e-4)
    assert (images - small().synthesize(candidates()[best().flatten()])).abs().max() > 0.01


@pytest.mark.parametrize("truncation", ["released", "corrected"])
def test_images_are_clipped_when_they_are_kept_and_not_before(truncation: str) -> None:
    search = searching(truncation=truncation, learning_rate=0.1)
    images = images_of(search, search.method.start(torch.arange(3)))
    assert images.min() < 0.0 or images.max() > 1.0
    found = search_to_the_end(search, torch.eye(3))
    assert found.images.shape == (3, 3, SIDE, SIDE)
    assert 0.0 <= found.images.min() <= found.images.max() <= 1.0


def test_styles_are_not_clipped_to_a_cube() -> None:
    starts = searching(clip=0.01).method.start(torch.arange(3))
    assert starts.abs().max() > 0.1
