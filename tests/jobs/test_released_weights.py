"""Released checkpoints; spans modules: staged by the command, renamed and loaded strictly with their heads,
they compute what the released module does."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from jobs import sweep
from jobs.stage_weights import app
from jobs.weight_sources import fit_of
from orchestrator import config
from orchestrator.api.arrays import stage_images
from orchestrator.api.study import Study
from orchestrator.config.base import Refused
from orchestrator.datasets import Location, weights
from orchestrator.datasets.state_dicts import choose
from orchestrator.models.build import build_classifier
from orchestrator.models.public import renamed
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny
from tests.models.faces import DATA, needed
from tests.models.releases import CLASSES, RELEASES, Release, parallel
from tests.test_floors import ROOT

WIDTH = 0.05
BIDO = "VGG16_0.050&0.500_80.35.tar"
LITE = DATA / "weights" / "efficientnet-lite0" / "efficientnet-lite0-57934424.pth"


def named(release: Release) -> str:
    return release.file


def staged(file: Path, *flags: str, name: str = "net") -> dict[str, Tensor]:
    """Return what the command has staged of a file."""
    data = file.parent / "data"
    result = CliRunner().invoke(app, [str(file), str(data), "--name", name, *flags])
    assert result.exit_code == 0, result.output
    return weights.load(name, Location(DirectoryBlobs(data)))


def randomised(module: nn.Module) -> nn.Module:
    """Return a module in evaluation mode whose batch norms differ from their first values."""
    torch.manual_seed(0)
    for one in module.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (one.weight.data, one.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
            for tensor in (one.bias.data, one.running_mean):
                assert tensor is not None
                tensor.uniform_(-0.2, 0.2)
    return module.eval()


def drawn(module: nn.Module, images: Tensor) -> Tensor:
    """Return a module's logits, with MID's noise from one seed."""
    torch.manual_seed(1)
    with torch.no_grad():
        logits: Tensor = module(images)
    return logits


SMALL = [one for one in RELEASES if one.has_width or one.model == "resnet18"]


@pytest.mark.parametrize("release", SMALL, ids=named)
def test_a_release_computes_here_what_it_does_there(release: Release, tmp_path: Path) -> None:
    torch.manual_seed(0)
    width = WIDTH if release.has_width else 1.0
    theirs = randomised(release.build(width, CLASSES))
    torch.save(release.saved(theirs), tmp_path / release.file)
    ours = release.ours(width, CLASSES).eval()
    ours.load_state_dict(renamed(ours, staged(tmp_path / release.file)), strict=True)
    images = torch.rand(2, 3, release.side, release.side)
    expected = drawn(theirs, images)
    assert not torch.equal(expected[0], expected[1])
    torch.testing.assert_close(drawn(ours, images), expected)


@pytest.mark.parametrize("release", [one for one in RELEASES if one.saved is not parallel], ids=named)
def test_a_release_of_full_size_is_whole_under_our_names(release: Release) -> None:
    with torch.device("meta"):
        saved, ours = release.saved(release.build(1.0, 1000)), release.ours(1.0, 1000)
    public = choose(saved, release.file, check=fit_of(release.model, "net"))
    mapped = {name: tuple(tensor.shape) for name, tensor in renamed(ours, public).items()}
    assert mapped == {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


def cut(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: state[name][:1]})


def added(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: torch.ones(1)})


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        (
            "VGG16_88.26.tar",
            without("module.feature.7.weight"),
            "1 tensor is missing (first: blocks.7.weight)",
        ),
        (
            BIDO,
            without("module.layer2.0.weight"),
            "1 tensor is missing (first: blocks.7.weight)",
        ),
        (
            BIDO,
            added("module.layer1.7.weight"),
            "1 unknown (first: layer1.7.weight)",
        ),
        (
            "IR152_91.16.tar",
            cut("module.feature.body.3.res_layer.1.weight"),
            "1 of another shape (first: blocks.unit3.residual.1.weight has (1, 64, 3, 3), "
            "wants (128, 64, 3, 3))",
        ),
    ],
)
def test_one_wrong_tensor_is_named(
    file: str, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    (release,) = (one for one in RELEASES if one.file == file)
    with torch.device("meta"):
        saved = release.saved(release.build(1.0, CLASSES))
    change(saved["state_dict"])
    network = {"vgg16": "Vgg16", "ir152": "Ir152"}[release.model]
    message = f"weights net do not fit {network}: {complaint}; choose weights of the same architecture."
    with pytest.raises(Refused, match=f"^{re.escape(message)}$"):
        choose(saved, file, check=fit_of(release.model, "net"))


def test_imagenets_efficientnet_lite0_as_its_package_has_it(tmp_path: Path) -> None:
    """Its layers are timm's in timm's order, under other names."""
    needed(LITE)
    library = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(LITE, weights_only=True).values()
    library.load_state_dict(dict(zip(library.state_dict(), tensors, strict=True)))
    (tmp_path / LITE.name).write_bytes(LITE.read_bytes())
    model = config.Model(name="efficientnet_lite0")
    network = build_classifier(model, classes=1000, channels=3, image_size=64).eval()
    public = staged(tmp_path / LITE.name, "--model", "efficientnet_lite0")
    network.load_state_dict(renamed(network, public), strict=True)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(drawn(network, images), drawn(library, images))


def test_a_table_of_tl_dmi_is_planned_on_released_files(tmp_path: Path) -> None:
    """Three rows of Table 1 on files of KEDMI's, BiDO's and TL-DMI's layout, as docs/studies.md has it: only
    the prior is trained."""
    targets = {"celeba": "VGG16_88.26.tar", "bido": BIDO, "tl-dmi": "VGG16_best.tar"}
    for name, file, classes in [
        *((f"vgg16-{name}", file, 5) for name, file in targets.items()),
        ("facenet-celeba", "FaceNet_95.88.tar", 10),
    ]:
        (release,) = (one for one in RELEASES if one.file == file)
        torch.save(release.saved(release.build(0.02, classes)), tmp_path / file)
        staged(tmp_path / file, name=name)
    given = {
        "data.class_order": "staged",
        "target.pretrain": "null",
        "target.selection": "held-out",
        "sweep.seed": "[0]",
        "sweep.target": "[{label: none, weights: vgg16-celeba, minimum_accuracy: 0.7}, "
        "{label: BiDO, weights: vgg16-bido, minimum_accuracy: 0.7, "
        "defense: {bido: {kind: hsic, weight_x: 0.05, weight_y: 0.5}}}, "
        "{label: TL-DMI, weights: vgg16-tl-dmi, minimum_accuracy: 0.7, budget: conv4_1}]",
    }
    judge = "judge={weights: facenet-celeba, minimum_accuracy: 0.9, trained: false, recipe: {}}"
    documented = (ROOT / "docs" / "studies.md").read_text(encoding="ascii")
    (line,) = re.findall("^python -m jobs.sweep tl-dmi-table-1 --data .*weights.*$", documented, re.MULTILINE)
    said = [f"{path}={value}" for path, value in given.items()]
    assert {*said, judge} <= set(shlex.split(line))
    judge = judge.replace("{", "{model: {name: facenet, width: 0.02}, ", 1)
    flags = ["--set", "target.recipe=null", "--set", "target.recipe={}", "--set", "judge.recipe=null"]
    flags += ["--set", judge]
    flags += [word for one in said for word in ("--set", one)]
    places = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    command = ["tl-dmi-table-1", "--scale", "smoke", "--plan", *places, *flags]
    result = CliRunner().invoke(sweep.app, command)
    assert result.exit_code == 0, result.output
    assert "study tl-dmi-table-1: 3 points" in result.output
    stages = re.findall(r"^\W*(\w+)\W+(\d+)\W+0\W", result.output, re.MULTILINE)
    assert dict(stages)["given"] == "3"
    assert not {"pretrain", "target"} & set(dict(stages))


PRINTED = ("FaceNet_95.88.tar", "inception_v3.pth")
"""Files of the evaluation models of the printed setups: IR-50 at 112x112, Inception-v3 at 299x299."""


@pytest.mark.parametrize("file", PRINTED)
def test_a_printed_judge_judges_images_of_another_side(file: str, tmp_path: Path) -> None:
    """Attacks make images of 32x32 here: the judge gets them resized as docs/studies.md says, bilinear with
    antialias, and scaled as its file's training did."""
    (release,) = (one for one in RELEASES if one.file == file)
    width, classes = (0.02, 2) if release.has_width else (1.0, 2)
    theirs = randomised(release.build(width, classes))
    torch.save(release.saved(theirs), tmp_path / file)
    staged(tmp_path / file, *([] if release.has_width else ["--model", release.model]), name="judging")
    data = tmp_path / "data"
    images = np.random.default_rng(0).integers(0, 256, (14, 3, 32, 32), dtype=np.uint8)
    labels, parts = np.arange(14) % classes, ["train"] * 8 + ["evaluation"] * 6
    name = stage_images(images, labels, data=data, parts=parts)
    own = build_classifier(config.Model(**tiny.DIGIT), classes=classes, channels=3, image_size=32)
    weights.stage(own.state_dict(), "own", DirectoryBlobs(data), "attacked")
    changes: dict[str, Any] = {
        "data": {"dataset": name, "channels": 3, "split": "given", "class_order": "staged"},
        "target": {"classes": classes, "model": tiny.DIGIT, "weights": "attacked"},
        "auxiliary": {"kind": "distinct", "size": 32},
        "judge": {
            "model": {"name": release.model, "width": width, "scaling": release.scaling},
            "weights": "judging",
            "trained": False,
        },
        "evaluation": {"images": 4, "grid": 2},
    }
    study = Study.load(tiny.write(tmp_path / "tiny.yaml", {"attack.seed": [0]}, changes))
    (row,) = study.run(data=data, out=tmp_path / "out", ship_later=True).table.to_dict("records")
    assert row["status"] == "finished", row
    side = (release.side, release.side)
    seen = torch.from_numpy(images[8:]).float() / 255
    resized = functional.interpolate(seen, size=side, mode="bilinear", antialias=True)
    told = drawn(theirs, resized)
    judge = config.Model.model_validate(changes["judge"]["model"])
    ours = build_classifier(judge, classes=classes, channels=3, image_size=32, resizes=True).eval()
    public = weights.load("judging", Location(DirectoryBlobs(data)))
    ours.load_state_dict(renamed(ours, public), strict=True)
    torch.testing.assert_close(drawn(ours, seen), told)
    right = (told.argmax(1) == torch.from_numpy(labels[8:])).double().mean().item()
    assert row["judge/accuracy"] == pytest.approx(right)
    assert 0.0 <= row["attack/accuracy_top1_test"] <= 1.0
