"""Numeric profiles: from a study's resources; a stage that names its own has its own."""

from orchestrator.config.study import Resources
from orchestrator.stages.graph import Profile
from orchestrator.sweep.profiles import profile_of, profiles_of


def test_a_share_of_an_accelerator_is_a_device_kind_and_nothing_more() -> None:
    quarter, whole = (profile_of(Resources(gpus_per_worker=share)) for share in (0.25, 1.0))
    assert quarter == whole == Profile(device="cuda")
    assert profile_of(Resources()) == Profile()


def test_stages_with_resources_of_their_own_have_their_own_profile() -> None:
    resources = Resources.model_validate(
        {
            "threads": 4,
            "gpus_per_worker": 1,
            "stages": {"judge": {"gpus_per_worker": 0}, "target": {"workers": 2}},
        }
    )
    assert profiles_of(resources) == {
        "judge": Profile(device="cpu", threads=4),
        "target": Profile(device="cuda", threads=4, workers=2),
    }
    assert profile_of(resources, "inversion") == profile_of(resources) == Profile(device="cuda", threads=4)
