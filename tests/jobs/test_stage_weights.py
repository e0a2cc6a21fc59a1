"""The command as people call it: from files, buckets and libraries, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from jobs.stage_weights import app
from orchestrator.config import Model
from orchestrator.datasets import Location, weights
from orchestrator.models import CLASSIFIERS
from orchestrator.models.build import build_classifier
from orchestrator.models.generator_outlines import PATHS
from orchestrator.runtime.open_store import open_blobs
from orchestrator.store.directory import DirectoryBlobs
from tests import s3


def stage(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Return the only error line of a command that must refuse."""
    result = stage(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def state() -> dict[str, Tensor]:
    """Return the weights of a small classifier."""
    torch.manual_seed(0)
    model = Model(name="ami-digit", width=0.01)
    return build_classifier(model, classes=2, channels=1, image_size=32).state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of these weights as torch saves them."""
    torch.save({"state_dict": state()}, tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_a_small_file_of_a_tensor_that_fills_the_memory(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "net.pt")
    text = refused(tmp_path / "net.pt", tmp_path / "data", "--name", "net")
    assert "and its tensors would take 4398046511104; save a state dict of tensors that hold all" in text


def test_a_file(file: Path, tmp_path: Path) -> None:
    dest = tmp_path / "data"
    first = stage(file, dest, "--name", "net")
    assert (first.exit_code, first.stderr) == (0, "")
    about = weights.describe("net", Location(DirectoryBlobs(dest)))
    (stored,) = (dest / "weights" / "net").glob("*.safetensors")
    lines = first.stdout.splitlines()
    assert lines[0] == f"staged {DirectoryBlobs(dest).uri}/weights/net"
    assert lines[1] == f"tensors: 25, 0.001 million numbers, {stored.stat().st_size} bytes"
    assert lines[2].startswith(f"sha256: {stored.stem.removeprefix('weights-')}")
    assert about.source == "net.pt"  # no path
    again = stage(file, dest, "--name", "net")
    assert again.stdout.splitlines() == [
        f"already staged, nothing written: {DirectoryBlobs(dest).uri}/weights/net",
        *lines[1:],
    ]


def test_safetensors_of_the_same_numbers_are_the_same_weights(file: Path, tmp_path: Path) -> None:
    save_file(state(), tmp_path / "other.safetensors")
    first = stage(file, tmp_path / "data", "--name", "net")
    again = stage(tmp_path / "other.safetensors", tmp_path / "data", "--name", "net")
    assert again.stdout.startswith("already staged, nothing written: ")
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]


def test_the_manifest_of_a_model_for_browsers_with_its_files(tmp_path: Path) -> None:
    quantised = {"dtype": "uint8", "scale": 0.5, "min": -1.0}
    entry = {"name": "a/conv/bias", "shape": [2], "dtype": "float32", "quantization": quantised}
    (tmp_path / "net.json").write_text(json.dumps([{"paths": ["net.bin"], "weights": [entry]}]))
    (tmp_path / "net.bin").write_bytes(bytes([0, 4]))
    assert stage(tmp_path / "net.json", tmp_path / "data", "--name", "net").exit_code == 0
    location = Location(DirectoryBlobs(tmp_path / "data"))
    assert weights.load("net", location)["a/conv/bias"].tolist() == [-1.0, 1.0]
    assert weights.describe("net", location).source == "net.json"
    (tmp_path / "net.bin").unlink()
    line = refused(tmp_path / "net.json", tmp_path / "data", "--name", "other")
    assert line.startswith(f"{tmp_path}/net.json needs net.bin beside it; give the weights manifest")


def test_from_and_to_a_bucket(file: Path, tmp_path: Path, s3_endpoint: str) -> None:
    bucket = s3.new_bucket(s3_endpoint)
    open_blobs(f"s3://{bucket}/public").put("net.pt", file.read_bytes())
    result = stage(f"s3://{bucket}/public/net.pt", f"s3://{bucket}/data", "--name", "net")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"staged s3://{bucket}/data/weights/net\n")
    location = Location(open_blobs(f"s3://{bucket}/data"), tmp_path / "cache")
    stored = weights.load("net", location)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in state().items())
    assert weights.describe("net", location).source == "net.pt"
    absent = f"s3://{bucket}/public/absent.pt"
    message = refused(absent, tmp_path / "data", "--name", "net")
    assert message == f"SOURCE={absent} does not exist; check bucket and key."
    message = refused(file, "s3://no-such-bucket/data", "--name", "net")
    assert message == (
        "DEST=s3://no-such-bucket/data cannot be used: bucket no-such-bucket does not exist at "
        f"{s3_endpoint}; create it or name another with DEST."
    )


def test_bad_input_is_one_line_and_writes_nothing(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    (tmp_path / "list.txt").write_text("not weights", encoding="utf-8")
    known = ", ".join((*CLASSIFIERS, *PATHS))
    cases: list[tuple[tuple[object, ...], str]] = [
        (
            ("absent.pt", out),
            "SOURCE=absent.pt is no file; name one, s3://bucket/object, torchvision:NAME or timm:NAME.",
        ),
        (
            (tmp_path, out),
            f"SOURCE={tmp_path} is no file; name one, s3://bucket/object, torchvision:NAME or timm:NAME.",
        ),
        ((file, out, "--model", "vgg"), f"--model=vgg is unknown; choose one of {known}."),
        (
            (file, out, "--model", "vgg16"),
            "weights net do not fit Vgg16: 78 tensors are missing (first: blocks.0.weight), 21 unknown "
            "(first: blocks.0.0.weight); choose weights of the same architecture.",
        ),
        (
            (file, "ftp://host/x"),
            "store=ftp://host/x has the unknown scheme 'ftp'; use /dir, file:///dir or s3://",
        ),
        ((tmp_path / "list.txt", out), f"{tmp_path}/list.txt is neither safetensors nor a state dict that"),
    ]
    for arguments, text in cases:
        message = refused(*arguments, "--name", "net")
        assert message.startswith(text), message
    assert refused(file, out, "--name", "No").startswith(
        "--name=No must be lower-case letters, digits, dots,"
    )
    assert not list(out.rglob("*.safetensors"))
    assert not list(out.rglob("manifest.json"))


def test_weights_that_fit_pass_the_check(tmp_path: Path) -> None:
    model = Model(name="ami-face")
    network = build_classifier(model, classes=7, channels=3, image_size=64)
    torch.save(network.state_dict(), tmp_path / "face.pt")
    result = stage(tmp_path / "face.pt", tmp_path / "data", "--name", "face", "--model", "ami-face")
    assert result.exit_code == 0, result.output


def test_names_of_classes_are_staged_with_them(tmp_path: Path) -> None:
    network = build_classifier(Model(name="ami-face"), classes=2, channels=3, image_size=64)
    torch.save(network.state_dict(), tmp_path / "face.pt")
    names, arguments = tmp_path / "names.txt", (tmp_path / "face.pt", tmp_path / "data", "--name", "face")
    for content, text in (
        (b"Ann\nBob\nAnn\n", f"--classes={names} names Ann twice; give one name a line."),
        (b"\n\n", f"--classes={names} holds no name; give a file of names, one a line."),
        (b"\xff\xfe\x00", f"--classes={names} is no UTF-8 text; give a file of names, one a line."),
        (
            b"Ann\nBob\nCarl\n",
            "--classes holds 3 names, and the weights have 2 outputs; give one name a line, in the order of "
            "the outputs.",
        ),
    ):
        names.write_bytes(content)
        assert refused(*arguments, "--model", "ami-face", "--classes", names) == text
    assert not (tmp_path / "data").exists()
    names.write_text("Ann Lee\nBob\n", encoding="utf-8")
    assert stage(*arguments, "--model", "ami-face", "--classes", names).exit_code == 0
    location = Location(DirectoryBlobs(tmp_path / "data"))
    assert weights.describe("face", location).classes == ("Ann Lee", "Bob")


def test_a_name_taken_by_other_weights(file: Path, tmp_path: Path) -> None:
    stage(file, tmp_path / "data", "--name", "net")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    message = refused(tmp_path / "other.pt", tmp_path / "data", "--name", "net")
    where = DirectoryBlobs(tmp_path / "data").uri
    assert message == f"--name=net is taken by other weights at {where}; choose another name."


WAY_OUT = "correct the name, or download the file elsewhere and stage that."


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("torchvision:resnet18", "OSError: no network"),
        ("torchvision:resnet7", "ValueError: Unknown model resnet7"),
        ("timm:resnet18.a1_in1k", "LocalEntryNotFoundError: "),
        ("timm:resnet7", "RuntimeError: Unknown model (resnet7)"),
    ],
)
def test_a_library_without_a_network_ends_in_one_line(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    message = refused(source, tmp_path / "data", "--name", "net")
    assert message.startswith(f"SOURCE={source} could not be downloaded ({reason}")
    assert message.endswith(WAY_OUT)
    assert not (tmp_path / "data").exists()


def test_a_library_with_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, path: str, *_: object, **__: object) -> None:
        torch.manual_seed(1)
        torch.save(squeezed().state_dict(), path)

    def squeezed() -> Any:
        return torchvision.models.squeezenet1_1(weights=None)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    result = stage("torchvision:squeezenet1_1", tmp_path / "data", "--name", "squeezed")
    assert result.exit_code == 0, result.output
    location = Location(DirectoryBlobs(tmp_path / "data"))
    torch.manual_seed(1)
    wanted = squeezed().state_dict()
    stored = weights.load("squeezed", location)
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(stored[name], wanted[name]) for name in wanted)
    assert weights.describe("squeezed", location).source == "torchvision:squeezenet1_1"


def test_the_help_lists_everything() -> None:
    command = [sys.executable, "-m", "jobs.stage_weights", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    text = " ".join(word for word in done.stdout.split() if word.isascii())  # without the frames
    for part in (
        "source",
        "dest",
        "--name",
        "--model",
        "Weights to stage: a file, s3://bucket/object, torchvision:NAME or timm:NAME.",
        "Data location of the sweeps: a directory or s3://bucket/prefix.",
        "Name the weights for studies.",
        "that they are a generator: stylegan2 or dcgan; default: no check.",
        "exit code 2",
    ):
        assert part in text, part
