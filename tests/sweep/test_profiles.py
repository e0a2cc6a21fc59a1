"""Numeric profiles come from `resources` alone."""

import pytest
from pydantic import ValidationError

from orchestrator.config.study import Resources
from orchestrator.stages.graph import Profile
from orchestrator.sweep.profiles import profile_of, profiles_of


def test_a_stage_with_resources_of_its_own_has_a_profile_of_its_own() -> None:
    stages = {"evaluation": {"gpus_per_worker": 0.25}, "judge": {"precision": "bfloat16"}}
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


def test_groups_and_checkpoints_enter_no_profile() -> None:
    assert profile_of(Resources(groups=3, checkpoint_seconds=5.0)) == profile_of(Resources())
