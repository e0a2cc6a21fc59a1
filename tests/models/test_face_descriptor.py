"""Face descriptor: parameters and blocks by hand, weights refused, and what it tells apart on photographs."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.config.base import Refused
from orchestrator.datasets import layers_model
from orchestrator.metrics.perceptual import features_of
from orchestrator.models.face_descriptor import SIDE, FaceDescriptor, Halving, check_shapes, face_descriptor
from tests.models import faces


def scaled(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of a convolution with its bias, scale and shift."""
    return inputs * outputs * kernel**2 + 3 * outputs


def test_parameters_by_hand() -> None:
    """29 convolutions: the first, then pairs: 3 of 32, 4 of 64, 3 of 128, 4 of 256 channels."""
    by_hand = scaled(3, 32, 7) + 6 * scaled(32, 32, 3)
    for before, channels, num_kept in ((32, 64, 3), (64, 128, 2), (128, 256, 2)):
        by_hand += scaled(before, channels, 3) + (1 + 2 * num_kept) * scaled(channels, channels, 3)
    by_hand += 2 * scaled(256, 256, 3) + 256 * 128
    with torch.device("meta"):
        network = FaceDescriptor()
    assert sum(parameter.numel() for parameter in network.parameters()) == by_hand == 5_614_592
    assert sum(isinstance(one, torch.nn.Conv2d) for one in network.modules()) == 29


@pytest.mark.parametrize(("side", "halved"), [(35, 17), (17, 8), (8, 4), (4, 2)])
def test_a_halving_block_fills_up_with_zeros(side: int, halved: int) -> None:
    """Without weights it is the pooled input in the first channels; its own side has zeros at the edge."""
    block = Halving(2, 3).requires_grad_(False)
    flow = torch.rand(1, 2, side, side)
    for parameter in block.parameters():
        parameter.zero_()
    out = block(flow)
    assert out.shape == (1, 3, halved, halved)
    assert torch.equal(out[:, :2], functional.avg_pool2d(flow, 2))
    assert out[:, 2].abs().max() == 0
    block.conv2.scale.bias.fill_(1.0)
    edge = (side - 3) // 2 + 1  # of the unpadded convolution
    assert torch.equal(
        block(flow)[0, 2], (torch.arange(halved) < edge).float().outer((torch.arange(halved) < edge).float())
    )


def test_weights_are_turned_and_loaded() -> None:
    public = faces.random_weights()
    network = face_descriptor(public)
    first = public["conv32_down/conv/filters"]  # H, W, in, out
    assert torch.equal(network.conv32_down.conv.weight[5, 2], first[:, :, 2, 5])
    assert torch.equal(network.fc.weight[7], public["fc"][:, 7])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        assert network(torch.rand(2, 3, SIDE, SIDE)).shape == (2, 128)
    check_shapes({name: tuple(tensor.shape) for name, tensor in public.items()}, "face")


def test_other_weights_are_refused() -> None:
    public = faces.random_weights()
    shapes = {name: tuple(tensor.shape) for name, tensor in public.items()}
    for changed, rule in (
        ({**shapes, "extra": (1,)}, "have extra, which the network lacks"),
        ({name: shape for name, shape in shapes.items() if name != "fc"}, "lack fc.weight"),
        ({**shapes, "fc": (128, 128)}, r"have fc.weight of shape \(128, 128\), not \(128, 256\)"),
    ):
        start = "^judges.recogniser.weights=face are not the face descriptor's: they "
        with pytest.raises(Refused, match=start + rule + "; stage those of the face descriptor"):
            check_shapes(changed, "face")
    with pytest.raises(Refused, match=r"lack fc\.weight"):
        face_descriptor({name: tensor for name, tensor in public.items() if name != "fc"})


def area(near: Tensor, far: Tensor) -> float:
    """Return how often a distance of one set is smaller than one of the other: the area under the curve."""
    return float((near[:, None] < far[None]).double().mean())


def test_photographs_of_one_person_are_nearer_than_those_of_two() -> None:
    """LFW at 64x64, enlarged to 150 without padding: at least 0.99 of the pairs (0.996 over 30 people)."""
    faces.needed(faces.FACES, faces.MANIFEST)
    public = layers_model.read(
        faces.MANIFEST.read_bytes(), "it", lambda name: faces.MANIFEST.with_name(name).read_bytes()
    )
    assert len(public) == 117
    images, labels = faces.people(10, 5)
    found = features_of(face_descriptor(public), images, SIDE, "cpu", normalise="descriptor")
    distances, is_same = torch.cdist(found, found), labels[:, None] == labels
    is_pair = torch.ones_like(is_same).triu(1)
    assert area(distances[is_same & is_pair], distances[~is_same & is_pair]) >= 0.99
    accepted = distances[is_pair] <= 0.629  # where the balanced accuracy of 30 people is 0.975
    assert float((accepted == is_same[is_pair]).double().mean()) > 0.95
