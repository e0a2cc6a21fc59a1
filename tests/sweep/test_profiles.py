"""Numeric profiles come from `resources` alone."""

from orchestrator.config.study import Resources
from orchestrator.stages.graph import Profile
from orchestrator.sweep.profiles import profile_of, profiles_of


def test_a_stage_with_resources_of_its_own_has_a_profile_of_its_own() -> None:
    stages = {"evaluation": {"gpus_per_worker": 0.25}, "judge": {"precision": "bfloat16"}}
    resources = Resources.model_validate({"workers": 2, "threads": 3, "stages": stages})
    assert profile_of(resources) == Profile(workers=2, threads=3)
    assert profile_of(resources, "target") == profile_of(resources)
    assert profiles_of(resources) == {
        "evaluation": Profile(device="cuda", workers=2, threads=3),
        "judge": Profile(precision="bfloat16", workers=2, threads=3),
    }


def test_groups_and_checkpoints_enter_no_profile() -> None:
    assert profile_of(Resources(groups=3, checkpoint_seconds=5.0)) == profile_of(Resources())
