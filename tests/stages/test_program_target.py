"""Spans modules: a target that is a program is staged, planned, attacked, measured as its file computes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from orchestrator.config import TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.config.program import Program
from orchestrator.datasets import Location, load, programs
from orchestrator.stages import runner
from orchestrator.stages.graph import Stage, StageFailed, plan
from orchestrator.stages.io import Inputs
from orchestrator.stages.target_model import stored_target
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.validation import Preflight
from orchestrator.training.kernels import use_profile
from orchestrator.training.pairs import as_unit
from orchestrator.training.world import World
from tests import tiny
from tests.models.programs import files
from tests.models.programs.exports import exported
from tests.stages.test_given import Theirs, private, theirs
from tests.sweep.test_validation import point

__all__ = ["theirs"]

FACTS = Program(kind="torchscript", image_size=32, channels=1, scaling="unit", outputs="logits", classes=3)
KNOWN = {"classes": 3, "minimum_accuracy": 0.01}  # which tells that its outputs have the drawn order
GIVEN: dict[str, Any] = {"target": {**KNOWN, "program": "torchscript"}}
INFERENCE = {"evaluation.task": "class-inference"}
MIA = {"attack": {"name": "mia", "steps": 3}, **INFERENCE}


def onnx_of(network: Theirs) -> bytes:
    """Return the network as ONNX; skip where the libraries are not installed."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    weights = {name: one.numpy() for name, one in network.state_dict().items() if one.ndim}
    nodes, flow = [], "images"
    for place in range(3):
        norm = [f"blocks.{place}.1.{one}" for one in ("weight", "bias", "running_mean", "running_var")]
        layer = [f"blocks.{place}.0.weight", f"blocks.{place}.0.bias"]
        nodes += [
            helper.make_node("Conv", [flow, *layer], [f"a{place}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"a{place}", *norm], [f"b{place}"]),
            helper.make_node("MaxPool", [f"b{place}"], [f"c{place}"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Relu", [f"c{place}"], [f"d{place}"]),
        ]
        flow = f"d{place}"
    nodes += [
        helper.make_node("Flatten", [flow], ["rows"]),
        helper.make_node("Gemm", ["rows", "head.1.weight", "head.1.bias"], ["hidden"], transB=1),
        helper.make_node("Gemm", ["hidden", "head.3.weight", "head.3.bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 1, 32, 32])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(one, name) for name, one in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = made.SerializeToString()
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for data and store, which the tests share."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def location(theirs: Theirs, folder: Path) -> Location:
    """Return a data location at which the network is staged as TorchScript and by torch.export."""
    blobs = DirectoryBlobs(folder / "data")
    data = {"torchscript": files.scripted(theirs), "export": exported(theirs, torch.zeros(2, 1, 32, 32))}
    for kind, one in data.items():
        programs.stage(one, FACTS.but(kind=kind), f"net.{kind}", blobs, kind)
    return Location(blobs)


def planned(changes: Mapping[str, Any], location: Location) -> tuple[TrialSpec, dict[str, Stage]]:
    """Return a trial as it is planned, and its stages."""
    preflight = Preflight(location)
    spec = preflight.resolve(point({**GIVEN, **changes})).spec
    trial = normalise(spec)
    return trial, plan(trial, preflight.digests, tiny.PROFILE)


def run(changes: Mapping[str, Any], location: Location, folder: Path) -> dict[str, Mapping[str, float]]:
    """Build every stage of a trial; return the metrics that each left."""
    use_profile(1)
    store = Artifacts(DirectoryBlobs(folder / "store"))
    _, stages = planned(changes, location)
    for stage in stages.values():
        if store.find(stage.key) is None:
            runner.run(stage, World(), store, location)
    found = {name: store.find(stage.key) for name, stage in stages.items()}
    return {name: one.metrics for name, one in found.items() if one is not None}


def of(kind: str, **changes: Any) -> dict[str, Any]:
    return {"target": {**KNOWN, "program": kind, **changes}}


def test_f_is_what_the_file_computes(theirs: Theirs, location: Location, folder: Path) -> None:
    metrics = run({}, location, folder)
    assert not {"pretrain", "target"} & metrics.keys()
    trial, stages = planned({}, location)
    store = Artifacts(DirectoryBlobs(folder / "store"))
    artifact = store.find(stages["given"].key)
    assert artifact is not None
    assert store.read(artifact, "program.bin") == programs.read("torchscript", location)
    inputs = Inputs(World(), lambda name: load(name, location), lambda role, name: store.read(artifact, name))
    seen = private("evaluation")
    with torch.no_grad():
        wanted = theirs(as_unit(seen.images[:]))
        found = stored_target(inputs, trial.data, trial.target)(as_unit(seen.images[:]))
    assert torch.allclose(found, wanted, atol=1e-4)
    accuracy = (wanted.argmax(1) == seen.labels).double().mean().item()
    assert metrics["given"] == {"target/accuracy": pytest.approx(accuracy)}
    assert {"inversion/mse_train", "inversion/mse_test"} <= metrics["evaluation"].keys()


def test_every_kind_gives_the_same_table(
    theirs: Theirs,
    location: Location,
    folder: Path,
) -> None:
    one, other = run({}, location, folder), run(of("export"), location, folder)
    assert one["evaluation"] == pytest.approx(other["evaluation"], rel=1e-2, abs=1e-3)
    blobs = location.blobs
    assert blobs is not None
    programs.stage(onnx_of(theirs), FACTS.but(kind="onnx"), "net.onnx", blobs, "onnx")
    other = run(of("onnx"), location, folder)
    assert one["given"] == pytest.approx(other["given"])
    assert one["evaluation"] == pytest.approx(other["evaluation"], rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_a_white_box_attack_reads_gradients(kind: str, location: Location, folder: Path) -> None:
    metrics = run({**of(kind), **MIA}, location, folder)
    assert metrics["optimization"]["attack/queries"] > 0
    assert metrics["evaluation"]["class/target_confidence"] > 0


def test_the_digest_of_what_is_declared_is_in_the_key(location: Location) -> None:
    _, stages = planned({}, location)
    about = programs.describe("torchscript", location)
    assert stages["given"].weights["target"] == {"name": "torchscript", "digest": about.digest}
    _, others = planned(of("export"), location)
    assert stages["given"].key != others["given"].key
    assert stages["judge"].key == others["judge"].key


def test_too_low_an_accuracy_fails_before_any_attack(location: Location, tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run(of("torchscript", minimum_accuracy=0.9999), location, tmp_path)
    assert caught.value.stage == "given"
    assert caught.value.message.startswith("ValueError: target.program=torchscript reaches an accuracy of 0.")
    assert "the --scaling that it was staged with" in caught.value.message


PROGRAM = "is of a network of this project, but target.program=torchscript is F as it is"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (of("torchscript", model=tiny.DIGIT), f"model.name=ami-digit {PROGRAM}; leave target.model out."),
        (
            of("torchscript", weights="x"),
            "weights=x are of a network of this project, but target.program=tor",
        ),
        (of("torchscript", budget="block1"), f"budget=block1 {PROGRAM}; leave it out."),
        (of("torchscript", defense={"mid": {}}), f"defense.mid {PROGRAM}; leave it out."),
        (of("torchscript", defense={"dp": {}}), f"defense.dp {PROGRAM}; leave it out."),
        (
            of("torchscript", seed=1),
            "seed=1 is of a training, but target.program=torchscript is F as it is; ",
        ),
        (
            {**GIVEN, "attack": {"name": "joint", "model": tiny.DIGIT}},
            "target.program=torchscript is F as it is, but attack.name=joint trains F; leave it out or",
        ),
        (
            {**GIVEN, "evaluation.fisher": {}},
            "evaluation.fisher profiles F's layers, and target.program=torch",
        ),
        (
            {**GIVEN, "release.shield": {}},
            "which target.program=torchscript had not seen is unknown; use train.",
        ),
        (
            {
                **GIVEN,
                "attack": {"name": "kedmi"},
                "prior": {"loss": "kedmi", "teacher_mode": "train"},
                **INFERENCE,
            },
            "prior.teacher_mode=train is a mode that target.program=torchscript has not; leave it out.",
        ),
        ({"target": {"classes": 3}}, "Field required"),
    ],
    ids=range(11),
)
def test_what_a_program_cannot_have_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny.spec(changes)
    assert text in str(caught.value)


def test_labels_of_how_it_was_trained_are_kept(location: Location) -> None:
    trial, _ = planned(of("torchscript", defense={"bido": {}}), location)
    assert trial.target.defense.bido is not None
