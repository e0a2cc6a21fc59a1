"""Programs: one network saved in several ways gives the same logits, and gradients where there are any."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from orchestrator.config.base import Refused
from orchestrator.config.program import Program, ProgramKind
from orchestrator.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from orchestrator.models.programs import FLOOR, ProgramNetwork, kind_of, load_program
from tests.models.programs import files
from tests.models.programs.exports import exported
from tests.models.programs.test_torchscript import IMAGES

SIDE, CLASSES = 96, 10
FACTS: dict[str, Any] = {
    "image_size": SIDE, "channels": 3, "scaling": "imagenet", "outputs": "logits", "classes": CLASSES
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Return a ResNet-18 whose batch norms have seen something."""
    torch.manual_seed(0)
    made = torchvision.models.resnet18(num_classes=CLASSES)
    made(torch.rand(4, 3, SIDE, SIDE))
    return made.eval().requires_grad_(False)


def saved(kind: ProgramKind, network: nn.Module) -> bytes:
    return (
        files.scripted(network) if kind == "torchscript" else exported(network, torch.zeros(2, 3, SIDE, SIDE))
    )


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_a_resnet_gives_its_logits_and_gradients(kind: ProgramKind, network: nn.Module) -> None:
    data = saved(kind, network)
    assert kind_of(data, "x") == kind
    program = load_program(data, Program(kind=kind, **FACTS))
    assert program.is_differentiable
    assert not program.train().program.training  # statistics of batch norms stay as they are
    assert program.batch is None
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    own = images.detach().clone().requires_grad_()
    mean, std = (torch.tensor(one)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = network((own - mean) / std)
    scores = program(images)
    assert torch.allclose(scores, wanted, atol=1e-4)
    scores.square().sum().backward()
    wanted.square().sum().backward()
    assert images.grad is not None
    assert own.grad is not None
    assert own.grad.abs().max() > 0
    assert torch.allclose(images.grad, own.grad, atol=1e-3 * float(own.grad.abs().max()))


def small(**changes: Any) -> ProgramNetwork:
    return load_program(files.scripted(files.Small()), files.FACTS.but(**changes))


def test_images_of_another_side_are_resized() -> None:
    grey = torch.full((1, 1, 32, 32), 0.5)
    assert torch.allclose(small()(grey), small()(torch.full((1, 1, files.SIDE, files.SIDE), 0.5)), atol=1e-6)


def test_signed_images_are_scaled() -> None:
    assert torch.allclose(small(scaling="signed")(IMAGES), small()(IMAGES * 2 - 1), atol=1e-6)


class Shares(nn.Module):
    """A classifier that returns probabilities, some of them 0, and writes into its images."""

    def forward(self, images: Tensor) -> Tensor:
        """Return shares (N, 3) of images (N, C, S, S)."""
        images.mul_(2.0)
        first = images.flatten(1)[:, 1:2].clamp(0.0, 1.0)
        return torch.cat([first, 1.0 - first, torch.zeros_like(first)], dim=1)


def test_probabilities_become_logits_whose_softmax_they_are() -> None:
    facts = files.FACTS.but(outputs="probabilities")
    program = load_program(files.scripted(Shares()), facts)
    images = IMAGES.clone()
    scores = program(images)
    assert torch.equal(images, IMAGES)  # the program got its own
    assert torch.allclose(scores.softmax(1), Shares()(IMAGES.clone()), atol=1e-6)
    assert scores[0, 2] == torch.tensor(FLOOR).log()
    assert torch.isfinite(scores).all()


class Named(nn.Module):
    """A network that returns a dict, and has an attribute that the loader must not believe."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = 1

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return images (N, C, S, S) under a name."""
        return {"logits": images}


def test_what_is_no_tensor_is_an_error() -> None:
    program = load_program(files.scripted(Named()), files.FACTS)
    assert program.batch is None
    with pytest.raises(TypeError, match="the program returns a dict, not one tensor of scores"):
        program(IMAGES)


class Remembers(nn.Module):
    """A classifier that counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S), others in each call."""
        self.calls.add_(1.0)
        return images.flatten(1)[:, :3] + self.calls


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_a_program_that_writes_into_its_weights_is_an_error(kind: ProgramKind) -> None:
    network = Remembers().eval()
    data = files.scripted(network) if kind == "torchscript" else exported(network, IMAGES)
    program = load_program(data, files.FACTS.but(kind=kind))
    with pytest.raises(ValueError, match=r"^the program writes into its weights: its answers would depend"):
        program(IMAGES)


def test_a_program_of_fixed_batch_gets_such_batches() -> None:
    network = files.Small().eval()
    data = exported(network, IMAGES, is_dynamic=False)
    program = load_program(data, files.FACTS.but(kind="export"))
    assert program.batch == 2
    images = torch.cat([IMAGES, IMAGES[:1]])
    assert torch.allclose(program(images), network(images), atol=1e-6)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "^x is no program: neither of torch.jit.save nor of torch.export.save nor ONNX; "),
        (b"\x80\x02cos\nsystem\n.", "^x is a pickle, whose loading runs what it asks for, and no program; "),
        (b"PK\x03\x04", "^x is a zip archive that is damaged"),
    ],
)
def test_what_is_no_program_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(Refused, match=text):
        kind_of(data, "x")


class Acts:
    """Unpickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_under_the_name_of_a_program_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Acts(tmp_path / "canary")}, tmp_path / "net.pt")
    with pytest.raises(Refused, match=r"^net\.pt is a zip archive, but no program of torch\.jit\.save"):
        kind_of((tmp_path / "net.pt").read_bytes(), "net.pt")
    assert not (tmp_path / "canary").exists()


def test_a_program_keeps_its_layout_and_says_where_it_is() -> None:
    """Views in a program rely on how its activations lie in memory, which follows from its weights."""
    for data, kind in ((files.frozen(files.Small()), "torchscript"), (exported(Viewed(), IMAGES), "export")):
        program = load_program(data, files.FACTS.but(kind=kind)).to(memory_format=torch.channels_last)
        assert next(program.parameters()).device == torch.device("cpu")
        images = IMAGES.expand(-1, files.CHANNELS, -1, -1).to(memory_format=torch.channels_last)
        assert program(images).shape == (2, files.CLASSES)


class Viewed(nn.Module):
    """A classifier that views its activations as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(files.CHANNELS, 4, 3, stride=2)
        self.fc = nn.Linear(36, files.CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of images (N, C, S, S)."""
        return self.fc(self.conv(images).view(-1, 36))


def test_loading_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small()
