"""Modules as programs: what they compute, in bytes that depend on nothing else; others are refused."""

import io
import zipfile

import pytest
import torch
from torch import Tensor, nn

from orchestrator.config.base import Refused
from orchestrator.models.programs import load_program
from orchestrator.models.programs.exporting import exported
from tests.models.programs import files
from tests.models.programs.test_torchscript import IMAGES


class Elsewhere(files.Small):
    """The same network, defined in another place of another file."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of images (N, C, S, S)."""
        rows = torch.relu(self.bn(self.conv(images))).flatten(1)
        return self.fc(rows)


def test_an_exported_module_computes_the_same_and_is_the_same_bytes_from_anywhere() -> None:
    network = files.Small().eval()
    data = exported(network, IMAGES)
    assert exported(Elsewhere().eval(), IMAGES) == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert not [name for name in archive.namelist() if b".py" in archive.read(name)]
    program = load_program(data, files.FACTS.but(kind="export"))
    images = torch.cat([IMAGES, IMAGES, IMAGES[:1]]).requires_grad_()
    scores = program(images)
    assert torch.allclose(scores, network(images), atol=1e-6)
    scores.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    with torch.no_grad():
        network.fc.bias.add_(1.0)
    assert exported(network, IMAGES) != data


class Branching(nn.Module):
    """A network whose graph depends on its images."""

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S), of bright ones others than of dark ones."""
        rows = images.flatten(1)[:, :3]
        return rows if bool(images.mean() > 0.5) else -rows


def test_what_cannot_be_exported_is_one_line() -> None:
    with pytest.raises(Refused, match=r"^module is in training mode, .*; call module\.eval\(\) first"):
        exported(files.Small(), IMAGES)
    partly = files.Small().eval()
    partly.bn.train()
    with pytest.raises(Refused, match=r"^module has bn in training mode, "):
        exported(partly, IMAGES)
    for network, images in (
        (Branching().eval(), IMAGES),
        (files.Small().eval(), IMAGES.expand(-1, 3, -1, -1)),
    ):
        with pytest.raises(Refused, match=r"^module cannot be exported for \(\d, 8, 8\) images") as caught:
            exported(network, images)
        assert "\n" not in str(caught.value)
