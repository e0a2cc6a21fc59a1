"""Spans modules: a target that is a service gives the numbers of the network that it serves."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.service import Asking, Service
from orchestrator.datasets import Location, programs, services
from orchestrator.store.directory import DirectoryBlobs
from tests.models.programs import files
from tests.services.server import Server, description, serving
from tests.stages.test_given import Theirs, theirs
from tests.stages.test_program_target import FACTS, planned, run
from tests.sweep.test_program_checks import FULL, LABELS, by

__all__ = ["theirs"]

KEY = "S3cr3t"
TARGET = re.compile("target_(top1|confidence)")


def answer(scores: np.ndarray) -> Any:
    """Return all that descriptions of the tests ask for: scores, pairs of the two largest, the label."""
    order = np.argsort(-scores, kind="stable")
    top = [[int(place), float(scores[place])] for place in order[:2]]
    return {"scores": scores.tolist(), "top": top, "label": int(order[0])}


@pytest.fixture(scope="module")
def served(theirs: Theirs) -> Iterator[Server]:
    """Return a server of the network."""
    with serving(Server(theirs, key=KEY, answer=answer)) as server:
        yield server


@pytest.fixture
def location(theirs: Theirs, served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Return a data location with the network as a program and as services that release more or less."""
    monkeypatch.setenv("EXAMPLE_KEY", KEY)
    blobs = DirectoryBlobs(tmp_path / "data")
    programs.stage(files.scripted(theirs), FACTS, "net.pt", blobs, "torchscript")
    common = {**description(served.url), "images_per_request": 32, "names": None, "labels": {}, "classes": 3}
    asking = Asking.model_validate(common.pop("asking"))
    kinds: dict[str, dict[str, Any]] = {"full": FULL, "two": {"releases": 2}, "labels": LABELS}
    for name, changes in kinds.items():
        raw = {**common, **changes}
        raw["response"] = {"answers": "predictions", **_in_answer(raw["response"])}
        services.stage(Service.model_validate(raw), asking, "service.yaml", blobs, name)
    return Location(blobs)


def _in_answer(response: Mapping[str, str]) -> dict[str, str]:
    kind = next(one for one in ("scores", "label", "pairs") if one in response)
    return {kind: {"scores": "scores", "label": "label", "pairs": "top"}[kind]}


def test_a_service_gives_the_numbers_of_its_network(
    served: Server, location: Location, tmp_path: Path
) -> None:
    program = {"classes": 3, "program": "torchscript", "minimum_accuracy": 0.5}
    wanted = run({"target": program}, location, tmp_path)
    before = served.counts.requests
    found = run(by("full"), location, tmp_path)
    assert served.counts.requests > before
    assert found["given"] == pytest.approx(wanted["given"])
    assert found["predictions"] == wanted["predictions"]
    kept = {name: one for name, one in wanted["evaluation"].items() if not TARGET.search(name)}
    assert found["evaluation"] == pytest.approx(kept, rel=1e-2, abs=1e-3)
    # One score of each image: the service that releases two of them gives the same ones.
    fewer = run(by("two"), location, tmp_path)
    assert fewer["evaluation"] == pytest.approx(found["evaluation"], rel=1e-2, abs=1e-3)


def test_labels_alone_serve_class_inference(served: Server, location: Location, tmp_path: Path) -> None:
    changes = {**by("labels"), "release": {"labels_only": True}, "evaluation.task": "class-inference"}
    metrics = run(changes, location, tmp_path)
    assert "class/judge_top1" in metrics["evaluation"]
    assert not [name for name in metrics["evaluation"] if TARGET.search(name)]
    before = served.counts.requests
    run({**changes, "attack.seed": 9}, location, tmp_path)
    assert served.counts.requests == before


def test_what_decides_answers_is_in_the_key_and_how_to_ask_is_not(location: Location) -> None:
    _, stages = planned(by("full"), location)
    about = services.describe("full", location)
    assert stages["given"].weights["target"] == {"name": "full", "digest": about.digest}
    assert location.blobs is not None
    how = about.asking.but(budget=7, requests_per_second=1.0, key="OTHER")
    services.stage(about.service, how, "service.yaml", location.blobs, "full")
    _, again = planned(by("full"), location)
    assert {name: one.key for name, one in again.items()} == {name: one.key for name, one in stages.items()}
    services.stage(about.service.but(images_per_request=1), how, "service.yaml", location.blobs, "full")
    _, again = planned(by("full"), location)
    assert again["given"].key == stages["given"].key
    _, other = planned(by("two"), location)
    assert other["given"].key != stages["given"].key
