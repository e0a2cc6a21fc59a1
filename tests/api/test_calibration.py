"""Calibration: short trials of the same networks, on noise, say what a store without them cannot."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.calibration import calibrate, shortened
from orchestrator.api.forecast import Known, forecast
from orchestrator.api.shipped import STUDIES, shipped_studies
from orchestrator.config import TrialSpec
from orchestrator.config.base import Refused
from orchestrator.config.load import read_study
from orchestrator.config.normalise import normalise
from orchestrator.config.resources import Resources
from orchestrator.datasets import Footprint, Location, describe
from orchestrator.datasets.published import PUBLISHED
from orchestrator.stages.graph import Planner, dataset_names
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.points import expand
from orchestrator.sweep.trial import Task
from tests import tiny

MNIST = {"data.dataset": "mnist", "data.class_pool": None, "target.pretrain": None, "target.budget": "full"}


def test_what_nothing_stored_is_like_is_measured_on_noise(tmp_path: Path) -> None:
    about = PUBLISHED["mnist"].description("mnist")
    counts = ImageCounts(Location(), {"mnist": about})
    counts.stand_in("mnist", PUBLISHED["mnist"].labels())
    known = Known({"mnist": Footprint(about.num_images, about.num_bytes, False)}, counts)
    planner = Planner({"mnist": about.digest}, tiny.PROFILE)
    points = expand(tiny.study({"release.truncation": [1, 2]}, MNIST))[0]
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in points]
    store = Artifacts(DirectoryBlobs(tmp_path / "store"))
    before = forecast(tasks, store, known)
    done = calibrate(tasks, before.unknown, Resources(), {"mnist": about})
    assert done.faults == []
    after = forecast(tasks, store, known, done.stages)
    assert set(before.unknown) == {stage.name for stage in tasks[0].stages.values()}
    assert after.unknown == {}
    assert after.cpu_seconds is not None
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("study", [name for name in shipped_studies() if name != "given-target"])
def test_a_trial_of_every_study_has_a_short_form_or_says_why(study: str) -> None:
    spec = expand(read_study(STUDIES / f"{study}.yaml"))[0][0].spec
    if spec.target.foreign or (spec.prior and spec.prior.weights):
        with pytest.raises(Refused, match="is not measured; run one trial that has it"):
            shortened(spec, 1)
        return
    short = shortened(spec, 1)
    assert short.target.model == spec.target.model
    assert short.target.recipe.epochs == 1
    assert (short.judge.model, short.judge.weights) == (spec.judge.model, None)
    assert set(dataset_names(short)) <= set(dataset_names(spec))


def test_any_error_of_a_short_trial_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("orchestrator.api.calibration._run", fails)
    about = describe("digits", Location())
    planner = Planner({"digits": about.digest}, tiny.PROFILE)
    points = expand(tiny.study({"seed": [0]}))[0]
    planned = [Task(point, planner.plan(normalise(point.spec))) for point in points]
    done = calibrate(planned, ["target"], Resources(), {"digits": about})
    assert done.faults == ["RuntimeError: out of memory"]
    assert done.why("target") == "no short trial has run one"


def test_several_workers_cannot_be_measured_in_one_process() -> None:
    with pytest.raises(Refused, match=r"^resources.workers=2 trains target on 2 workers"):
        calibrate([], ["target"], Resources(workers=2), {})


def spec(changes: dict[str, Any]) -> TrialSpec:
    return shortened(tiny.spec(changes), 4)


def test_every_training_is_short() -> None:
    attack = {"name": "gmi", "steps": 3000, "restarts": 5}
    prior = {"epochs": 100, "model": {"name": "gmi", "width": 0.05}}
    task = {"evaluation.task": "class-inference", "evaluation.images": 2048, "evaluation.grid": 16}
    short = spec({"attack": attack, "prior": prior, "target.recipe.epochs": 90, **task})
    assert short.prior is not None
    assert {short.prior.epochs, short.target.recipe.epochs, short.judge.recipe.epochs} == {4}
    assert short.attack.passes == (16.0, 1.0)
