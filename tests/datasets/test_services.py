"""Staged services: a manifest alone, under the names of weights; what may be corrected under a name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.base import Refused
from orchestrator.config.program import Program
from orchestrator.config.service import Asking, Service
from orchestrator.datasets import Location, programs, services, weights_manifest
from orchestrator.store.directory import DirectoryBlobs
from tests.config.test_service import PLAIN

HOW = {"budget": 10, "requests_per_second": 5.0, "retries": 2, "timeout_seconds": 9.0, "parallel": 2}


def text(**changes: Any) -> str:
    return yaml.safe_dump({**PLAIN, "asking": HOW, **changes})


def read(**changes: Any) -> tuple[Service, Asking]:
    return services.described(text(**changes), "service.yaml")


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path)


def test_a_service_comes_back_as_it_was_described(blobs: DirectoryBlobs) -> None:
    service, asking = read()
    manifest, is_new = services.stage(service, asking, "service.yaml", blobs, "ex")
    assert is_new
    assert blobs.names("weights/ex/") == ["weights/ex/manifest.json"]
    found = services.describe("ex", Location(blobs))
    assert (found.service, found.asking, found.source) == (service, asking, "service.yaml")
    assert services.stage(service, asking, "service.yaml", blobs, "ex") == (manifest, False)


def test_how_to_ask_is_staged_again_and_in_no_digest(blobs: DirectoryBlobs) -> None:
    services.stage(*read(), "service.yaml", blobs, "ex")
    before = services.describe("ex", Location(blobs))
    keyed = {"budget": 99, "requests_per_second": 1.0, "retries": 0, "timeout_seconds": 1.0, "parallel": 9}
    assert services.stage(*read(asking=keyed), "service.yaml", blobs, "ex")[1]
    after = services.describe("ex", Location(blobs))
    assert after.digest == before.digest
    assert after.asking == Asking.model_validate(keyed)


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://host/other"},
        {"method": "PUT"},
        {"headers": {"X-Model": "2"}},
        {"request": {"img": "{image}"}},
        {"encoding": "jpeg"},
        {"image_size": 31},
        {"channels": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_answers_is_in_the_digest_and_needs_another_name(
    changes: dict[str, Any], blobs: DirectoryBlobs
) -> None:
    services.stage(*read(), "service.yaml", blobs, "ex")
    with pytest.raises(Refused, match=r"^--name=ex is taken by a service of another address or request at "):
        services.stage(*read(**changes), "service.yaml", blobs, "ex")
    services.stage(*read(**changes), "service.yaml", blobs, "other")
    known = {services.describe(name, Location(blobs)).digest for name in ("ex", "other")}
    assert len(known) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"response": {"scores": "s"}},
        {"releases": 2},
        {"names": ["b", "a", "c"]},
        {"labels": {"x": "a"}},
        {"outputs": "logits"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_how_answers_are_read_is_corrected_under_the_name(
    changes: dict[str, Any], blobs: DirectoryBlobs
) -> None:
    services.stage(*read(), "service.yaml", blobs, "ex")
    before = services.describe("ex", Location(blobs))
    assert services.stage(*read(**changes), "service.yaml", blobs, "ex")[1]
    after = services.describe("ex", Location(blobs))
    assert after.digest != before.digest  # of scores, which are others
    assert after.service.asked == before.service.asked  # what answers are stored by


def test_images_in_a_request_are_in_no_digest(blobs: DirectoryBlobs) -> None:
    rows = {"request": ["{image}"], "response": {"answers": "", "scores": ""}}
    services.stage(*read(**rows), "service.yaml", blobs, "ex")
    before = services.describe("ex", Location(blobs))
    assert services.stage(*read(**rows, images_per_request=8), "service.yaml", blobs, "ex")[1]
    assert services.describe("ex", Location(blobs)).digest == before.digest


def test_each_kind_is_refused_where_another_is_meant(blobs: DirectoryBlobs) -> None:
    services.stage(*read(), "service.yaml", blobs, "ex")
    facts = Program(
        kind="onnx", image_size=8, channels=1, scaling="unit", outputs="logits", classes=3, names=None
    )
    programs.stage(b"bytes", facts, "net.onnx", blobs, "program")
    place = Location(blobs)
    with pytest.raises(Refused, match=r"^target\.program=ex is a service, not a program; name it in "):
        programs.describe("ex", place)
    with pytest.raises(Refused, match=r"^weights=ex is a service, not weights; name it in target\.service\."):
        weights_manifest.describe("ex", place)
    with pytest.raises(Refused, match=r"^target\.service=program is a program, not a service; name it"):
        services.describe("program", place)
    with pytest.raises(Refused, match=r"^target\.service=x is unknown; staged at .* are ex, program; "):
        services.describe("x", place)
    with pytest.raises(Refused, match=r"^--name=ex is taken by service at"):
        programs.stage(b"bytes", facts, "net.onnx", blobs, "ex")
    with pytest.raises(Refused, match=r"^--name=program is taken by program at"):
        services.stage(*read(), "service.yaml", blobs, "program")
    with pytest.raises(Refused, match=r"^--name=\.\./x must be lower-case letters"):
        services.stage(*read(), "service.yaml", blobs, "../x")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("a: [", "service.yaml is no YAML (line 1: "),
        ("- 1", "service.yaml must be a mapping; write url: https://... and what else it needs."),
        (text(asking=None), "asking.budget cannot be used (Field required); correct it."),
        (
            text(asking={"budget": 0}),
            "asking.budget=0 cannot be used (Input should be greater than 0); correct",
        ),
        (text(other=1), "other=1 cannot be used (Extra inputs are not permitted); correct it."),
        (text(url="x"), "url=x is no address; write https://host/path."),
        (text(response={}), "response.scores or pairs or label must be set, one of them; set: none."),
        (text(asking={"budget": 1, "key": "A B"}), "asking.key cannot be used (String should match"),
        (text(headers={"X-Key": "{key}"}), "asking.key is needed: headers or request hold {key}; name"),
        (text(asking={"budget": 1, "key": "s3cr3t"}), "asking.key cannot be used (String should match"),
        (text(headers={"X": 53}), "headers.X cannot be used (Input should be a valid string); correct it."),
        (text(api_key="s3cr3t"), "api_key cannot be used (Extra inputs are not permitted); correct it."),
        (text(url="https://host%zz..:1/x"), "url=https://host%zz..:1/x is no address"),
    ],
    ids=range(13),
)
def test_what_is_wrong_is_one_line(given: str, line: str) -> None:
    with pytest.raises(Refused) as caught:
        services.described(given, "service.yaml")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_damaged_manifest_is_one_line(blobs: DirectoryBlobs) -> None:
    services.stage(*read(), "service.yaml", blobs, "ex")
    name = "weights/ex/manifest.json"
    raw = json.loads(blobs.get(name) or b"")
    raw["service"]["channels"] = 7
    blobs.put(name, json.dumps(raw).encode())
    with pytest.raises(
        Refused, match=r"^weights/ex/manifest\.json is damaged \(.*stage the service again with"
    ):
        services.describe("ex", Location(blobs))
