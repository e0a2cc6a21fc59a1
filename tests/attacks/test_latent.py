"""Latent search: rules of descent, draws, and for every attack that searches a prior independence of rows,
resumption and queries."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator.attacks import brepmi, latent, mirror_black_box, search, vmi
from orchestrator.attacks.latent import Adam, GenerativePrior, LatentSearch, Nesterov, normal_rows
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import Search, search_to_the_end
from orchestrator.attacks.sharded_search import search_all
from orchestrator.config.attacks import ATTACK_SPECS
from orchestrator.datasets import Location, load
from orchestrator.models.generator import StyleGenerator
from orchestrator.threat import BlackBox, WhiteBox
from orchestrator.training.world import Cancelled, World
from tests.attacks.priors import CLASSES, SIZE, boxed, small_network, small_prior
from tests.ranks import run_two
from tests.training.test_loop import Memory

SHORT: dict[str, dict[str, Any]] = {
    "gmi": {"steps": 7, "restarts": 2},
    "kedmi": {"steps": 7, "beside": 5},
    "brepmi": {"budget": 16 + 8 * 9, "points": 8, "margin": 0.5, "batch": 16},
    "ppa": {"steps": 7, "pool": 40, "starts": 3, "views": 2, "learning_rate": 0.1},
    "mirror": {"steps": 7, "pool": 40, "starts": 3},
    "plg-mi": {"steps": 7, "augmentations": 3, "restarts": 2},
    "mirror-black-box": {"pool": 40, "population": 10, "generations": 7},
    "vmi": {"steps": 7, "samples": 4, "levels": 2, "couplings": 1, "width": 4, "learning_rate": 0.01},
    "lomma-g": {"steps": 7, "restarts": 2},
    "lomma-k": {"steps": 7, "beside": 5},
}
"""Attack -> settings of a short search."""
QUERIES: dict[str, Callable[[SearchResult], Tensor]] = {
    "gmi": lambda found: 2 * (found.steps + 1),
    "kedmi": lambda found: found.steps + 1,
    "brepmi": lambda found: 16 * (found.queries - 9 * found.steps).div(16).round() + 9 * found.steps,
    "ppa": lambda found: 3 * (found.steps + 1 + 2),
    "mirror": lambda found: 3 * (found.steps + 1),
    "plg-mi": lambda found: 2 * (3 * found.steps + 1),
    "mirror-black-box": lambda found: 10 * found.steps,
    "vmi": lambda found: 4 * found.steps + 1,
    "lomma-g": lambda found: 2 * (found.steps + 1),
    "lomma-k": lambda found: found.steps + 1,
}
"""Attack -> images sent through the target for a row: each start at each step or its augmentations, the last
ones and their views; batches of starts, the points of a move and it."""
SHARED = {"ppa": 2 * 40, "mirror": 40, "mirror-black-box": 40}
"""Attack -> images sent once for all rows: the pool, and PPA's mirror images."""


def small_box(name: str) -> WhiteBox | BlackBox:
    """Return the small target as an attack has access to it."""
    box: WhiteBox | BlackBox = boxed(small_network(), ATTACK_SPECS[name].access)
    return box


def short(name: str, box: WhiteBox | BlackBox | None = None, **settings: Any) -> Search:
    """Return the short search of an attack against the small target."""
    attack = ATTACK_SPECS[name].model_validate({"name": name, **SHORT[name], **settings})
    return search(attack, box or small_box(name), m=1, shape=(1, 8, 8), prior=small_prior())


def rows(*classes: int) -> torch.Tensor:
    """Return the rows of classes."""
    return torch.eye(CLASSES)[list(classes)]


def check_equal(found: SearchResult, expected: SearchResult) -> None:
    """Compare all that a search leaves, up to rounding."""
    torch.testing.assert_close(found.images, expected.images)
    torch.testing.assert_close(found.costs, expected.costs)
    assert found.steps.tolist() == expected.steps.tolist()
    assert found.queries.tolist() == expected.queries.tolist()


def test_every_attack_with_a_prior_is_tried_here() -> None:
    assert SHORT.keys() == {name for name, one in ATTACK_SPECS.items() if one.needs_prior}


@pytest.mark.parametrize("name", SHORT)
def test_one_batch_of_eight_is_two_batches_of_four(name: str) -> None:
    whole = search_to_the_end(short(name), rows(*range(8)))
    halves = [search_to_the_end(short(name), rows(*part)) for part in (range(4), range(4, 8))]
    check_equal(whole, latent.joined(halves))


@pytest.mark.parametrize(("starts", "sizes"), [(1, [64, 3]), (4, [16] * 4 + [3]), (99, [1] * 67)])
def test_a_batch_has_as_many_images_with_any_number_of_starts(starts: int, sizes: list[int]) -> None:
    begun: list[int] = []

    def start(classes: Tensor) -> Tensor:
        begun.append(len(classes))
        return torch.zeros(len(classes), starts, SIZE)

    found = short("gmi", steps=0, restarts=starts)
    assert isinstance(found, LatentSearch)
    found.method = dataclasses.replace(found.method, start=start)
    found.advance(torch.eye(CLASSES)[[0] * sum(sizes)], {})
    assert begun == sizes


@pytest.mark.parametrize("name", SHORT)
def test_an_image_does_not_depend_on_its_place(name: str) -> None:
    forth = search_to_the_end(short(name), rows(0, 1, 2))
    back = search_to_the_end(short(name), rows(2, 1, 0))
    check_equal(forth, SearchResult(**{key: tensor.flip(0) for key, tensor in vars(back).items()}))
    assert not torch.equal(forth.images[0], forth.images[1])


@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_drawn_from_the_generator_that_others_use(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = search_to_the_end(short(name), rows(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(search_to_the_end(short(name), rows(3)).images, first.images)


@pytest.mark.parametrize("name", SHORT)
def test_another_seed_gives_another_image(name: str) -> None:
    found = search_to_the_end(short(name, seed=1), rows(3)).images
    assert not torch.allclose(found, search_to_the_end(short(name), rows(3)).images)


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("segment", [1, 3])
def test_a_search_stopped_inside_a_row_resumes_to_the_same_bytes(
    name: str, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search_all(short(name), rows(0, 5, 2), World())
    for module in (latent, brepmi, vmi, mirror_black_box):
        monkeypatch.setattr(module, "SEGMENT", segment)
    memory, stops = Memory(), 0
    while True:
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=lambda metrics: False)
        try:
            found = search_all(short(name), rows(0, 5, 2), world)
        except Cancelled:
            stops += 1
        else:
            break
    assert stops >= 2
    assert all(torch.equal(vars(found)[key], vars(whole)[key]) for key in vars(whole))


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("classes", [range(CLASSES), [3, 1]], ids=["all", "two"])
def test_queries_are_those_the_target_counts(name: str, classes: Sequence[int]) -> None:
    box = small_box(name)
    found = search_to_the_end(short(name, box), rows(*classes))
    expected = QUERIES[name](found)
    assert found.queries.tolist() == expected.tolist()
    shared = ATTACK_SPECS[name].model_validate({"name": name, **SHORT[name]}).shared_queries
    assert shared == SHARED.get(name, 0)
    assert box.num_queries == expected.sum() + shared


class Plane(StyleGenerator):
    """G: coordinates in a plane of images, in deviations."""

    latent_size = 2

    def __init__(self, axes: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.axes, self.mean = nn.Parameter(axes), nn.Parameter(mean)

    def synthesize(self, styles: Tensor) -> Tensor:
        return (styles @ self.axes + self.mean).view(-1, 1, 32, 32)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        return super().forward(latents)


class Flat(nn.Module):
    """D: every image is as real, and of every class alike."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images))

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def logits(self, features: Tensor, beside: Tensor) -> Tensor:
        return features.new_zeros(len(features), 3)


def digits_in_a_plane() -> tuple[nn.Sequential, GenerativePrior]:
    """Return a prior of the plane that digits 0, 1 and 2 spread most in, and a linear target whose logits are
    those of the nearest mean there."""
    digits = load("digits", Location())
    chosen = np.isin(digits.labels, (0, 1, 2))
    images = torch.from_numpy(np.array(digits.images[chosen])).flatten(1).float() / 255
    labels, mean = torch.from_numpy(digits.labels[chosen]), images.mean(dim=0)
    _, deviations, axes = torch.linalg.svd(images - mean, full_matrices=False)
    spread = deviations[:2, None] / len(images) ** 0.5
    to_plane = axes[:2] / spread
    means = torch.stack([((images[labels == one] - mean) @ to_plane.T).mean(0) for one in range(3)])
    head = nn.Linear(1024, 3)
    head.weight = nn.Parameter(8 * means @ to_plane)
    head.bias = nn.Parameter(-4 * means.square().sum(1) - head.weight.detach() @ mean)
    network = nn.Sequential(nn.Flatten(), head)
    return network, GenerativePrior(Plane(spread * axes[:2], mean), Flat(), [network] * 3, mean)


PLANE: dict[str, dict[str, Any]] = {
    "gmi": {"steps": 150, "identities": 1, "learning_rate": 0.002},
    "kedmi": {"steps": 400},
    "ppa": {"steps": 30, "pool": 200, "learning_rate": 0.05, "views": 5, "mirrors": False},
    "plg-mi": {"steps": 60},
    "brepmi": {"budget": 20_000, "patience": 100, "radius": 0.5},
    "mirror": {"steps": 50, "pool": 200, "mirrors": False},
    "mirror-black-box": {"pool": 200, "population": 20, "score": 0.995},
    "vmi": {"family": "gaussian", "steps": 60, "learning_rate": 0.1, "samples": 16},
    "lomma-g": {"steps": 150, "identities": 1, "learning_rate": 0.002},
    "lomma-k": {"steps": 400, "log_variance": 0.0},
}
"""Attack -> settings with which it finds digits in a plane."""


@pytest.mark.parametrize("name", SHORT)
def test_linear_networks_are_inverted(name: str) -> None:
    network, prior = digits_in_a_plane()
    attack = ATTACK_SPECS[name].model_validate({"name": name, **PLANE[name]})
    box: WhiteBox | BlackBox = boxed(network, attack.access)
    found = search_to_the_end(search(attack, box, m=1, shape=(1, 32, 32), prior=prior), torch.eye(3))
    scores = network(found.images).softmax(dim=1).diagonal()
    assert scores.min() > 0.99


def as_rank(rank: int, size: int, folder: str) -> None:
    """Search three rows as one of several processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    latent.SEGMENT = brepmi.SEGMENT = vmi.SEGMENT = mirror_black_box.SEGMENT = 3
    found = {name: vars(search_all(short(name), rows(4, 1, 6), World(rank, size))) for name in SHORT}
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    run_two(as_rank, tmp_path)
    for rank in range(2):
        for name, found in torch.load(tmp_path / f"rank{rank}.pt").items():
            check_equal(SearchResult(**found), search_to_the_end(short(name), rows(4, 1, 6)))


def test_momentum_is_torchs_with_a_clamp_after_each_step() -> None:
    torch.manual_seed(0)
    weights, start = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    theirs = nn.Parameter(start.clone())
    sgd = torch.optim.SGD([theirs], lr=0.02, momentum=0.9, nesterov=True)
    rule, ours = Nesterov(0.02, 0.9), start.clone()
    memory = rule.memory(ours)
    for number in range(1, 21):
        theirs.grad = 2 * weights * theirs.detach()
        sgd.step()
        theirs.data.clamp_(-1.0, 1.0)
        ours, memory = rule.step(ours, 2 * weights * ours, memory, number)
        ours = ours.clamp(-1.0, 1.0)
        torch.testing.assert_close(ours, theirs.data)


def test_adam_is_torchs() -> None:
    torch.manual_seed(0)
    weights, start = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    for betas in ((0.1, 0.1), (0.9, 0.999)):
        theirs = nn.Parameter(start.clone())
        adam = torch.optim.Adam([theirs], lr=0.05, betas=betas)
        rule, ours = Adam(0.05, betas), start.clone()
        memory = rule.memory(ours)
        for number in range(1, 21):
            theirs.grad = 2 * weights * theirs.detach()
            adam.step()
            ours, memory = rule.step(ours, 2 * weights * ours, memory, number)
            torch.testing.assert_close(ours, theirs.data)


def test_draws_depend_on_key_and_class_alone() -> None:
    drawn = normal_rows(torch.tensor([3, 1]), (2, 4), "gmi", 0)
    assert drawn.shape == (2, 2, 4)
    assert torch.equal(drawn[1:], normal_rows(torch.tensor([1]), (2, 4), "gmi", 0))
    assert not torch.equal(drawn, normal_rows(torch.tensor([3, 1]), (2, 4), "gmi", 1))
    many = normal_rows(torch.arange(50), (100,), "moments")
    assert many.mean().abs() < 0.05
    assert (many.std() - 1).abs() < 0.05
