"""VGG16 has the parameters that TL-DMI prints at each cut, and computes what torchvision's features do."""

import re

import pytest
import torch
import torchvision
from torch import nn

from orchestrator.models.budgets import budget_counts
from orchestrator.models.freezing import outline_of
from orchestrator.models.public import renamed
from orchestrator.models.vgg import Vgg16

COUNTED = {  # |theta_C| in millions with 1000 classes; Ho et al. print 16.8, 15.0, 13.9, 11.5, 9.1, 2.1
    "full": 16.774,
    "conv3_2": 15.627,
    "conv3_3": 15.036,
    "conv4_1": 13.855,
    "conv4_2": 11.494,
    "conv4_3": 9.134,
    "conv5_1": 6.773,
    "conv5_2": 4.412,
    "conv5_3": 2.051,
}


def small(image_size: int = 64, channels: int = 3) -> Vgg16:
    return Vgg16(classes=5, channels=channels, image_size=image_size, width=0.125).eval()


def meta(width: float = 1.0) -> Vgg16:
    with torch.device("meta"):
        return Vgg16(classes=1000, channels=3, image_size=64, width=width)


def test_cuts_leave_the_counted_parameters() -> None:
    counts = {cut: round(count / 1e6, 3) for cut, count in budget_counts(outline_of(meta())).items()}
    assert {cut: counts[cut] for cut in COUNTED} == COUNTED


def test_every_cut_freezes_more_than_the_one_before() -> None:
    counts = list(budget_counts(outline_of(meta())).values())
    assert len(counts) == 14
    assert counts == sorted(set(counts), reverse=True)


@pytest.mark.parametrize(
    ("cut", "features_index"),
    [("conv3_3", 23), ("conv4_1", 26), ("conv4_2", 29), ("conv4_3", 33), ("conv5_3", 43)],
)
def test_cut_ends_after_activation_and_pooling(cut: str, features_index: int) -> None:
    network = meta()
    assert network.cut_points[cut] == features_index + 1
    last = network.blocks[features_index]
    assert isinstance(last, nn.MaxPool2d if features_index in {23, 33, 43} else nn.ReLU)


def test_first_and_middle_layers_are_those_of_the_layer_set_study() -> None:
    network = meta()
    first, middle = network.layer_groups
    sizes = [
        sum(parameter.numel() for parameter in layers.parameters())
        for layers in (network.blocks[:first], network.blocks[first:middle])
    ]
    assert [round(size / 1e6, 2) for size in sizes] == [1.74, 5.90]


def test_features_are_torchvisions_then_a_batch_norm_without_shift() -> None:
    with torch.device("meta"):
        library = torchvision.models.vgg16_bn().features
    library = library.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in library.state_dict().values():  # near 1 in batch norms, small in convolutions
        if tensor.is_floating_point():
            low, high = (0.5, 1.5) if tensor.dim() == 1 else (-0.05, 0.05)
            tensor.uniform_(low, high, generator=generator)
    network = Vgg16(classes=2, channels=3, image_size=64, width=1.0).eval()
    public = {f"features.{name}": tensor for name, tensor in library.state_dict().items()}
    network.load_state_dict(network.state_dict() | renamed(network, public))
    images = torch.rand(2, 3, 64, 64, generator=generator)
    expected = library(images).flatten(1)
    assert expected.std() > 0
    assert torch.equal(network.blocks[:-1](images), expected)
    norm = network.blocks[-1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert not norm.bias.requires_grad
    assert not norm.bias.any()
    assert norm.weight.requires_grad


def test_hidden_representations_are_five_poolings_the_last_normalised() -> None:
    network, images = small(), torch.rand(2, 3, 64, 64)
    logits, hidden = network.with_hidden(images)
    assert torch.equal(logits, network(images))
    shapes = [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (256,)]
    assert [tuple(one.shape[1:]) for one in hidden] == shapes
    assert torch.equal(hidden[-1], network.features(images))


def test_hidden_representations_may_enter_the_loss_of_training() -> None:
    network = small().train()
    logits, hidden = network.with_hidden(torch.rand(3, 3, 64, 64))
    (logits.sum() + sum(one.square().sum() for one in hidden)).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == ["blocks.norm.bias"]


@pytest.mark.parametrize(("image_size", "features"), [(32, 64), (64, 256), (96, 576)])
def test_features_grow_with_the_image(image_size: int, features: int) -> None:
    network = small(image_size, channels=1)
    assert network.num_features == features
    assert network.features(torch.rand(2, 1, image_size, image_size)).shape == (2, features)


def test_names_do_not_depend_on_width() -> None:
    assert list(meta(0.125).state_dict()) == list(meta().state_dict())


@pytest.mark.parametrize(("image_size", "fitting"), [(16, 32), (72, 96)])
def test_other_sizes_are_refused(image_size: int, fitting: int) -> None:
    expected = (
        f"data.image_size={image_size} must be a multiple of 32 for vgg16; "
        f"resize the images, for example to {fitting}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        small(image_size)
