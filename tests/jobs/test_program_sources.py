"""Staging of programs: what is declared is checked against one pass; refusals are a line, write nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.config.program import Program
from orchestrator.datasets import Location, programs
from orchestrator.store.directory import DirectoryBlobs
from tests.jobs.test_stage_weights import refused, stage
from tests.models.programs import files
from tests.models.programs.exports import exported
from tests.models.programs.test_torchscript import IMAGES

DECLARED = {"--image-size": files.SIDE, "--channels": 1, "--scaling": "unit", "--outputs": "logits"}


def options(**changes: Any) -> list[object]:
    """Return the options of a program, some of them changed or, as None, left out."""
    named = {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    chosen = {**DECLARED, **named}
    return [
        "--name",
        "net",
        "--program",
        *(one for pair in chosen.items() if pair[1] is not None for one in pair),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a TorchScript file."""
    (tmp_path / "net.pt").write_bytes(files.scripted(files.Small()))
    return tmp_path / "net.pt"


def test_a_program_is_staged_with_its_number_of_classes(file: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ann\nbob\n\ncem\n", encoding="utf-8")
    arguments = [file, tmp_path / "data", *options(classes=tmp_path / "names.txt", scaling="signed")]
    result = stage(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    blobs = DirectoryBlobs(tmp_path / "data")
    about = programs.describe("net", Location(blobs))
    assert about.program == Program(
        kind="torchscript", image_size=8, channels=1, scaling="signed", outputs="logits", classes=3,
        names=("ann", "bob", "cem"),
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        f"staged {blobs.uri}/weights/net",
        f"program: torchscript, 3 classes, {file.stat().st_size} bytes",
    ]
    assert programs.read("net", Location(blobs)) == file.read_bytes()
    assert stage(*arguments).stdout.splitlines()[0].startswith("already staged, nothing written: ")


def test_a_program_of_torch_export_is_staged(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(exported(files.Small().eval(), IMAGES))
    result = stage(tmp_path / "net.pt2", tmp_path / "data", *options())
    assert result.exit_code == 0, result.output
    assert "program: export, 3 classes, " in result.stdout


class Shares(nn.Module):
    """A classifier that returns probabilities."""

    def forward(self, images: Tensor) -> Tensor:
        """Return shares (N, 3) of images (N, C, S, S)."""
        return images.flatten(1)[:, :3].softmax(1)


class One(nn.Module):
    """A network with one output."""

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 1) of images (N, C, S, S)."""
        return images.flatten(1)[:, :1]


class Pair(nn.Module):
    """A network that returns two tensors."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (N, C, S, S) twice."""
        return images, images


class Infinite(nn.Module):
    """A network that divides by its images."""

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S)."""
        return 1.0 / images.flatten(1)[:, :3]


@pytest.mark.parametrize(
    ("network", "changes", "text"),
    [
        (files.Small(), {"image_size": 9}, "net.pt does not take images of 2x1x9x9 ("),
        (files.Small(), {"channels": 3}, "net.pt does not take images of 2x3x8x8 ("),
        (files.Small(), {"channels": 2}, "--channels=2 cannot be used (Input should be 1 or 3); correct it."),
        (files.Small(), {"image_size": 0}, "--image-size=0 cannot be used ("),
        (
            files.Small(),
            {"outputs": "probabilities"},
            "--outputs=probabilities is wrong: the program returned ",
        ),
        (Shares(), {}, "--outputs=logits is wrong: the program returned shares that sum to 1; use --outputs"),
        (
            One(),
            {},
            "net.pt returns (2, 1) of images of 2x1x8x8, not (2, k), a score for each of k classes; ",
        ),
        (
            Pair(),
            {},
            "net.pt does not take images of 2x1x8x8 (TypeError: the program returns a tuple, not one",
        ),
        (Infinite(), {}, "net.pt returns scores that are not finite of an image of zeros; correct --scaling"),
        (files.Small(), {"image_size": None}, "--image-size is missing: no program says it itself; add it."),
        (files.Small(), {"outputs": None}, "--outputs is missing: no program says it itself; add it."),
        (
            files.Small(),
            {"model": "vgg16"},
            "--model=vgg16 is of weights, and --program stages a whole classifier",
        ),
        (files.Small(), {"classes": "absent.txt"}, "--classes=absent.txt is no file; give a file of names"),
        (
            files.Small(),
            {"classes": "two.txt"},
            "--classes holds 2 names, and the program has 3 outputs; give",
        ),
        (
            files.Small(),
            {"classes": "twice.txt"},
            "--classes=twice.txt names ann twice; give one name a line.",
        ),
    ],
    ids=range(15),
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    network: nn.Module, changes: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.pt").write_bytes(files.scripted(network))
    Path("two.txt").write_text("ann\nbob\n", encoding="utf-8")
    Path("twice.txt").write_text("ann\nbob\nann\n", encoding="utf-8")
    line = refused("net.pt", "data", *options(**changes))
    assert line.startswith(text), line
    assert not Path("data").exists()


def test_a_hostile_program_is_refused_by_the_command(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "net.pt").write_bytes(files.scripted(files.OpensAtLoad(canary)))
    line = refused("torchvision:vgg16", tmp_path / "data", *options())
    assert line == "SOURCE=torchvision:vgg16 is no file; name a program's file or s3://bucket/object."
    line = refused(tmp_path / "net.pt", tmp_path / "data", *options())
    assert "which is no operator of a classifier" in line
    assert not canary.exists()
    assert not (tmp_path / "data").exists()


def test_options_of_a_program_belong_to_programs(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "net.pt")
    line = refused(tmp_path / "net.pt", tmp_path / "data", "--name", "net", "--scaling", "unit")
    assert line == "--scaling is of a program; add --program or leave it out."
    line = refused(tmp_path / "net.pt", tmp_path / "data", *options())
    assert line.startswith(f"{tmp_path}/net.pt is a zip archive, but no program of torch.jit.save")
