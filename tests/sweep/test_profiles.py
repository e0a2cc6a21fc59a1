"""Numeric profiles come from `resources` alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.study import Resources
from orchestrator.stages.graph import Profile
from orchestrator.sweep.profiles import profile_of, profiles_of


def test_a_stage_with_resources_of_its_own_has_a_profile_of_its_own() -> None:
    stages = {"evaluation": {"gpus_per_worker": 1.0}, "judge": {"precision": "bfloat16"}}
    resources = Resources.model_validate({"workers": 2, "threads": 3, "stages": stages})
    assert profile_of(resources) == Profile(precision="auto", workers=2, threads=3)
    assert profile_of(resources, "target") == profile_of(resources)
    assert profiles_of(resources) == {
        "evaluation": Profile(device="cuda", precision="auto", workers=2, threads=3),
        "judge": Profile(precision="bfloat16", workers=2, threads=3),
    }


@pytest.mark.parametrize(
    ("gpus", "text"),
    [(1.5, "above 1 it must be a whole number"), (1e-6, "the smallest share of an accelerator is 0.0001")],
)
def test_a_number_of_accelerators_that_ray_cannot_grant(gpus: float, text: str) -> None:
    for stages in ({}, {"evaluation": {"gpus_per_worker": gpus}}):
        with pytest.raises(ValidationError, match=text):
            Resources.model_validate({"gpus_per_worker": 0 if stages else gpus, "stages": stages})


SHARE = "is a share of an accelerator, which {} workers of one training cannot have; "
WHOLE = "needs a whole accelerator for each worker, and gpus_per_worker is 0.5; "
WAY_OUT = "give each worker a whole accelerator or use one worker."


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"workers": 2, "gpus_per_worker": 0.5}, f"gpus_per_worker=0.5 {SHARE.format(2)}"),
        (
            {"workers": 4, "stages": {"evaluation": {"gpus_per_worker": 0.25}}},
            f"stages.evaluation.gpus_per_worker=0.25 {SHARE.format(4)}",
        ),
        (
            {"stages": {"judge": {"workers": 2, "gpus_per_worker": 0.5}}},
            f"stages.judge.gpus_per_worker=0.5 {SHARE.format(2)}",
        ),
        ({"gpus_per_worker": 0.5, "stages": {"judge": {"workers": 2}}}, f"stages.judge.workers=2 {WHOLE}"),
    ],
)
def test_workers_of_one_training_share_no_accelerator(resources: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Resources.model_validate(resources)
    assert str(caught.value.errors()[0]["ctx"]["error"]) == text + WAY_OUT


def test_single_workers_share_an_accelerator_beside_stages_with_whole_ones() -> None:
    stages = {"judge": {"workers": 2, "gpus_per_worker": 1}, "evaluation": {"gpus_per_worker": 0.25}}
    resources = Resources.model_validate({"gpus_per_worker": 0.5, "stages": stages})
    judge, evaluation, target = (resources.of(stage) for stage in ("judge", "evaluation", "target"))
    assert (judge.workers, judge.gpus_per_worker) == (2, 1)
    assert (evaluation.workers, evaluation.gpus_per_worker) == (1, 0.25)
    assert (target.workers, target.gpus_per_worker) == (1, 0.5)


def test_groups_and_checkpoints_enter_no_profile() -> None:
    assert profile_of(Resources(groups=3, checkpoint_seconds=5.0)) == profile_of(Resources())
