"""LPIPS against the library's own function, and public networks loaded exactly."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.image import lpips as library

from orchestrator.metrics.perceptual import (
    BACKBONES,
    features_of,
    inception_network,
    lpips,
    lpips_network,
    nearest_lpips,
)

Public = dict[str, dict[str, Tensor]]
KINDS: tuple[Literal["vgg", "alex"], ...] = ("vgg", "alex")


@pytest.fixture(scope="module")
def public() -> Public:
    """LPIPS network -> a state dict named like torchvision's, with random weights; of the classifier, which
    nobody reads, the last bias alone."""
    generator = torch.Generator().manual_seed(0)
    dicts: Public = {}
    for kind, name in BACKBONES.items():
        with torch.device("meta"):
            shapes = getattr(torchvision.models, name)(weights=None).features.state_dict()
        dicts[kind] = {"classifier.6.bias": torch.zeros(1000)}
        for layer, tensor in shapes.items():
            scale = (2 / tensor[0].numel()) ** 0.5
            dicts[kind][f"features.{layer}"] = scale * torch.randn(tensor.shape, generator=generator)
    return dicts


@pytest.fixture(scope="module")
def networks(public: Public) -> dict[str, Any]:
    return {kind: lpips_network(kind, public[kind]) for kind in KINDS}


@pytest.fixture(scope="module")
def inception() -> dict[str, Tensor]:
    """A state dict named like torchvision's Inception-v3, with random weights."""
    torch.manual_seed(0)
    return torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def without_download(weights: Mapping[str, Tensor]) -> Any:
    """Return a stand-in for what would fetch the library's backbone."""
    features = {name.removeprefix("features."): weights[name] for name in weights if "features." in name}

    def backbone(net: str, pretrained: bool = False) -> nn.Module:
        with torch.device("meta"):
            built = getattr(torchvision.models, net)(weights=None).features
        built.load_state_dict(features, assign=True)
        return built

    return backbone


@pytest.mark.parametrize("kind", KINDS)
def test_lpips_is_the_librarys(
    kind: Literal["vgg", "alex"], public: Public, networks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_get_tv_model_features", without_download(public[kind]))
    images, others = noise(1, 3, 3, 64, 80), noise(2, 3, 3, 64, 80)
    expected = library.learned_perceptual_image_patch_similarity(
        images, others, net_type=kind, reduction="none", normalize=True
    )
    assert expected.min() > 0
    torch.testing.assert_close(lpips(networks[kind], images, others), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_identical_images_are_at_no_distance(kind: str, networks: dict[str, Any]) -> None:
    images = noise(3, 2, 3, 64, 64)
    assert lpips(networks[kind], images, images).tolist() == [0.0, 0.0]


def test_grey_images_are_repeated_and_small_ones_enlarged(networks: dict[str, Any]) -> None:
    images, others = noise(4, 2, 1, 32, 32), noise(5, 2, 1, 32, 32)
    large, other = (
        functional.interpolate(each, (64, 64), mode="bilinear").repeat(1, 3, 1, 1)
        for each in (images, others)
    )
    torch.testing.assert_close(lpips(networks["alex"], images, others), lpips(networks["alex"], large, other))


def test_bytes_are_taken_as_well(networks: dict[str, Any]) -> None:
    images = (255 * noise(6, 2, 3, 64, 64)).to(torch.uint8)
    value = lpips(networks["alex"], images, images.flip(-1))
    torch.testing.assert_close(value, lpips(networks["alex"], images / 255, images.flip(-1) / 255))


def test_gradients_reach_the_images_but_not_the_weights(networks: dict[str, Any]) -> None:
    images, others = noise(7, 2, 1, 32, 32).requires_grad_(), noise(8, 2, 1, 32, 32)
    lpips(networks["alex"], images, others).sum().backward()
    assert images.grad is not None
    assert images.grad.flatten(1).norm(dim=1).min() > 0
    assert not any(parameter.requires_grad for parameter in networks["alex"].parameters())


def test_nearest_lpips_is_the_smallest_over_the_class(networks: dict[str, Any]) -> None:
    """More images of a class than a batch holds, on both sides."""
    found, private = noise(9, 19, 1, 16, 16), noise(10, 20, 1, 16, 16)
    found_labels, private_labels = torch.tensor([1] + [0] * 18), torch.tensor([1, 1] + [0] * 18)
    private[7] = found[18]
    values = nearest_lpips(networks["alex"], found, found_labels, private, private_labels)
    assert values[18] == 0.0
    for place in (0, 1, 17):
        references = private[private_labels == found_labels[place]]
        pairs = lpips(networks["alex"], found[place : place + 1].expand_as(references), references)
        torch.testing.assert_close(values[place], pairs.min().double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("alex", {"features.3.bias": None}, r"lack features\.3\.bias; .* torchvision's alexnet\."),
        ("vgg", {"features.28.weight": None}, r"lack features\.28\.weight; .* torchvision's vgg16\."),
        (
            "alex",
            {"features.0.weight": torch.zeros(64, 1, 11, 11)},
            r"have features\.0\.weight of shape \(64, 1, 11, 11\), not \(64, 3, 11, 11\); ",
        ),
        ("alex", {"features.12.bias": torch.zeros(1)}, r"have features\.12\.bias, which the network lacks; "),
    ],
)
def test_other_backbones_are_refused(
    public: Public, kind: Literal["vgg", "alex"], changes: Mapping[str, Tensor | None], text: str
) -> None:
    given = {name: tensor for name, tensor in {**public[kind], **changes}.items() if tensor is not None}
    with pytest.raises(ValueError, match=f"^Public weights {text}"):
        lpips_network(kind, given)


def test_the_global_generator_is_left_alone(public: Public, inception: Mapping[str, Tensor]) -> None:
    before = torch.random.get_rng_state()
    lpips_network("alex", public["alex"])
    inception_network(inception)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inception_features_are_what_the_public_classifier_sees(inception: Mapping[str, Tensor]) -> None:
    network = inception_network(inception)
    images = noise(11, 2, 3, 80, 80)
    features = features_of(network, images, 80, "cpu", normalise="symmetric")
    assert features.shape == (2, 2048)
    whole = torchvision.models.inception_v3(weights=None, init_weights=False).eval()
    whole.load_state_dict(inception)
    with torch.no_grad():
        logits = whole(2 * images - 1)
    torch.testing.assert_close(features @ inception["fc.weight"].T + inception["fc.bias"], logits)


def test_inception_without_its_auxiliary_head(inception: Mapping[str, Tensor]) -> None:
    given = {name: tensor for name, tensor in inception.items() if not name.startswith("AuxLogits.")}
    assert not any(name.startswith("AuxLogits.") for name in inception_network(given).state_dict())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Mixed_7c.branch_pool.conv.weight": None}, r"lack Mixed_7c\.branch_pool\.conv\.weight; "),
        ({"fc.bias": torch.zeros(10)}, r"have fc\.bias of shape \(10,\), not \(1000,\); "),
        ({"head.bias": torch.zeros(1)}, r"have head\.bias, which the network lacks; "),
    ],
)
def test_other_inceptions_are_refused(
    inception: Mapping[str, Tensor], changes: Mapping[str, Tensor | None], text: str
) -> None:
    given = {name: tensor for name, tensor in {**inception, **changes}.items() if tensor is not None}
    with pytest.raises(ValueError, match=f"^Public weights {text}.* torchvision's inception_v3"):
        inception_network(given)


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("imagenet", [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("symmetric", [1.0, 1.0, 1.0]),
        ("facenet", [127.5 / 128] * 3),
    ],
)
def test_white_as_each_network_wants_it(
    normalise: Literal["imagenet", "symmetric", "facenet"], expected: list[float]
) -> None:
    """A network that returns its input shows it."""
    for white in (torch.ones(70, 1, 8, 8), torch.full((70, 3, 8, 8), 255, dtype=torch.uint8)):
        seen = features_of(nn.Identity(), white, 4, "cpu", normalise=normalise).view(70, 3, 16)
        torch.testing.assert_close(seen, torch.tensor(expected).view(1, 3, 1).expand(70, 3, 16))


def test_resizing_is_antialiased() -> None:
    """Half of the columns are white, those between which each pixel of a quarter of the side lies: it sees
    grey (0 in [-1, 1]), where plain bilinear resizing would see white."""
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(1, 1, 32, 8)
    seen = features_of(nn.Identity(), stripes, 8, "cpu", normalise="symmetric").view(1, 3, 8, 8)
    torch.testing.assert_close(seen[..., 1:-1], torch.zeros(1, 3, 8, 6))
