"""Fisher information against gradients worked out by hand, by finite differences and by plain loops."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional

from orchestrator import config
from orchestrator.analyses import fisher
from orchestrator.analyses.fisher import Logits, Profile, Search
from orchestrator.attacks import mia
from orchestrator.attacks.inverter import Inverter
from orchestrator.config.attacks import ZeroPolicy
from orchestrator.defenses.mid import MidHead
from orchestrator.models.ami import AmiClassifier, AmiInverter
from orchestrator.threat import WhiteBox, released
from orchestrator.training.seeds import seeded

SHAPE = (1, 3, 3)
EPSILON = 1e-6  # of finite differences in float64


def small() -> nn.Sequential:
    """Return a float64 target of one convolution and one linear layer: (N, 1, 3, 3) -> logits (N, 3)."""
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)), 0)
    assert isinstance(network, nn.Sequential)
    return network.double()


def real() -> AmiClassifier:
    """Return a target with batch norms, dropout, max pooling and ReLU, of which half is frozen."""
    network = seeded(lambda: AmiClassifier(classes=4, channels=1, image_size=32, width=0.05), 0)
    assert isinstance(network, AmiClassifier)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(0.01 + 0.1 * drawn(*buffer.shape))
    network.blocks[:2].requires_grad_(False)
    return network


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def attack(**settings: Any) -> config.MiaAttack:
    return config.MiaAttack(name="mia", **({"start": 0.5, "noise": 0.1} | settings))


def by_loop(network: nn.Module, loss: Callable[[int], Tensor], rows: int) -> list[float]:
    """Return FI of each layer by one backward pass of `loss(row)` for each row."""
    network.eval().requires_grad_(True)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    sums = [0.0] * len(layers)
    for row in range(rows):
        network.zero_grad()
        loss(row).backward()
        for place, layer in enumerate(layers):
            flat = torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])
            sums[place] += flat.double().square().mean().item() / rows
    return sums


def by_differences(
    network: nn.Module, make: Callable[[], Tensor], originals: Tensor
) -> dict[str, list[float]]:
    """Return FI of each layer for each distance by central differences of what is made in each parameter."""

    def distances() -> Tensor:
        made = make()
        return torch.stack([one(made, originals) for one in fisher.DISTANCES.values()])

    values = []
    with torch.no_grad():
        for layer in (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
            squares = []
            for number in (p.view(-1)[i : i + 1] for p in layer.parameters() for i in range(p.numel())):
                number += EPSILON
                above = distances()
                number -= 2 * EPSILON
                squares.append(((above - distances()) / (2 * EPSILON)).square().mean(1))
                number += EPSILON
            values.append(torch.stack(squares).mean(0))
    return dict(zip(fisher.DISTANCES, torch.stack(values, dim=1).tolist(), strict=True))


def test_classification_by_hand() -> None:
    """With d = F(x) - onehot(y), the gradients are d h', d for the last layer, W'd x', W'd for the first."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)).double()
    first, last = network[1], network[2]
    images, labels = drawn(5, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    found = fisher.classification_profile(network, images, labels)
    with torch.no_grad():
        x = images.flatten(1)
        h = first(x)
        d = last(h).softmax(1) - functional.one_hot(labels, 2)
        e = d @ last.weight
        norms = [
            d.square().sum(1) * (h.square().sum(1) + 1) / 8,
            e.square().sum(1) * (x.square().sum(1) + 1) / 15,
        ]
    assert found.names == ("1", "2")
    assert found.values == pytest.approx([norms[1].mean().item(), norms[0].mean().item()], rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_classification_equals_a_plain_loop(chunk: int) -> None:
    network, images, labels = real(), drawn(7, 1, 32, 32), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    found = fisher.classification_profile(network, images, labels, chunk=chunk)
    expected = by_loop(
        network,
        lambda row: functional.cross_entropy(network(images[row : row + 1]), labels[row : row + 1]),
        len(images),
    )
    assert found.names == ("blocks.0.0", "blocks.1.0", "blocks.2.0", "head.1", "head.3")
    assert found.values == pytest.approx(expected, rel=1e-4)
    assert all(value > 1e-9 for value in expected)


def test_bytes_are_read_as_intensities() -> None:
    images, labels = (drawn(3, 1, 32, 32) * 255).byte(), torch.tensor([0, 1, 2])
    found = fisher.classification_profile(real(), images, labels)
    assert found == fisher.classification_profile(real(), images.float() / 255, labels)


def latent_search(classes: Tensor) -> Search:
    """Return a search with momentum among latents (N, 2, 4): w and its velocity."""
    to_pixels = drawn(4, 9, seed=1, dtype=torch.float64)

    def decode(latents: Tensor) -> Tensor:
        return (latents[:, 0] @ to_pixels).sigmoid().unflatten(1, SHAPE)

    def step(logits: Logits, latents: Tensor, classes: Tensor) -> Tensor:
        def cost(latents: Tensor) -> Tensor:
            prior = 0.1 * latents[:, 0].square().sum()
            return functional.cross_entropy(logits(decode(latents)), classes, reduction="sum") + prior

        velocity = 0.9 * latents[:, 1] - 0.2 * grad(cost)(latents)[:, 0]
        return torch.stack([latents[:, 0] + velocity, velocity], dim=1)

    return Search(step, drawn(len(classes), 2, 4, seed=2, dtype=torch.float64), classes, decode)


def pixel_search(cost: str) -> Callable[[Tensor], Search]:
    def made(classes: Tensor) -> Search:
        search = fisher.mia_search(attack(cost=cost), classes, SHAPE)
        return replace(search, start=search.start.double())

    return made


@pytest.mark.parametrize(
    ("made", "chunk"),
    [
        (pixel_search("probability"), 2),
        (pixel_search("cross-entropy"), 1),
        (latent_search, 1),
        (latent_search, 2),
    ],
)
def test_a_search_is_differentiated_through_its_last_update(
    made: Callable[[Tensor], Search], chunk: int
) -> None:
    """The third image by finite differences of theta in the third update alone."""
    network, classes = small(), torch.tensor([0, 1, 2])
    search, originals = made(classes), drawn(3, *SHAPE, seed=3, dtype=torch.float64)
    found = fisher.search_profiles(
        network, search, originals, iterations=[1, 3], distances=fisher.DISTANCES, chunk=chunk
    )
    assert list(found) == [("l2", 1), ("l2", 3), ("l1", 1), ("l1", 3)]
    latents = search.start
    for iteration in (1, 2, 3):
        before = latents

        def make(before: Tensor = before) -> Tensor:
            return search.decode(search.step(network, before, classes))

        if iteration != 2:
            for name, expected in by_differences(network, make, originals).items():
                assert found[name, iteration].names == ("0", "3")
                assert found[name, iteration].values == pytest.approx(expected, rel=1e-5)
        latents = search.step(network, before, classes).detach()


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_a_search_equals_a_plain_loop(chunk: int) -> None:
    """The update by autograd, whose graph is kept, instead of `torch.func`."""
    network, classes = real(), torch.tensor([0, 1, 2])
    settings, originals = attack(learning_rate=0.3), drawn(3, 1, 32, 32)
    search = fisher.mia_search(settings, classes, (1, 32, 32))
    found = fisher.search_profiles(
        network, search, originals, iterations=[1], distances={"l2": fisher.squared_l2}, chunk=chunk
    )

    def loss(row: int) -> Tensor:
        image = search.start[row : row + 1].clone().requires_grad_()
        cost = 1.0 - network(image).softmax(1)[0, classes[row]]
        (slope,) = torch.autograd.grad(cost, image, create_graph=True)
        updated = (image - settings.learning_rate * slope).clamp(0.0, 1.0)
        return (updated - originals[row]).square().sum()

    assert found["l2", 1].values == pytest.approx(by_loop(network, loss, 3), rel=1e-4)


@pytest.mark.parametrize("cost", ["probability", "cross-entropy"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_the_search_of_mia_takes_its_steps(cost: str, start: float) -> None:
    classes, settings = torch.tensor([2, 0]), attack(cost=cost, steps=3, start=start, learning_rate=0.5)
    target = WhiteBox(small().float())
    search = fisher.mia_search(settings, classes, SHAPE)
    images = search.start
    for _ in range(3):
        images = search.step(target.logits, images, classes)
    found = mia.invert(settings, target, torch.eye(3)[classes], 1, SHAPE)
    torch.testing.assert_close(found.images, images.detach())
    assert not torch.equal(images, search.start)


def test_a_step_that_changes_nothing_has_no_shares() -> None:
    """From a black image, pixels that would darken stay where they are, whatever theta is."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    network[1].weight = nn.Parameter(torch.tensor([[-1.0] * 9, [1.0] * 9]))
    search = fisher.mia_search(attack(start=0.0, noise=0.0), torch.tensor([0]), SHAPE)
    found = fisher.search_profiles(
        network, search, torch.ones(1, *SHAPE), iterations=[1], distances=fisher.DISTANCES
    )
    assert found["l2", 1].values == (0.0,)
    assert all(share != share for share in found["l2", 1].normalised)


def inverter(policy: ZeroPolicy, network: nn.Module, offset: float) -> Inverter:
    return Inverter(network, offset=offset, offset_learnable=True, zero_policy=policy)


@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize("offset", [0.5, 50.0])
def test_an_inverter_is_differentiated_through_the_scores(renormalised: bool, offset: float) -> None:
    """Against finite differences: two of three scores, of which offset 0.5 leaves one to the shift."""
    target, images = small(), drawn(4, *SHAPE, dtype=torch.float64)
    pixels = nn.Sequential(nn.Linear(3, 9), nn.Sigmoid(), nn.Unflatten(1, SHAPE))
    made = inverter("zero-after-log", pixels, offset).double()
    release = config.Release(truncation=2, renormalised=renormalised)
    found = fisher.inverter_profiles(target, made, release, images, distances=fisher.DISTANCES, chunk=3)

    def make() -> Tensor:
        scores = target(images).softmax(1)
        kept = scores > scores.amin(1, keepdim=True)
        scores = torch.where(kept, scores, 0.0)
        scores = scores / scores.sum(1, keepdim=True) if renormalised else scores
        values = torch.where(kept, scores.log() + offset, torch.inf)
        return pixels(torch.where(kept, values + (-values.amin(1, keepdim=True)).clamp(min=0.0), 0.0))

    for name, expected in by_differences(target, make, images).items():
        assert found[name].values == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp", "floor"])
@pytest.mark.parametrize("release", [config.Release(), config.Release(truncation=2, renormalised=True)])
def test_the_inverter_is_given_what_is_released(policy: ZeroPolicy, release: config.Release) -> None:
    target, images, seen = real().eval(), drawn(5, 1, 32, 32), []
    network = seeded(lambda: AmiInverter(classes=4, channels=1, image_size=32, width=0.05), 1)
    made = inverter(policy, network, 50.0).eval()

    def distance(found: Tensor, originals: Tensor) -> Tensor:
        seen.append(found.detach())
        return fisher.l1(found, originals)

    (profile,) = fisher.inverter_profiles(
        target, made, release, images, distances={"own": distance}, chunk=5
    ).values()
    with torch.no_grad():
        expected = made(released(target(images).softmax(1), release), release.truncation or 4)
    torch.testing.assert_close(seen[0], expected)
    assert all(value > 0 for value in profile.values)


def test_nothing_changes_and_modes_do_not_matter() -> None:
    """Frozen layers count, dropout is off, batch norms keep their statistics, whatever state F is in."""
    target = real().train()
    generator = inverter(
        "zero-after-log", nn.Sequential(nn.Linear(4, 1024), nn.Unflatten(1, (1, 32, 32))), 50.0
    )
    images, labels = drawn(3, 1, 32, 32), torch.tensor([0, 1, 2])

    def profiles(network: nn.Module) -> list[Profile]:
        search = fisher.mia_search(attack(), labels, (1, 32, 32))
        return [
            fisher.classification_profile(network, images, labels),
            *fisher.search_profiles(
                network, search, images, iterations=[2], distances=fisher.DISTANCES
            ).values(),
            *fisher.inverter_profiles(
                network, generator, config.Release(), images, distances=fisher.DISTANCES
            ).values(),
        ]

    def state(network: nn.Module) -> list[Any]:
        flags = [(p.requires_grad, p.grad) for p in network.parameters()]
        modes = [module.training for module in network.modules()]
        return [{k: v.tolist() for k, v in network.state_dict().items()}, flags, modes]

    before = [state(target), state(generator), torch.get_rng_state().tolist()]
    found = profiles(target)
    assert [state(target), state(generator), torch.get_rng_state().tolist()] == before
    assert found == profiles(real().eval().requires_grad_(True))


def test_squares_of_tiny_gradients_do_not_vanish() -> None:
    """A saturated score: the gradient is about 1e-26, whose square float32 does not hold."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    network[1].weight = nn.Parameter(torch.tensor([[60.0], [0.0]]))
    network[1].bias = nn.Parameter(torch.zeros(2))
    found = fisher.classification_profile(network, torch.ones(1, 1, 1, 1), torch.tensor([0]))
    small_score = torch.tensor(-60.0, dtype=torch.float64).exp().item()
    # The gradient of the right class is rounded to 0, those of the other's weight and bias are its score.
    assert found.values == pytest.approx([small_score**2 / 2], rel=1e-4)


def test_a_bottleneck_is_profiled_without_its_noise() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 2), MidHead(8, 3))
    images, labels = drawn(4, *SHAPE), torch.tensor([0, 1, 2, 0])
    once, again = (fisher.classification_profile(network, images, labels) for _ in range(2))
    assert once == again
    assert once.names == ("0", "1.bottleneck", "1.logits")
    assert network[1].noise_at_inference


def test_shares() -> None:
    profile = Profile(("a", "b", "c", "d"), (1.0, 3.0, 0.0, 4.0))
    assert profile.normalised == (0.125, 0.375, 0.0, 0.5)
    assert profile.early_share() == 0.125
    assert profile.early_share((2, 3)) == 0.5


def test_thirds_are_counted_in_layers() -> None:
    """Three blocks of one convolution each, then a head of two linear layers: thirds (1, 2) of the blocks."""
    network = real()
    assert fisher.layer_thirds(network) == network.layer_groups == (1, 2)
    first = network.blocks[0]
    assert isinstance(first, nn.Sequential)
    first.append(nn.Conv2d(4, 4, 1))
    assert fisher.layer_thirds(network) == (2, 3)


def test_errors_say_what_to_do() -> None:
    network, images, labels = small().float(), drawn(1, *SHAPE), torch.tensor([0])
    search = fisher.mia_search(attack(), labels, SHAPE)
    for iterations in ([], [0, 2]):
        with pytest.raises(ValueError, match="must name one or more, counted from 1"):
            fisher.search_profiles(network, search, images, iterations=iterations, distances=fisher.DISTANCES)
    with pytest.raises(ValueError, match="profile the attack with process: none"):
        fisher.mia_search(attack(process="denoise-sharpen"), labels, SHAPE)
    with pytest.raises(ValueError, match="profile a release of scores"):
        fisher.inverter_profiles(
            network,
            inverter("floor", nn.Identity(), 50.0),
            config.Release(labels_only=True),
            images,
            distances=fisher.DISTANCES,
        )
    with pytest.raises(ValueError, match="holds no convolution and no linear layer"):
        fisher.classification_profile(nn.Sequential(nn.Flatten()), images, labels)
