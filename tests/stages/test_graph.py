"""The table of stages: rows, needs and instances, and how little a new stage touches."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import TypeAdapter

from orchestrator.config import Data, Judge, Surrogate, TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location
from orchestrator.metrics.names import METRICS
from orchestrator.stages import runner
from orchestrator.stages.graph import STAGES, Kind, Profile, Use, plan
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny
from tests.test_scenarios import CASES, trial

DIGESTS = {"digits": "d" * 64}
SURROGATES = {
    name: Surrogate.model_validate({"model": tiny.DIGIT, "recipe": tiny.RECIPE, "seed": seed})
    for seed, name in enumerate(("b0", "b1"))
}
WITH_FEATURES = {
    "model": tiny.DIGIT,
    "recipe": tiny.RECIPE,
    "losses": {"features": 0.1, "surrogate": {"model": tiny.DIGIT, "recipe": tiny.RECIPE}},
}


@pytest.mark.parametrize(("name", "task"), CASES)
def test_rows_name_what_their_functions_take(name: str, task: str) -> None:
    for stage in tiny.stages(trial(name, task)).values():
        _, specs = runner.load_stage(stage)
        kind = STAGES[stage.name]
        uses = {use.instance: use for use in kind.uses(normalise(trial(name, task)))}
        unread = uses[stage.instance].unread
        assert set(specs) | set(unread) == set(kind.reads)
        assert not set(specs) & set(unread)


def test_needs_name_stages_and_metrics_have_a_family() -> None:
    for kind in STAGES.values():
        assert {one for names in kind.needs.values() for one in names} <= set(STAGES) - {kind.name}
    families = {stage for metric in METRICS.values() for stage in metric.stages}
    assert {family for kind in STAGES.values() for family in kind.metrics} == families


def test_a_stage_leaves_metrics_of_its_families(tmp_path: Path) -> None:
    tiny.run(tiny.spec(), tmp_path)
    store = Artifacts(DirectoryBlobs(tmp_path))
    for stage in tiny.stages(tiny.spec()).values():
        artifact = store.find(stage.key)
        assert artifact is not None
        families = {metric.partition("/")[0] for metric in artifact.metrics}
        assert families <= set(STAGES[stage.name].metrics), stage.name


def brightness(inputs: Inputs, data: Data, judge: Judge) -> Outputs:
    """Return how bright the private images are, and that the input can be read."""
    images = inputs.datasets(data.dataset).images
    assert inputs.read("network", "model.safetensors")
    return Outputs({}, {"toy/brightness": float(images[:].mean())}, len(images))


def test_a_new_stage_is_a_row_and_a_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("orchestrator.stages.toy")
    module.run = brightness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = Kind("toy", 1, ("data", "judge"), needs={"network": ("judge",)}, metrics=("toy",))
    monkeypatch.setitem(STAGES, "toy", row)
    stages = tiny.stages(tiny.spec())
    assert stages["toy"].needs == {"network": stages["judge"].key}
    store = Artifacts(DirectoryBlobs(tmp_path))
    for name in ("judge", "toy"):
        runner.run(stages[name], runner.World(), store, Location())
    artifact = store.find(stages["toy"].key)
    assert artifact is not None
    assert 0 < artifact.metrics["toy/brightness"] < 255


def two_surrogates(monkeypatch: pytest.MonkeyPatch) -> TrialSpec:
    """Give each trial two surrogates; return one that compares features."""

    def uses(spec: TrialSpec) -> list[Use]:
        return [Use({"surrogate": one}, instance=name) for name, one in SURROGATES.items()]

    monkeypatch.setitem(STAGES, "surrogate", replace(STAGES["surrogate"], uses=uses))
    return tiny.spec({"attack": WITH_FEATURES})


def test_instances_of_a_stage_have_keys_roles_and_metrics_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stages = tiny.stages(two_surrogates(monkeypatch))
    one, other = stages["surrogate.b0"], stages["surrogate.b1"]
    assert one.key != other.key
    assert one.needs == other.needs == {"predictions": stages["predictions"].key}
    surrogates = {"surrogate.b0": one.key, "surrogate.b1": other.key}
    assert stages["inversion"].needs == {"predictions": stages["predictions"].key, **surrogates}
    store = Artifacts(DirectoryBlobs(tmp_path))
    metrics: dict[str, float] = {}
    for name in ("pretrain", "target", "predictions", "surrogate.b0", "surrogate.b1"):
        runner.run(stages[name], runner.World(), store, Location())
        artifact = store.find(stages[name].key)
        assert artifact is not None
        metrics |= {stages[name].metric(metric): value for metric, value in artifact.metrics.items()}
    assert metrics["surrogate.b0/validation_loss"] != metrics["surrogate.b1/validation_loss"]
    assert not any(metric.startswith("surrogate/") for metric in metrics)


def test_an_instance_has_the_key_of_the_stage_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = plan(normalise(tiny.spec({"attack": WITH_FEATURES})), DIGESTS, Profile())["surrogate"]
    stages = plan(normalise(two_surrogates(monkeypatch)), DIGESTS, Profile())
    release = TypeAdapter(dict).validate_python(stages["surrogate.b0"].specs["release"])
    assert release == plain.specs["release"]
    assert stages["surrogate.b0"].key == plain.key  # the same computation: one artifact for both


def test_an_instance_reads_the_instance_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = two_surrogates(monkeypatch)
    uses = [Use(instance="b0"), Use(instance="b1"), Use(instance="b2")]
    row = Kind("toy", 1, ("data",), needs={"network": ("surrogate",)}, uses=lambda spec: uses)
    monkeypatch.setitem(STAGES, "toy", row)
    stages = plan(normalise(spec), DIGESTS, Profile())
    keys = {name: stages[f"surrogate.{name}"].key for name in ("b0", "b1")}
    assert stages["toy.b0"].needs == {"network": keys["b0"]}
    assert stages["toy.b1"].needs == {"network": keys["b1"]}
    assert stages["toy.b2"].needs == {f"network.{name}": key for name, key in keys.items()}
