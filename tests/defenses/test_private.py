"""DP-SGD: its step without noise is the plain one, clipping bounds it, noise repeats, epsilon is Opacus'."""

import copy
import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from opacus.accountants import RDPAccountant
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.config import DpSgd
from orchestrator.defenses.private import epsilon, prepared, private_optimizer, with_image_gradients
from orchestrator.models.ami import AmiClassifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze
from tests.ranks import run_two

LABELS = torch.tensor([0, 1, 2, 0])
PLAIN = DpSgd(noise_multiplier=0.0, max_grad_norm=1e6)


class Residual(nn.Module):
    """Adds in place, as public residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        out = self.inner(maps)
        out += maps
        return out


class Mixed(Classifier):
    """Every kind of layer that classifiers are made of; (N, 3, 9, 9) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            OrderedDict(
                first=nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
                strided=nn.Sequential(
                    nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.PReLU(8)
                ),
                residual=Residual(),
                flat=nn.Sequential(nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 12), nn.BatchNorm1d(12)),
            )
        )
        self.cut_points = {"first": 1, "strided": 2}
        self.layer_groups, self.hidden_taps = (1, 2), (1, 2, 3, 4)
        self.num_features = 12
        self.head = nn.Linear(12, 3)


def network() -> Classifier:
    torch.manual_seed(0)
    return prepared(Mixed()).to(memory_format=torch.channels_last)


def images(size: int = 4) -> Tensor:
    return torch.rand(size, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, size: int = 4) -> None:
    """Train on the first images, in the order of `fit`."""
    loss = functional.cross_entropy(model(images()[:size]), LABELS[:size])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def gradient_of(model: nn.Module) -> Tensor:
    """Return the gradients of all parameters as one vector."""
    gradients = [parameter.grad for parameter in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def adam(model: nn.Module) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=1e-3, amsgrad=True, fused=True)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.5)


def test_a_step_without_noise_and_clipping_is_the_plain_one() -> None:
    """Whatever the layers, with images in the channels' order, under a fused optimiser."""
    plain = network()
    private = copy.deepcopy(plain)
    names = list(plain.state_dict())
    plainly = adam(plain)
    privately = private_optimizer(PLAIN, adam(with_image_gradients(private)), batch_size=4)
    for _ in range(3):
        step(plain, plainly)
        step(private, privately)
        # Of a step of 1e-3; the order of summation is another.
        torch.testing.assert_close(private.state_dict(), plain.state_dict(), rtol=0, atol=2e-6)
    assert list(private.state_dict()) == names
    assert privately.state_dict().keys() == plainly.state_dict().keys()


def as_rank(rank: int, size: int, folder: str) -> None:
    """Take a step on this rank's half of the images; leave the weights."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    model = network()
    rows = slice(2 * rank, 2 * rank + 2)
    optimizer = private_optimizer(PLAIN, sgd(with_image_gradients(model)), batch_size=4)
    functional.cross_entropy(model(images()[rows]), LABELS[rows]).backward()
    optimizer.step()
    torch.save(model.state_dict(), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_take_the_step_of_one_on_the_whole_batch(tmp_path: Path) -> None:
    plain = network()
    step(plain, sgd(plain))
    run_two(as_rank, tmp_path)
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"rank{rank}.pt")
        torch.testing.assert_close(weights, dict(plain.state_dict()), rtol=1e-5, atol=1e-6)


def image_gradients() -> list[Tensor]:
    """Return each image's gradient by a backward pass of its own."""
    found = []
    for number in range(4):
        model = network()
        functional.cross_entropy(model(images()[number : number + 1]), LABELS[number : number + 1]).backward()
        found.append(gradient_of(model))
    return found


@pytest.mark.parametrize("bound", [0.01, 1.0, 1e3])
def test_each_image_is_clipped_to_the_bound(bound: float) -> None:
    model = network()
    dp = DpSgd(noise_multiplier=0.0, max_grad_norm=bound)
    step(model, private_optimizer(dp, adam(with_image_gradients(model)), batch_size=4))
    gradient = gradient_of(model)
    expected = sum(one * min(1.0, bound / one.norm().item()) for one in image_gradients()) / 4
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert gradient.norm() <= bound * 1.001


def test_a_smaller_batch_is_divided_by_the_full_size() -> None:
    gradients = []
    for batch_size in (2, 4):
        model = network()
        step(model, private_optimizer(PLAIN, adam(with_image_gradients(model)), batch_size), size=2)
        gradients.append(gradient_of(model))
    torch.testing.assert_close(gradients[0], 2 * gradients[1])


def noise(seed: int, dp: DpSgd) -> Tensor:
    """Return the gradient of a step; what images contribute to it is clipped to 1e-6."""
    model = network()
    optimizer = private_optimizer(dp, adam(with_image_gradients(model)), batch_size=4)
    torch.manual_seed(seed)
    step(model, optimizer)
    return gradient_of(model)


def test_noise_repeats_with_the_seed_and_has_the_deviation_asked_for() -> None:
    dp = DpSgd(noise_multiplier=2e6, max_grad_norm=1e-6)
    drawn = noise(0, dp)
    assert torch.equal(drawn, noise(0, dp))
    assert not torch.equal(drawn, noise(1, dp))
    assert drawn.std().item() == pytest.approx(2e6 * 1e-6 / 4, rel=0.05)


def test_evaluation_leaves_no_image_gradients() -> None:
    model = with_image_gradients(network()).eval()
    model(images()).sum().backward()
    assert all(parameter.grad_sample is None for parameter in model.parameters())  # type: ignore[attr-defined]


def test_mixed_precision_trains() -> None:
    model = network()
    optimizer = private_optimizer(PLAIN, adam(with_image_gradients(model)), batch_size=4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = functional.cross_entropy(model(images()).float(), LABELS)
    loss.backward()
    optimizer.step()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)


def test_frozen_blocks_train_nothing_and_keep_their_statistics() -> None:
    torch.manual_seed(0)
    model = Mixed()
    freeze(model, "strided", "weights+statistics")
    before = copy.deepcopy(model.blocks[:2].state_dict())
    prepared(model).train()
    step(model, private_optimizer(DpSgd(), adam(with_image_gradients(model)), batch_size=4))
    after = model.blocks[:2].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(model.get_submodule("blocks.first.1"), nn.BatchNorm2d)
    assert isinstance(model.get_submodule("blocks.flat.3"), nn.GroupNorm)


def test_batch_norms_become_group_norms_of_the_same_weights() -> None:
    original = AmiClassifier(classes=2, channels=1, image_size=32, width=0.5)
    weights = dict(original.named_parameters())
    model = prepared(original)
    assert model is original
    assert all(weights[name] is parameter for name, parameter in model.named_parameters())
    norms = [layer for layer in model.modules() if isinstance(layer, nn.GroupNorm)]
    assert [(norm.num_channels, norm.num_groups) for norm in norms] == [(64, 32), (128, 32), (256, 32)]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (4, 2), (12, 4), (32, 16), (48, 16), (512, 32)])
def test_no_group_has_a_single_channel_among_others(channels: int, groups: int) -> None:
    model = Mixed()
    model.head = nn.BatchNorm1d(channels)
    head = prepared(model).head
    assert isinstance(head, nn.GroupNorm)
    assert (head.num_groups, head.affine) == (groups, True)


def test_frozen_batch_norms_that_absorb_images_are_refused() -> None:
    model = Mixed()
    freeze(model, "first", "weights")
    expected = (
        "target.freeze=weights lets the frozen batch norm blocks.first.1 absorb private images, which "
        "target.defense.dp cannot protect; set target.freeze to weights+statistics."
    )
    with pytest.raises(ValueError, match=r"target\.freeze") as raised:
        prepared(model)
    assert str(raised.value) == expected


def test_layers_with_buffers_are_refused() -> None:
    model = Mixed()
    model.head = nn.Linear(12, 3)
    model.head.register_buffer("place", torch.zeros(1))
    expected = (
        "target.defense.dp has no gradient of single images for layer head (Linear), which keeps buffers; "
        "freeze it or choose another target.model."
    )
    with pytest.raises(ValueError, match="keeps buffers") as raised:
        prepared(model)
    assert str(raised.value) == expected


def test_epsilon_is_that_of_the_accountant_and_grows_with_every_step() -> None:
    dp = DpSgd(noise_multiplier=1.1, delta=1e-5)
    accountant = RDPAccountant()
    for _ in range(3):
        accountant.step(noise_multiplier=1.1, sample_rate=0.05)
    assert epsilon(dp, 0.05, 3) == accountant.get_epsilon(1e-5)
    found = [epsilon(dp, 0.05, steps) for steps in (1, 10, 100, 1000)]
    assert found == sorted(set(found))
    assert epsilon(DpSgd(noise_multiplier=2.0), 0.05, 100) < epsilon(dp, 0.05, 100)


@pytest.mark.parametrize(("noise_multiplier", "steps"), [(50.0, 1), (0.1, 1000)])  # no order is the best one
def test_epsilon_is_silent_at_the_ends_of_its_orders(noise_multiplier: float, steps: int) -> None:
    assert 0 < epsilon(DpSgd(noise_multiplier=noise_multiplier), 0.5, steps) < math.inf


def test_without_noise_nothing_is_private() -> None:
    assert epsilon(PLAIN, 0.1, 1) == math.inf
