"""Modules of a notebook: staged once as programs under the name of what they compute."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import orchestrator as inv
from orchestrator.api.modules import check_gradients
from orchestrator.config.base import Refused
from orchestrator.datasets import Location, programs
from orchestrator.store.directory import DirectoryBlobs
from tests.models.programs import files

FACTS: dict[str, Any] = {"image_size": files.SIDE, "channels": files.CHANNELS}


def test_a_module_is_staged_once_with_what_is_declared_of_it(tmp_path: Path) -> None:
    module = files.Small().eval()
    name = inv.stage_module(module, **FACTS, class_names=["ann", "bob", 3], data=tmp_path)
    about = programs.describe(name, Location(DirectoryBlobs(tmp_path))).program
    assert name.startswith("module-")
    assert about == files.FACTS.but(kind="export", names=("ann", "bob", "3"))
    assert inv.stage_module(module, **FACTS, class_names=["ann", "bob", 3], data=tmp_path) == name
    assert inv.stage_module(module, **FACTS, data=tmp_path, name="other").startswith("other-")
    assert len(list(tmp_path.glob("weights/*/manifest.json"))) == 2


class Counts(nn.Module):
    """A network with a random part."""

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S)."""
        return images.flatten(1)[:, :3] + torch.rand(3)


class Stops(nn.Module):
    """A classifier through which no gradient passes."""

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S)."""
        return images.flatten(1)[:, :3].detach()


@pytest.mark.parametrize(
    ("module", "changes", "text"),
    [
        (files.Small(), {}, r"^module is in training mode, "),
        (files.Small().eval(), {"channels": 3}, r"^module cannot be exported for \(3, 8, 8\) images"),
        (files.Small().eval(), {"scaling": "half"}, r"^scaling=half cannot be used \("),
        (
            files.Small().eval(),
            {"outputs": "probabilities"},
            "^outputs=probabilities is wrong: .*=logits",
        ),
        (
            files.Small().eval(),
            {"class_names": ["a"]},
            "^class_names holds 1 names, and the program has",
        ),
        (Counts().eval(), {}, "^module (answers otherwise once it is exported|calls torch.ops.aten.rand)"),
        (files.Small().eval(), {"data": None}, "^data names no data location; give a folder"),
    ],
    ids=range(7),
)
def test_what_cannot_be_staged_is_one_line_and_writes_nothing(
    module: nn.Module, changes: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVERSION_DATA", raising=False)
    with pytest.raises(Refused, match=text) as caught:
        inv.stage_module(module, **{**FACTS, "data": tmp_path / "data", **changes})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_module_without_gradients_is_told_from_one_with() -> None:
    shape = (files.CHANNELS, files.SIDE, files.SIDE)
    check_gradients(files.Small().eval().requires_grad_(False), shape, "gmi")
    with pytest.raises(Refused, match=r"^module passes no gradient from .*, and attack=gmi reads"):
        check_gradients(Stops().eval(), shape, "gmi")
