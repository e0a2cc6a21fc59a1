"""Staged programs: byte for byte, under the names of weights, each refused where the other is meant."""

import json
from pathlib import Path

import pytest
import torch

from orchestrator.config.base import Refused
from orchestrator.config.program import Program
from orchestrator.datasets import Location, programs, weights
from orchestrator.store.blobs import Blobs, sha256
from orchestrator.store.directory import DirectoryBlobs
from tests.sweep.test_validation import flip

DATA = b"a program's bytes"
FACTS = Program(
    kind="torchscript",
    image_size=8,
    channels=1,
    scaling="unit",
    outputs="logits",
    classes=3,
    names=("a", "b", "c"),
)


@pytest.mark.parametrize(("kind", "ending"), [("torchscript", "pt"), ("export", "pt2"), ("onnx", "onnx")])
def test_a_program_is_stored_byte_for_byte_with_what_is_declared(
    kind: str, ending: str, blobs: Blobs
) -> None:
    facts = FACTS.but(kind=kind)
    manifest, is_new = programs.stage(DATA, facts, "net.pt", blobs, "net")
    assert is_new
    digest = sha256(DATA)
    assert manifest.file.name == f"program-{digest[:12]}.{ending}"
    assert blobs.get(f"weights/net/{manifest.file.name}") == DATA
    about = programs.describe("net", Location(blobs))
    assert (about.name, about.source, about.program) == ("net", "net.pt", facts)
    assert programs.read("net", Location(blobs)) == DATA
    assert programs.stage(DATA, facts, "elsewhere.pt", blobs, "net") == (manifest, False)


def test_a_digest_is_of_the_bytes_and_of_what_is_declared(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    variants = {
        "one": (DATA, FACTS),
        "bytes": (DATA + b"!", FACTS),
        "scaling": (DATA, FACTS.but(scaling="signed")),
        "outputs": (DATA, FACTS.but(outputs="probabilities")),
    }
    for name, (data, facts) in variants.items():
        programs.stage(data, facts, "net.pt", blobs, name)
    programs.stage(DATA, FACTS, "other.pt", blobs, "same")
    digests = {name: programs.describe(name, Location(blobs)).digest for name in (*variants, "same")}
    assert digests.pop("same") == digests["one"]
    assert len(set(digests.values())) == len(variants)


def test_weights_and_programs_share_names_and_each_refuses_the_other(blobs: Blobs) -> None:
    weights.stage({"a": torch.ones(1)}, "net.pt", blobs, "weights")
    programs.stage(DATA, FACTS, "net.pt", blobs, "program")
    before = {name: blobs.get(name) for name in blobs.names("")}
    with pytest.raises(Refused) as caught:
        weights.describe("program", Location(blobs), "target.weights")
    assert str(caught.value) == (
        "target.weights=program is a program, not weights; name it in target.program."
    )
    with pytest.raises(Refused) as caught:
        programs.describe("weights", Location(blobs))
    assert str(caught.value) == (
        "target.program=weights are weights, not a program; name them in target.weights."
    )
    with pytest.raises(Refused) as caught:
        weights.stage({"a": torch.ones(1)}, "net.pt", blobs, "program")
    assert str(caught.value) == f"--name=program is taken by a program at {blobs.uri}; choose another name."
    with pytest.raises(Refused) as caught:
        programs.stage(DATA, FACTS, "net.pt", blobs, "weights")
    assert str(caught.value) == f"--name=weights is taken by weights at {blobs.uri}; choose another name."
    with pytest.raises(Refused) as caught:
        programs.stage(DATA, FACTS.but(scaling="signed"), "net.pt", blobs, "program")
    assert str(caught.value).startswith("--name=program is taken by another program at ")
    assert {name: blobs.get(name) for name in blobs.names("")} == before


def test_unknown_and_malformed_names_are_refused(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    programs.stage(DATA, FACTS, "net.pt", blobs, "net")
    with pytest.raises(Refused) as caught:
        programs.describe("absent", Location(blobs))
    assert str(caught.value) == (
        f"target.program=absent is unknown; staged at {blobs.uri} are net; correct the name or stage the "
        "program with python -m jobs.stage_weights."
    )
    with pytest.raises(Refused, match=r"^target\.program=net is unknown: programs are staged at a data"):
        programs.describe("net", Location())
    with pytest.raises(Refused, match=r"^--name=\.\./net must be lower-case"):
        programs.stage(DATA, FACTS, "net.pt", blobs, "../net")


def test_a_flipped_bit_and_a_damaged_manifest_are_noticed(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    manifest, _ = programs.stage(DATA, FACTS, "net.pt", blobs, "net")
    flip(tmp_path / "weights" / "net" / manifest.file.name)
    with pytest.raises(ValueError, match=r"does not match its manifest: .* python -m jobs\.stage_weights"):
        programs.read("net", Location(blobs))
    path = tmp_path / "weights" / "net" / "manifest.json"
    content = json.loads(path.read_bytes())
    path.unlink()
    blobs.put("weights/net/manifest.json", json.dumps({**content, "program": {}}).encode())
    with pytest.raises(Refused, match=r"^weights/net/manifest\.json is damaged \(Field required\); remove"):
        programs.describe("net", Location(blobs))
