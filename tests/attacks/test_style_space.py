"""Style space: P space by hand, truncation in the generator, z where there is no mapping, StyleGAN2."""

from typing import Any

import pytest
import torch

from orchestrator.attacks import search
from orchestrator.attacks.latent import GenerativePrior, normal_rows
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.attacks.style_space import StyleSpace
from orchestrator.config.attacks import ATTACK_SPECS
from orchestrator.models.framing import Framed
from orchestrator.models.stylegan2 import StyleGan2
from tests.attacks.priors import CLASSES, Critic, Styled, boxed, small_network, small_prior
from tests.models import stylegans

CPU = torch.device("cpu")


def mapped(psi: float = 0.5, cutoff: int = 2) -> tuple[StyleSpace, Styled]:
    """Return the space of a generator with a mapping, and it."""
    generator = small_prior(Styled).generator
    assert isinstance(generator, Styled)
    return StyleSpace(generator, psi, cutoff), generator


def plain() -> StyleSpace:
    """Return the space of a generator without one."""
    return StyleSpace(small_prior().generator, 0.5, 2)


def test_p_space_and_back() -> None:
    space, styles = mapped()[0], torch.tensor([[-0.4, 0.0, 1.5, -2.0]])
    assert space.to_p(styles).tolist() == [[-2.0, 0.0, 1.5, -10.0]]
    torch.testing.assert_close(space.from_p(space.to_p(styles)), styles)
    assert torch.equal(plain().to_p(styles), styles)
    assert torch.equal(plain().from_p(styles), styles)


def test_bounds_by_hand() -> None:
    """p -2 and 1: mean -0.5, deviation 1.5 (divided by the number)."""
    styles = torch.tensor([[-0.4], [1.0]])
    for deviations, box in ((1.0, (-0.4, 1.0)), (2.0, (-0.7, 2.5))):
        low, high = mapped()[0].bounds(styles, deviations)
        torch.testing.assert_close((low.item(), high.item()), box)
    low, high = plain().bounds(styles, 1.0)  # of z itself: mean 0.3, deviation 0.7
    torch.testing.assert_close((low.item(), high.item()), (-0.4, 1.0))
    low, high = plain().bounds(styles, 2.0)
    torch.testing.assert_close((low.item(), high.item()), (-1.1, 1.7))


def test_truncation_is_inside_the_generator_of_the_first_layers() -> None:
    space, generator = mapped(psi=0.25, cutoff=2)
    style = torch.tensor([[0.9, -0.3, 0.1, 0.4]])
    moved = generator.mean + 0.25 * (style - generator.mean)
    expected = generator.synthesize(torch.stack([moved, moved, style], dim=1))
    torch.testing.assert_close(space(style), expected)
    drawn = space.drawn(5, CPU, "key", 1)
    latents = normal_rows(torch.zeros(1), (5, 6), "key", 1)[0]
    torch.testing.assert_close(drawn, generator.styles(latents)[:, 0])
    torch.testing.assert_close(space(drawn), generator.synthesize(generator.styles(latents, 0.25, 2)))


def test_without_a_mapping_it_is_the_generator() -> None:
    latents = plain().drawn(5, CPU, "key", 1)
    assert torch.equal(latents, normal_rows(torch.zeros(1), (5, 6), "key", 1)[0])
    assert torch.equal(plain()(latents), small_prior().generator(latents))


def stylegan2() -> StyleGan2:
    """Return a small one with four styles, of a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator = StyleGan2(channels=1, counts=(8, 4), latent_size=6, style_size=12, layers=2)
        generator.mapping.w_avg.normal_()
    return generator


def test_styles_of_stylegan2_are_truncated_as_by_itself() -> None:
    generator, latents = stylegan2(), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    space = StyleSpace(generator, 0.7, 3)
    expected = generator.synthesize(generator.styles(latents, 0.7, 3)).clamp(0.0, 1.0)
    torch.testing.assert_close(space(generator.styles(latents)[:, 0]), expected)
    assert not torch.allclose(expected, StyleSpace(generator, 1.0, 3)(generator.styles(latents)[:, 0]))


@pytest.mark.parametrize("clips", [True, False])
def test_images_are_clipped_before_they_are_cropped_and_resized_or_not_at_all(clips: bool) -> None:
    generator, latents = stylegans.small(), torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    framed = Framed(generator, 16, channels=3, image_size=5, crop=0.75)
    styles = generator.styles(latents)
    whole = generator.synthesize(styles)
    assert whole.min() < 0.0 < 1.0 < whole.max()
    shown = (whole.clamp(0.0, 1.0) if clips else whole)[:, :, 2:14, 2:14]
    expected = torch.nn.functional.interpolate(shown, size=(5, 5), mode="bilinear", antialias=True)
    images = StyleSpace(framed, 1.0, 0, clips=clips)(styles[:, 0])
    torch.testing.assert_close(images, expected)
    late = StyleSpace(framed, 1.0, 0, clips=False)(styles[:, 0]).clamp(0.0, 1.0)
    assert (images - late).abs().max() > 0.1


SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "mirror": ({"pool": 50, "starts": 2}, {"steps": 0}, {"steps": 40}),
    "mirror-black-box": ({"pool": 50, "population": 20}, {"generations": 0}, {"generations": 10}),
    "vmi": (
        {"samples": 8, "learning_rate": 0.05, "couplings": 1, "width": 4, "normalisation": "identity"},
        {"steps": 0},
        {"steps": 60},
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_styles_of_stylegan2_are_searched(name: str) -> None:
    common, idle, busy = SEARCHES[name]
    costs = []
    for own in (idle, busy):
        attack = ATTACK_SPECS[name].model_validate({"name": name, **common, **own})
        box = boxed(small_network(), attack.access)
        prior = GenerativePrior(stylegan2(), Critic())
        found = search_to_the_end(search(attack, box, m=1, shape=(1, 8, 8), prior=prior), torch.eye(CLASSES))
        assert 0.0 <= found.images.min() <= found.images.max() <= 1.0
        costs.append(found.costs.mean())
    assert costs[1] < costs[0]
