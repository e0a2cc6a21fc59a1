"""TorchScript: what torch's compiler writes loads; what is hostile is refused in one line, nothing runs."""

import pickletools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator.config.base import Refused
from orchestrator.models.programs.torchscript import is_torchscript, load_torchscript
from tests.models.programs import files

Hostile = Callable[[Path], bytes]
IMAGES = torch.linspace(0, 1, 2 * files.SIDE**2).reshape(2, files.CHANNELS, files.SIDE, files.SIDE)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Return the path of a file that is not there: what is hostile would make it."""
    return tmp_path / "canary"


def small() -> bytes:
    return files.scripted(files.Small())


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen"])
def test_every_form_gives_the_scores_of_its_network(form: str) -> None:
    network = files.Small().eval()
    data = files.traced(network, IMAGES) if form == "traced" else getattr(files, form)(network)
    loaded = load_torchscript(data, "net.pt")
    images = IMAGES.clone().requires_grad_()
    scores = loaded(images)
    assert torch.allclose(scores, network(IMAGES), atol=1e-6)
    scores.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def call(text: str) -> Hostile:
    """Return a program that holds a text in the place of its first call of relu."""
    return lambda canary: files.with_text(small(), "torch.relu(", text.replace("PATH", str(canary)))


def line(text: str) -> Hostile:
    """Return a program with one more line of code."""
    code = f"    {text}\n    return "
    return lambda canary: files.with_text(small(), "    return ", code.replace("PATH", str(canary)))


def confused(_: Path) -> bytes:
    """Return a program that has a linear layer where its code has a batch norm."""
    data = small()
    content = files.record(data, "data.pkl")
    linear, norm = (
        next(one for one in _globals(content) if f"{kind}\n" in one.decode())
        for kind in ("Linear", "BatchNorm2d")
    )
    return files.with_record(data, "data.pkl", content.replace(norm, linear))


def _globals(content: bytes) -> list[bytes]:
    names = [str(argument) for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"]
    return [f"c{name.replace(' ', chr(10))}\n".encode() for name in names]


def default(canary: Path) -> bytes:
    opens = f'torch.from_file("{canary}", True, 1)'
    return files.with_text(small(), "images: Tensor)", f"images: Tensor, other: Tensor={opens})")


def pickled(old: bytes, new: bytes) -> Hostile:
    """Return a program whose data.pkl has other bytes."""

    def make(_: Path) -> bytes:
        data = small()
        content = files.record(data, "data.pkl")
        assert old in content
        return files.with_record(data, "data.pkl", content.replace(old, new, 1))

    return make


ACTS: dict[str, tuple[Hostile, str]] = {
    "opens a file": (lambda path: files.scripted(files.Opens(path)), r"names torch\.from_file"),
    "sets its state by code": (lambda path: files.scripted(files.OpensAtLoad(path)), "names __[gs]etstate__"),
    "opens a file for a default": (default, r"names torch\.from_file"),
    "saves a tensor": (
        call('ops.aten.save(images, "PATH");torch.relu('),
        "code that torch.jit.save does not",
    ),
    "saves by a method": (line('_9 = (images).save("PATH")'), "names save,"),
}
"""Programs that touch a file where torch loads and runs them, or would if it compiled them."""

ASKS: dict[str, tuple[Hostile, str]] = {
    "custom operator": (call("ops.evil.run("), r"names ops\.evil\.run,"),
    "operator of torchvision": (call("ops.torchvision.nms("), r"names ops\.torchvision\.nms,"),
    "operator by its text": (call('getattr(torch, "save")('), r"names (torch|save),"),
    "namespace as a value": (line("_9 = torch"), "names torch,"),
    "operator of Python": (call("ops.prim.PythonOp("), r"names ops\.prim\.PythonOp,"),
    "output": (line("print(images)"), "names print,"),
    "thread": (line("_9 = fork(images)"), "names fork,"),
    "memory as it is": (call("torch.as_strided("), r"names torch\.as_strided,"),
    "seed of the process": (line("torch.manual_seed(1)"), r"names torch\.manual_seed,"),
    "custom class": (
        line("_9 = __torch__.torch.classes.evil.Loader"),
        r"custom class torch\.classes\.evil\.Loader",
    ),
    "comment": (line("# type: (Tensor) -> Tensor"), r"does not write \(# type"),
    "string over lines": (line('_9 = """a"""'), "code that torch.jit.save does not write"),
    "dot beside a space": (call("torch .relu("), "a dot that joins no names"),
    "code of Python": (
        pickled(b"c__torch__.", b"cos\nsystem\n0c__torch__."),
        r"asks in data\.pkl for os\.system",
    ),
    "object of Python": (pickled(b"c__torch__.", b"Kxc__torch__."), "data.pkl"),
    "storage beyond its bytes": (pickled(b"cpuq", b"cpxq"), r"asks in data\.pkl for the device cpx"),
    "object of another class": (confused, r"holds .*\.Small\.bn as another type than .*\.BatchNorm2d"),
    "number as a truth": (
        pickled(b"trainingq\x01\x89", b"trainingq\x01K\x00"),
        r"\.training as another type",
    ),
    "text that is not ASCII": (line('_9 = "\u00fc"'), "no ASCII text"),
    "endless brackets": (line(f"_9 = {'[' * 300}{']' * 300}"), "200 brackets in each other"),
    "other archive": (lambda _: files.with_record(small(), "version", b"../3"), "the odd version"),
    "path that leads out": (lambda _: files.with_record(small(), "../x", b"1"), r"the odd record .*\.\./x"),
    "zip bomb": (
        lambda _: files.with_record(small(), "data/bomb", bytes(1 << 26)),
        r"has \d+ bytes and would unpack to 67\d{6} in",
    ),
    "format for phones": (lambda _: b"PK\x03\x04PTMF" + small()[8:], r"for phones \(flatbuffer\)"),
    "cut short": (lambda _: small()[:-200], "damaged or cut short"),
    "half": (lambda _: small()[: len(small()) // 2], "damaged or cut short"),
}


HOSTILE = ACTS | ASKS


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_refused_in_one_line_and_nothing_is_touched(name: str, canary: Path) -> None:
    make, text = HOSTILE[name]
    data = make(canary)
    with pytest.raises(Refused, match=rf"^net\.pt .*{text}") as caught:
        load_torchscript(data, "net.pt")
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    assert list(canary.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["opens a file", "sets its state by code", "opens a file for a default"])
def test_torch_alone_would_have_touched_a_file(name: str, canary: Path) -> None:
    data = ACTS[name][0](canary)
    with suppress(Exception):  # it opens the file first
        files.torch_load(data)(IMAGES)
    assert canary.exists()


def test_a_flipped_bit_is_refused_or_changes_nothing_but_numbers(canary: Path) -> None:
    data = small()
    lines = []
    for place in range(30, len(data), len(data) // 60):
        flipped = data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
        try:
            load_torchscript(flipped, "net.pt")  # of what is left out, such as padding
        except Refused as refused:
            lines.append(str(refused))
    assert len(lines) > 20
    assert not [line for line in lines if "\n" in line]
    assert not canary.exists()


class Refines(nn.Module):
    """A network that calls itself a list of things that classifiers call."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (N, 3) of images (N, C, S, S)."""
        if images.dim() != 4:
            raise ValueError(f"expected 4 dimensions, got {images.dim()}")
        parts = [images.flatten(1)]
        for place in range(2):
            parts.append(torch.nn.functional.dropout(parts[place], 0.5, self.training))
        stacked = torch.stack(parts).mean(0)
        return torch.cat([stacked[:, :1], stacked[:, 1:3].float()], dim=1)


def test_loops_branches_and_errors_of_a_program_are_its_own() -> None:
    loaded = load_torchscript(files.scripted(Refines()), "net.pt")
    assert torch.allclose(loaded(IMAGES), Refines().eval()(IMAGES))


def test_an_archive_of_weights_is_no_program() -> None:
    assert is_torchscript({"data.pkl": b"", "constants.pkl": b""})
    assert not is_torchscript({"data.pkl": b""})
