"""The attacks' settings: traits, the one list of attacks, and what a trial refuses by traits alone."""

from types import MappingProxyType
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from orchestrator import config
from orchestrator.config.attacks import ATTACK_SPECS, alternatives
from orchestrator.config.base import Refused
from tests import tiny


class ToyAttack(config.AttackSpec):
    """An attack that the package does not have."""

    access = "gradients"
    tasks = frozenset({"class-inference"})
    leaves = "images"
    owns_images = True
    cannot_use = MappingProxyType({"labels_only": "gives attack.name=toy nothing to descend"})

    name: Literal["toy"]
    steps: int = 3


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACK_SPECS, "toy", ToyAttack)


@pytest.mark.parametrize("name", ATTACK_SPECS)
def test_every_attack_has_every_trait_and_its_own_name(name: str) -> None:
    one = ATTACK_SPECS[name]
    traits = {trait: getattr(one, trait) for trait in config.AttackSpec.__class_vars__}
    assert traits["tasks"]
    assert traits["access"] in ("labels", "scores", "gradients", "features", "training")
    assert traits["trains_target"] == (traits["access"] == "training")
    assert traits["owns_images"] or not traits["queries_target"]  # it queries with images of its own
    assert (traits["profile"] == "inverter") <= (traits["leaves"] == "inverter")
    assert traits["cannot_use"].keys() <= config.Release.model_fields.keys()
    assert one.model_fields["name"].description


def test_traits_are_no_part_of_a_key() -> None:
    plain = tiny.spec().attack.model_dump(mode="json")
    assert not plain.keys() & config.AttackSpec.__class_vars__


@pytest.mark.usefixtures("toy")
def test_an_attack_in_the_list_is_read_by_its_name() -> None:
    raw = {"attack": {"name": "toy", "steps": 5}, "evaluation.task": "class-inference"}
    spec = tiny.spec(raw)
    assert spec.attack == ToyAttack(name="toy", steps=5)
    assert config.TrialSpec.model_validate_json(spec.model_dump_json()) == spec


def test_an_attack_outside_the_list_is_refused() -> None:
    with pytest.raises(ValidationError, match="Input tag 'toy' found"):
        tiny.spec({"attack": {"name": "toy"}})
    with pytest.raises(ValidationError, match="Input tag 'toy' found"):
        tiny.spec().but(attack=ToyAttack(name="toy"))


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"evaluation.task": "reconstruction"},
            "attack.name=toy makes one image for each class, not for each prediction; set "
            "evaluation.task=class-inference or use attack.name=optimization.",
        ),
        (
            {"release": {"labels_only": True}},
            "release.labels_only=true gives attack.name=toy nothing to descend; release scores or choose "
            "another attack.",
        ),
        (
            {"evaluation.fisher": {}},
            "evaluation.fisher differentiates an inverter or the last update of a descent, but "
            "attack.name=toy is neither here; use null or attack.name=mia or gmi or kedmi.",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_trial_refuses_by_traits(changes: dict[str, Any], text: str) -> None:
    start = {"attack": {"name": "toy"}, "evaluation.task": "class-inference"}
    with pytest.raises(ValidationError) as caught:
        tiny.spec(start | changes)
    assert [str(fault["ctx"]["error"]) for fault in caught.value.errors()] == [text]


def test_alternatives_have_the_same_access_if_any_has() -> None:
    attack = tiny.spec().attack
    assert alternatives(attack, lambda one: one.leaves == "inverter") == "attack.name=inverter"
    white = "attack.name=mia or optimization or gmi or kedmi or ppa or mirror or plg-mi or vmi"
    assert alternatives(attack, lambda one: one.access == "gradients") == white


def test_an_inverter_that_is_not_aligned_is_made_from_the_full_release() -> None:
    release = config.Release(truncation=1)
    attack = config.InverterAttack(model=config.Model(name="ami-digit"))
    assert attack.made_from(release) == (attack, release)
    assert attack.but(align=False).made_from(release) == (attack, config.Release())


def test_settings_may_give_an_attack_images() -> None:
    black, mean = (config.MiaAttack(name="mia", start=start) for start in (0.0, "auxiliary-mean"))
    assert (black.has_images, black.looks_up) == (False, "none")
    assert (mean.has_images, mean.looks_up) == (True, "auxiliary")
    with pytest.raises(Refused, match=r"attack\.start=auxiliary-mean is an image that"):
        mean.check_profile()


def test_an_inverter_for_every_truncation_is_made_from_the_full_release_as_itself() -> None:
    attack = config.InverterAttack(model=config.Model(name="ami-digit"), align="random")
    assert attack.made_from(config.Release(truncation=1)) == (attack, config.Release())
