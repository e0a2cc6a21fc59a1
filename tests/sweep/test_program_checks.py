"""A target that is a program or a service: what the trial asks of it and it cannot give is one line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.service import Asking, Service
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, programs, services
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.stages.test_program_target import FACTS, INFERENCE, MIA, of
from tests.sweep.test_validation import point

GMI = {"attack": {"name": "gmi"}, "prior": {}, "data.image_size": 64, **INFERENCE}
LOMMA = {**GMI, "attack": {"name": "lomma-g"}}


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return a data location with programs of each kind; a plan reads no byte of them."""
    blobs = DirectoryBlobs(tmp_path_factory.mktemp("programs"))
    for kind in ("torchscript", "export", "onnx"):
        programs.stage(b"bytes", FACTS.but(kind=kind), "net", blobs, kind)
    programs.stage(b"bytes", FACTS.but(channels=3), "net", blobs, "colour")
    programs.stage(b"bytes", FACTS.but(classes=7), "net", blobs, "seven")
    programs.stage(b"bytes", FACTS.but(names=("2", "0", "1")), "net", blobs, "named")
    return Location(blobs)


def resolved(changes: dict[str, Any], location: Location) -> None:
    Preflight(location).resolve(point(changes))


@pytest.mark.parametrize("kind", ["torchscript", "export"])
@pytest.mark.parametrize("changes", [{}, MIA, GMI], ids=["inverter", "mia", "gmi"])
def test_what_a_program_can_give_is_planned(kind: str, changes: dict[str, Any], location: Location) -> None:
    resolved({**of(kind), **changes}, location)


def test_classes_are_private_in_the_order_of_the_outputs(location: Location) -> None:
    ordered = {"data.class_order": "weights", "data.class_seed": 0}
    resolved = Preflight(location).resolve(point({**of("named"), **ordered})).spec
    assert tuple(map(str, resolved.data.class_order))[:3] == ("2", "0", "1")
    with pytest.raises(
        StudyError, match=r"^target\.program=named tells 2 by output 0, and class 0 here is .*"
    ):
        Preflight(location).resolve(
            point({**of("named"), "data.class_order": [0, 1, 2], "data.class_seed": 0})
        )
    with pytest.raises(
        StudyError, match=r"^data\.class_order=weights needs the names of .*stage the program again"
    ):
        Preflight(location).resolve(point({**of("torchscript"), **ordered}))


def test_a_drawn_order_is_no_guess_at_unnamed_outputs(location: Location) -> None:
    unsure = of("export", minimum_accuracy=0.0)
    with pytest.raises(StudyError) as caught:
        resolved(unsure, location)
    assert str(caught.value) == (
        "data.class_order=seeded is a drawn order, and the outputs of target.program=export have no names; "
        "use staged, list the classes, stage the program with --classes, or set target.minimum_accuracy."
    )
    resolved({**unsure, "data.class_seed": 0, "data.class_order": "staged"}, location)


def test_onnx_answers_a_black_box(location: Location) -> None:
    resolved(of("onnx"), location)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {**of("onnx"), **MIA},
            "target.program=onnx is ONNX, which gives no gradients, and attack.name=mia reads them; choose "
            "attack.name=",
        ),
        ({**of("onnx"), **GMI}, "target.program=onnx is ONNX, which gives no gradients, and attack.name=gmi"),
        (
            {**of("torchscript"), **LOMMA},
            "target.program=torchscript has no features by name, and attack.name=lomma-g reads them; choose "
            "attack.name=",
        ),
        (
            of("colour"),
            "target.program=colour takes images of 3 channels, and data.channels=1; set data.channels=3.",
        ),
        (of("seven"), "target.program=seven has 7 outputs, and target.classes=3; set target.classes=7."),
        (of("absent"), "target.program=absent is unknown; staged at "),
    ],
    ids=range(6),
)
def test_what_it_cannot_give_is_refused(changes: dict[str, Any], text: str, location: Location) -> None:
    with pytest.raises(StudyError) as caught:
        resolved(changes, location)
    assert str(caught.value).startswith(text), caught.value
    assert "\n" not in str(caught.value)


def test_a_program_whose_file_changed_is_noticed(location: Location, tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    manifest, _ = programs.stage(b"bytes", FACTS, "net", blobs, "net")
    path = tmp_path / "weights" / "net" / manifest.file.name
    path.chmod(0o644)
    path.write_bytes(b"other")
    with pytest.raises(StudyError, match="does not match its manifest"):
        resolved(of("net"), Location(blobs))


def service(**changes: Any) -> dict[str, Any]:
    return {**DESCRIBED, **changes}


DESCRIBED: dict[str, Any] = {
    "url": "https://host/classify",
    "request": {"image": "{image}"},
    "image_size": 32,
    "channels": 1,
    "response": {"pairs": "top"},
    "outputs": "probabilities",
    "releases": 2,
    "classes": 3,
}
LABELS = {"response": {"label": ""}, "outputs": "labels", "releases": None}
FULL = {"response": {"scores": ""}, "releases": None}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return a data location with services: two scores of each image, all of them, labels alone, others."""
    blobs = DirectoryBlobs(tmp_path_factory.mktemp("services"))
    kinds = {
        "two": service(),
        "full": service(**FULL),
        "labels": service(**LABELS),
        "colour": service(channels=3),
        "seven": service(classes=7),
        "named": service(names=["2", "0", "1"], response={"pairs": "top", "labels_are": "names"}),
    }
    for name, raw in kinds.items():
        services.stage(Service.model_validate(raw), Asking(budget=1), "service.yaml", blobs, name)
    return Location(blobs)


def by(name: str, **changes: Any) -> dict[str, Any]:
    return {"target": {"classes": 3, "service": name, "minimum_accuracy": 0.5, **changes}}


BREPMI = {"attack": {"name": "brepmi"}, "prior": {}, "data.image_size": 64, **INFERENCE}


@pytest.mark.parametrize(
    "changes",
    [
        by("two"),
        {**by("two"), "release": {"truncation": 2, "decimals": 2, "renormalised": True}},
        {**by("two"), "release": {"labels_only": True}},
        {**by("two"), **BREPMI},
        {**by("full"), "release": {}},
        {**by("full"), "attack.align": False},
        {**by("labels"), "release": {"labels_only": True}},
        {**by("labels"), "release": {"labels_only": True}, **BREPMI},
    ],
    ids=range(8),
)
def test_what_a_service_can_give_is_planned(changes: dict[str, Any], served: Location) -> None:
    resolved(changes, served)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {**by("two"), **MIA},
            "target.service=two answers and gives no gradients, and attack.name=mia reads them; choose ",
        ),
        (
            {**by("full"), **GMI},
            "target.service=full answers and gives no gradients, and attack.name=gmi reads",
        ),
        (
            {**by("full"), **LOMMA},
            "target.service=full has no features by name, and attack.name=lomma-g reads",
        ),
        (
            {**by("two"), "release": {}},
            "release.truncation=null asks more scores of two, which releases 2 of each image; set it to 2",
        ),
        (
            {**by("two"), "attack.align": False},
            "attack.name=inverter reads scores beyond the release (attack.ali",
        ),
        (
            by("labels"),
            "release.labels_only=false asks scores of labels, which answers labels alone; set it to ",
        ),
        (
            by("colour"),
            "target.service=colour takes images of 3 channels, and data.channels=1; set data.chann",
        ),
        (by("seven"), "target.service=seven has 7 outputs, and target.classes=3; set target.classes=7."),
        (
            {**by("named"), "data.class_order": [0, 1, 2], "data.class_seed": 0},
            "target.service=named tells 2 by output 0, and class 0 here is 0; set data.class_order=weights.",
        ),
        (
            {**by("two"), "data.class_order": "weights", "data.class_seed": 0},
            "data.class_order=weights needs the names of the outputs of two, which were staged without; st",
        ),
        (by("absent"), "target.service=absent is unknown; staged at "),
        (
            by("two", minimum_accuracy=0.0),
            "data.class_order=seeded is a drawn order, and the outputs of target.service=two have no names; "
            "use staged, list the classes, stage the service with names, or set target.minimum_accuracy.",
        ),
    ],
    ids=range(12),
)
def test_what_a_service_cannot_give_is_refused(changes: dict[str, Any], text: str, served: Location) -> None:
    with pytest.raises(StudyError) as caught:
        resolved(changes, served)
    assert str(caught.value).startswith(text), caught.value
    assert "\n" not in str(caught.value)


def test_classes_of_a_service_are_private_in_the_order_of_its_scores(served: Location) -> None:
    ordered = {"data.class_order": "weights", "data.class_seed": 0}
    spec = Preflight(served).resolve(point({**by("named"), **ordered})).spec
    assert tuple(map(str, spec.data.class_order))[:3] == ("2", "0", "1")


SERVICE = "target.service=two"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            by("two", model=tiny.DIGIT),
            f"model.name=ami-digit is of a network of this project, but {SERVICE} is",
        ),
        (
            by("two", weights="x"),
            f"weights=x are of a network of this project, but {SERVICE} is F as it is; lea",
        ),
        (by("two", program="x"), "is another F, but target."),
        (
            by("two", budget="block1"),
            f"budget=block1 is of a network of this project, but {SERVICE} is F as it",
        ),
        (
            {**by("two"), "evaluation.fisher": {}},
            f"evaluation.fisher profiles F's layers, and {SERVICE} has none",
        ),
        (
            {**by("two"), "release.shield": {"means": "train"}},
            f"release.shield moves what {SERVICE} is asked for of every training image; set it to null",
        ),
    ],
    ids=range(6),
)
def test_what_a_service_cannot_have_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny.spec(changes)
    assert text in str(caught.value)
