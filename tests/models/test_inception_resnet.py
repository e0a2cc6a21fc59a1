"""FaceNet: the public file's names and shapes, parameters counted by hand, and weights refused."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models.inception_resnet import InceptionResnetV1, facenet, load_public


@pytest.fixture(scope="module")
def public() -> dict[str, Tensor]:
    """A state dict like that of the VGGFace2 file: the network's own and the logits."""
    torch.manual_seed(0)
    logits = {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    return InceptionResnetV1().state_dict() | logits


def unit(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of a convolution without bias and its batch norm."""
    return inputs * outputs * kernel + 2 * outputs


def test_parameters_by_hand() -> None:
    """Kernels of 1x7 and 7x1 have 7 weights, of 1x3 and 3x1 three."""
    stem = unit(3, 32, 9) + unit(32, 32, 9) + unit(32, 64, 9)
    stem += unit(64, 80, 1) + unit(80, 192, 9) + unit(192, 256, 9)
    first = 3 * unit(256, 32, 1) + 3 * unit(32, 32, 9) + (96 * 256 + 256)
    halving = unit(256, 384, 9) + unit(256, 192, 1) + unit(192, 192, 9) + unit(192, 256, 9)
    second = 2 * unit(896, 128, 1) + 2 * unit(128, 128, 7) + (256 * 896 + 896)
    last_halving = 3 * unit(896, 256, 1) + unit(256, 384, 9) + 3 * unit(256, 256, 9)
    third = 2 * unit(1792, 192, 1) + 2 * unit(192, 192, 3) + (384 * 1792 + 1792)
    head = 1792 * 512 + 2 * 512
    by_hand = stem + 5 * first + halving + 10 * second + last_halving + 6 * third + head
    assert by_hand == 23_482_624
    # facenet-pytorch prints 27,910,327 with the logits over VGGFace2's 8,631 identities.
    assert by_hand + (512 * 8631 + 8631) == 27_910_327
    with torch.device("meta"):
        network = InceptionResnetV1()
    assert sum(parameter.numel() for parameter in network.parameters()) == by_hand


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv2d_1a.conv.weight", (32, 3, 3, 3)),
        ("conv2d_1a.bn.running_var", (32,)),
        ("conv2d_2a.conv.weight", (32, 32, 3, 3)),
        ("conv2d_2b.conv.weight", (64, 32, 3, 3)),
        ("conv2d_3b.conv.weight", (80, 64, 1, 1)),
        ("conv2d_4a.conv.weight", (192, 80, 3, 3)),
        ("conv2d_4b.bn.num_batches_tracked", ()),
        ("repeat_1.4.branch0.conv.weight", (32, 256, 1, 1)),
        ("repeat_1.0.branch2.2.conv.weight", (32, 32, 3, 3)),
        ("repeat_1.0.conv2d.bias", (256,)),
        ("mixed_6a.branch0.conv.weight", (384, 256, 3, 3)),
        ("mixed_6a.branch1.2.conv.weight", (256, 192, 3, 3)),
        ("repeat_2.9.branch1.1.conv.weight", (128, 128, 1, 7)),
        ("repeat_2.9.branch1.2.conv.weight", (128, 128, 7, 1)),
        ("mixed_7a.branch0.1.conv.weight", (384, 256, 3, 3)),
        ("mixed_7a.branch2.2.bn.bias", (256,)),
        ("repeat_3.4.branch1.1.conv.weight", (192, 192, 1, 3)),
        ("repeat_3.4.conv2d.weight", (1792, 384, 1, 1)),
        ("block8.branch1.2.conv.weight", (192, 192, 3, 1)),
        ("last_linear.weight", (512, 1792)),
        ("last_bn.running_mean", (512,)),
    ],
)
def test_names_and_shapes_are_the_public_files(
    public: Mapping[str, Tensor], name: str, shape: tuple[int, ...]
) -> None:
    assert public[name].shape == shape


def test_the_public_file_holds_nothing_else(public: Mapping[str, Tensor]) -> None:
    """112 batch norms of five tensors, each after one weight; 21 joining convolutions with a bias."""
    norms = [name for name in public if name.endswith(".running_mean")]
    assert "last_linear.bias" not in public
    assert len(norms) == 6 + 5 * 6 + 4 + 10 * 4 + 7 + 6 * 4 + 1
    assert len(public) - len(("logits.weight", "logits.bias")) == 112 * 5 + 112 + 21 * 2


def test_embeddings_have_unit_length_and_depend_on_one_face_alone(public: Mapping[str, Tensor]) -> None:
    network = facenet(public)
    assert not network.training
    faces = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(1)) * 2 - 1
    embeddings = network(faces)
    assert embeddings.shape == (2, 512)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(network(faces[1:]), embeddings[1:])
    assert not torch.equal(embeddings[0], embeddings[1])


def test_weights_are_the_given_ones_and_the_global_generator_is_left_alone(
    public: Mapping[str, Tensor],
) -> None:
    before = torch.random.get_rng_state()
    network = facenet(public)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, public[name]), name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"last_linear.weight": None}, r"Public weights lack last_linear\.weight; "),
        (
            {"last_bn.bias": torch.zeros(128)},
            r"Public weights have last_bn\.bias of shape \(128,\), not \(512,\); ",
        ),
        ({"head.bias": torch.zeros(1)}, r"Public weights have head\.bias, which the network lacks; "),
    ],
)
def test_other_weights_are_refused(
    public: Mapping[str, Tensor], changes: Mapping[str, Tensor | None], text: str
) -> None:
    given = {name: tensor for name, tensor in {**public, **changes}.items() if tensor is not None}
    with pytest.raises(ValueError, match=text + "give the state dict of facenet-pytorch's InceptionResnetV1"):
        facenet(given)


def test_step_counts_of_batch_norms_may_be_missing() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2))
    given = {name: tensor + 1 for name, tensor in network.state_dict().items() if "num_batches" not in name}
    load_public(network, given, "nobody")
    assert network.state_dict()["0.running_mean"].tolist() == [1.0, 1.0]
