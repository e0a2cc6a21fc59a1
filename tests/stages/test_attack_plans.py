"""Spans modules: the stages of each attack, their needs and keys, and combinations that are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.attacks import ATTACK_SPECS
from orchestrator.config.normalise import normalise
from orchestrator.stages.graph import Profile, Stage, dataset_names, plan
from tests import tiny

DIGESTS = {"digits": "d" * 64, "photo-patches": "p" * 64, "weights/some": "w" * 64}
INVERTER = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
SURROGATE = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
LOSSES = {"features": 0.1, "surrogate": SURROGATE}
ATTACKS: dict[str, dict[str, Any]] = {
    "inverter": INVERTER,
    "with features": {**INVERTER, "losses": LOSSES},
    "joint": {"name": "joint", "model": tiny.DIGIT},
    "mia": {"name": "mia"},
    "mia of a mean": {"name": "mia", "start": "auxiliary-mean"},
    "optimization": {"name": "optimization"},
    "gmi": {"name": "gmi"},
    "kedmi": {"name": "kedmi"},
    "ppa": {"name": "ppa"},
    "plg-mi": {"name": "plg-mi"},
    "vmi": {"name": "vmi"},
    "mirror-black-box": {"name": "mirror-black-box"},
    "brepmi": {"name": "brepmi"},
    "mirror": {"name": "mirror"},
    "lomma-g": {"name": "lomma-g"},
    "lomma-g, one student": {"name": "lomma-g", "identity": {"students": {"one": SURROGATE}}},
    "lomma-g, logit": {"name": "lomma-g", "identity": {"loss": "logit"}},
    "lomma-g, augmented": {"name": "lomma-g", "identity": {"loss": "augmented"}},
    "lomma-k": {"name": "lomma-k"},
}
LATENT = (
    *("gmi", "kedmi", "ppa", "brepmi", "mirror", "plg-mi", "vmi", "mirror-black-box"),
    *("lomma-g", "lomma-g, one student", "lomma-g, logit", "lomma-g, augmented", "lomma-k"),
)
TAUGHT = {"kedmi": "kedmi", "plg-mi": "plg", "lomma-k": "kedmi"}
"""Attack -> the loss of its prior, which learns from the target."""
INFERENCE = {"evaluation.task": "class-inference"}


JUDGED = {"retrieval", "evaluation"}
REBUILT = {"reconstructions", *JUDGED}


def planned(attack: str, changes: dict[str, Any] | None = None) -> dict[str, Stage]:
    """Return the stages of the tiny trial with an attack and dotted paths changed."""
    spec = tiny.spec({"attack": ATTACKS[attack], **_prior(attack), **(changes or {})})
    return plan(normalise(spec), DIGESTS, Profile())


def _prior(attack: str) -> dict[str, Any]:
    if attack not in LATENT:
        return {}
    return {"prior": {"loss": TAUGHT[attack]} if attack in TAUGHT else {}}


def changed(attack: str, changes: dict[str, Any], start: dict[str, Any] | None = None) -> set[str]:
    """Return the stages whose keys differ (`start` applied to both)."""
    before, after = planned(attack, start), planned(attack, {**(start or {}), **changes})
    assert list(before) == list(after)
    return {name for name in before if before[name].key != after[name].key}


# Roles of each stage that the attack adds or whose needs it changes, with the stage that fills the role
PREDICTIONS = {"predictions": {"target": "target"}}
INVERSION = {**PREDICTIONS, "inversion": {"predictions": "predictions"}}
SEARCHED: dict[str, dict[str, str]] = {
    "prior": {},
    "optimization": {"target": "target", "prior": "prior"},
}
LEARNED = {**SEARCHED, "prior": {"target": "target"}}


def copied(prior: dict[str, str], *names: str, features: bool = True) -> dict[str, dict[str, str]]:
    """Return what an attack adds that distils students of these names, after a prior with needs."""
    students = {f"student.{name}": {"answers": "answers"} for name in names}
    read = {f"students.{name}": f"student.{name}" for name in names}
    mean = {"answers": "answers"} if features else {}
    searched = {"target": "target", "prior": "prior", **mean, **read}
    return {"prior": prior, "answers": {"target": "target"}, **students, "optimization": searched}


DISTILLED = {
    "lomma-g": copied({}, "b0", "b1", "b2"),
    "lomma-g, one student": copied({}, "one"),
    "lomma-g, logit": copied({}),
    "lomma-g, augmented": copied({}, "b0", "b1", "b2", features=False),
    "lomma-k": copied({"target": "target"}, "b0", "b1", "b2"),
}
FEATURES = {
    **PREDICTIONS,
    "surrogate": {"predictions": "predictions"},
    "inversion": {"predictions": "predictions", "surrogate": "surrogate"},
}


@pytest.mark.parametrize(
    ("attack", "task", "target", "own", "last"),
    [
        ("inverter", "reconstruction", "target", INVERSION, "inversion"),
        ("inverter", "class-inference", "target", INVERSION, "inversion"),
        ("with features", "reconstruction", "target", FEATURES, "inversion"),
        ("with features", "class-inference", "target", FEATURES, "inversion"),
        ("joint", "reconstruction", "joint", {}, "joint"),
        ("joint", "class-inference", "joint", {}, "joint"),
        ("mia", "class-inference", "target", {"optimization": {"target": "target"}}, "optimization"),
        (
            "mia of a mean",
            "class-inference",
            "target",
            {**PREDICTIONS, "optimization": {"target": "target"}},
            "optimization",
        ),
        (
            "optimization",
            "reconstruction",
            "target",
            {"optimization": {"target": "target", "victims": "victims"}},
            "optimization",
        ),
        (
            "optimization",
            "class-inference",
            "target",
            {"optimization": {"target": "target"}},
            "optimization",
        ),
        *(
            (attack, "class-inference", "target", SEARCHED, "optimization")
            for attack in LATENT
            if attack not in {*TAUGHT, *DISTILLED}
        ),
        *((attack, "class-inference", "target", LEARNED, "optimization") for attack in ("kedmi", "plg-mi")),
        *((attack, "class-inference", "target", own, "optimization") for attack, own in DISTILLED.items()),
    ],
)
def test_stages_in_order_and_what_they_need(
    attack: str, task: str, target: str, own: dict[str, dict[str, str]], last: str
) -> None:
    stages = planned(attack, {"evaluation.task": task})
    expected: dict[str, dict[str, str]] = {"pretrain": {}, target: {"pretrain": "pretrain"}, "judge": {}}
    judged = {"target": target, "judge": "judge", "attack": last}
    if task == "reconstruction":
        expected["victims"] = {"target": target}
        judged["victims"] = "victims"
    expected |= own
    if last != "optimization":
        expected["reconstructions"] = {role: judged[role] for role in ("attack", "victims") if role in judged}
    expected |= {"yardsticks": _looked_up(attack, task, target)}
    made = "optimization" if last == "optimization" else "reconstructions"
    start = {"prior": "prior"} if attack in LATENT else {}
    expected |= {"retrieval": {"images": made, "judge": "judge", **start}, "evaluation": judged}
    names = {stage.key: name for name, stage in stages.items()}
    found = {name: {role: names[key] for role, key in stage.needs.items()} for name, stage in stages.items()}
    assert found == expected
    assert list(stages) == list(expected)
    assert all(stage.label == name for name, stage in stages.items())


def _looked_up(attack: str, task: str, target: str) -> dict[str, str]:
    """Return what the yardsticks of an attack need: answers that its adversary has, a judge of classes."""
    needs = {"judge": "judge"} if task == "class-inference" else {"victims": "victims"}
    if attack in ("mia", "optimization", *LATENT):
        needs.pop("victims", None)
        return needs
    return needs | ({"target": target} if attack == "joint" else {"predictions": "predictions"})


@pytest.mark.parametrize("attack", ATTACKS)
def test_without_pretraining_nobody_needs_it(attack: str) -> None:
    stages = planned(attack, {**INFERENCE, "target.pretrain": None})
    assert "pretrain" not in stages
    assert not any("pretrain" in stage.needs for stage in stages.values())


# Who shares what


@pytest.mark.parametrize("attack", ["inverter", "with features"])
def test_a_full_release_has_one_inverter_aligned_or_not(attack: str) -> None:
    full = {"release.truncation": None}
    assert changed(attack, {"attack.align": False}, full) == {"evaluation"}
    aligned = planned(attack, full)["inversion"].key
    keys = {
        planned(attack, {"attack.align": False, "release.truncation": m})["inversion"].key for m in (1, 2)
    }
    assert keys == {aligned}
    assert planned(attack, {"release.truncation": 2})["inversion"].key != aligned


@pytest.mark.parametrize(
    ("attack", "start"),
    [
        ("mia", INFERENCE),
        ("optimization", INFERENCE),
        ("optimization", {}),
        ("joint", {}),
        ("joint", INFERENCE),
        *((attack, INFERENCE) for attack in LATENT),
    ],
)
def test_attacks_without_images_do_not_depend_on_the_auxiliary_set(
    attack: str, start: dict[str, Any]
) -> None:
    for auxiliary in ({"kind": "distinct"}, {"kind": "same-train", "size": 7}, {"seed": 3}):
        assert changed(attack, {"auxiliary": auxiliary}, start) == set()
    prior = _prior(attack)
    trial = tiny.spec({"attack": ATTACKS[attack], "auxiliary": {"kind": "distinct"}, **prior, **start})
    assert dataset_names(trial) == {"private": "digits"} | ({"prior": "digits"} if prior else {})


def test_a_search_from_the_mean_of_the_auxiliary_set_depends_on_it() -> None:
    for auxiliary in ({"kind": "distinct"}, {"kind": "same-train", "size": 7}, {"seed": 3}):
        stages = {"predictions", "optimization", "yardsticks", *JUDGED}
        assert changed("mia of a mean", {"auxiliary": auxiliary}, INFERENCE) == stages
    start = {"attack": ATTACKS["mia of a mean"], "auxiliary": {"kind": "distinct"}, **INFERENCE}
    assert dataset_names(tiny.spec(start)) == {"private": "digits", "auxiliary": "photo-patches"}
    one, other = planned("mia", INFERENCE), planned("mia of a mean", INFERENCE)
    assert {name for name in one if one[name].key == other[name].key} == {"pretrain", "target", "judge"}


@pytest.mark.parametrize(
    "release", [{"truncation": 2}, {"truncation": None}, {"decimals": 3}, {"labels_only": True}], ids=str
)
@pytest.mark.parametrize("attack", ["mia", "optimization", *LATENT])
def test_a_search_for_classes_depends_on_the_release_by_scores_alone(
    attack: str, release: dict[str, Any]
) -> None:
    if ATTACK_SPECS[ATTACKS[attack]["name"]].access != "scores":
        assert changed(attack, {"release": release}, INFERENCE) == {"evaluation"}
    elif not release.get("labels_only"):
        start = {**INFERENCE, "release": {"truncation": 1}}
        assert changed(attack, {"release": release}, start) >= {"optimization", "evaluation"}


def test_optimisation_of_a_prediction_depends_on_what_is_released() -> None:
    assert changed("optimization", {"release.truncation": 2}) == {"optimization", *JUDGED}
    assert changed("optimization", {"release.decimals": 2}) == {"optimization", *JUDGED}


@pytest.mark.parametrize("task", ["reconstruction", "class-inference"])
def test_attacks_on_the_same_answers_share_their_yardsticks(task: str) -> None:
    start = {"evaluation.task": task}
    one = planned("inverter", start)
    for changes in ({"attack.seed": 9}, {"attack.align": False}, {"attack.recipe": {"epochs": 9}}):
        assert planned("inverter", {**start, **changes})["yardsticks"].key == one["yardsticks"].key
    assert planned("with features", start)["yardsticks"].key == one["yardsticks"].key
    searched = [planned(name, INFERENCE)["yardsticks"].key for name in ("mia", "optimization", *LATENT)]
    assert len(set(searched)) == 1


# Students


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"attack.steps": 9}, {"optimization", *JUDGED}),
        ({"attack.identity.feature_weight": 0.5}, {"optimization", *JUDGED}),
        ({"prior": {"epochs": 9}}, {"prior", "optimization", *JUDGED}),
        ({"target.seed": 9}, {"target", "answers", "student.one", "yardsticks", "optimization", *JUDGED}),
        (
            {"attack.identity.students": {"one": {**SURROGATE, "seed": 9}}},
            {"student.one", "optimization", *JUDGED},
        ),
    ],
    ids=tiny.in_order,
)
def test_students_belong_to_a_target_and_not_to_an_attack(changes: dict[str, Any], stages: set[str]) -> None:
    start = {"target.pretrain": None, "target.budget": "full", **INFERENCE}
    found = changed("lomma-g, one student", changes, start)
    assert found == stages


def test_both_attacks_and_every_variant_share_answers_and_students() -> None:
    every = [planned(attack, INFERENCE) for attack in DISTILLED]
    assert len({stages["answers"].key for stages in every}) == 1
    for name in ("student.b0", "student.b1", "student.b2"):
        assert len({stages[name].key for stages in every if name in stages}) == 1


def test_students_read_what_their_prior_is_trained_on() -> None:
    for prior in ({}, {"dataset": "photo-patches"}):
        stages = planned("lomma-g, one student", {"prior": prior, **INFERENCE})
        for name in ("answers", "student.one"):
            assert stages[name].specs["data"] == stages["prior"].specs["data"]
            assert stages[name].datasets == stages["prior"].datasets
            assert stages[name].specs["data"]["dataset"] == prior.get("dataset", "digits")


def test_a_student_reads_the_weights_that_it_starts_from() -> None:
    students = {"one": {**SURROGATE, "weights": "some"}, "two": {**SURROGATE, "seed": 9}}
    stages = planned("lomma-g", {"attack.identity": {"students": students}, **INFERENCE})
    assert stages["student.one"].weights == {"start": {"name": "some", "digest": "w" * 64}}
    assert stages["student.two"].weights == {}


def test_settings_that_a_variant_does_not_read_change_no_key() -> None:
    logit, augmented = {"attack.identity.loss": "logit"}, {"attack.identity.loss": "augmented"}
    students = {"attack.identity.students": {"one": {**SURROGATE, "seed": 9}}}
    assert changed("lomma-g, one student", students, {**INFERENCE, **logit}) == set()
    weight = {"attack.identity.feature_weight": 9.0}
    assert changed("lomma-g, one student", weight, {**INFERENCE, **augmented}) == set()


# The surrogate


@pytest.mark.parametrize(
    "losses",
    [{}, {"adversarial": 0.1}, {"total_variation": 0.1}, {"surrogate": SURROGATE}],
    ids=["none", "adversarial", "total variation", "surrogate without weight"],
)
def test_only_the_feature_loss_needs_a_surrogate(losses: dict[str, Any]) -> None:
    stages = planned("inverter", {"attack.losses": losses})
    assert "surrogate" not in stages
    assert set(stages["inversion"].needs) == {"predictions"}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"attack.losses": {**LOSSES, "adversarial": 0.5}}, {"inversion", *REBUILT}),
        ({"attack.losses": {**LOSSES, "features": 0.5}}, {"inversion", *REBUILT}),
        ({"attack.losses": {**LOSSES, "total_variation": 0.5}}, {"inversion", *REBUILT}),
        ({"attack.offset": 7.0}, {"inversion", *REBUILT}),
        ({"attack.recipe": {"epochs": 9}}, {"inversion", *REBUILT}),
        ({"attack.seed": 9}, {"inversion", *REBUILT}),
        (
            {"attack.losses": {**LOSSES, "surrogate": {**SURROGATE, "seed": 1}}},
            {"surrogate", "inversion", *REBUILT},
        ),
        ({"release.truncation": 2}, {"surrogate", "yardsticks", "inversion", *REBUILT}),
        ({"auxiliary.size": 32}, {"predictions", "surrogate", "yardsticks", "inversion", *REBUILT}),
    ],
    ids=tiny.in_order,
)
def test_a_surrogate_depends_on_the_answers_and_not_on_the_inverter(
    changes: dict[str, Any], stages: set[str]
) -> None:
    assert changed("with features", changes) == stages


def test_what_changes_nothing_changes_no_key() -> None:
    labels = {"release.labels_only": True, "release.truncation": None}
    assert changed("inverter", {"release.truncation": 2}, labels) == set()
    assert changed("joint", {"release.decimals": 2}) == {"yardsticks", *REBUILT}
    assert changed("mia", {"evaluation.images": 5}, INFERENCE) == {"evaluation"}
    assert changed("optimization", {"evaluation.grid": 2}) == {"evaluation"}


def test_an_unaligned_inverter_and_its_surrogate_share_full_answers() -> None:
    unaligned = {"attack.align": False}
    assert changed("with features", {"release.truncation": 2}, unaligned) == {"yardsticks", *REBUILT}


# Joint training

AFTER_JOINT = {"joint", "victims", "yardsticks", *REBUILT}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"attack.weight": 2.0}, AFTER_JOINT),
        ({"attack.reduction": "sum"}, AFTER_JOINT),
        ({"attack.log_floor": -20.0}, AFTER_JOINT),
        ({"attack.seed": 1}, AFTER_JOINT),
        ({"release.truncation": 2}, AFTER_JOINT),
        ({"release.renormalised": True}, AFTER_JOINT),
        ({"target.recipe": {"epochs": 2}}, AFTER_JOINT),
        ({"target.pretrain": {"seed": 3}}, {"pretrain", *AFTER_JOINT}),
        ({"judge.seed": 4}, {"judge", *JUDGED}),
    ],
    ids=tiny.in_order,
)
def test_a_joint_target_depends_on_the_attack_and_on_the_release(
    changes: dict[str, Any], stages: set[str]
) -> None:
    assert changed("joint", changes) == stages


def test_black_box_and_joint_share_pretraining_and_judge_only() -> None:
    one, other = planned("inverter"), planned("joint")
    assert "target" not in other
    shared = {name for name in {*one} & {*other} if one[name].key == other[name].key}
    assert shared == {"pretrain", "judge"}


def test_attacks_on_one_target_share_it() -> None:
    every = [planned(attack, INFERENCE) for attack in ATTACKS if attack != "joint"]
    for name in ("pretrain", "target", "judge"):
        assert len({stages[name].key for stages in every}) == 1


@pytest.mark.parametrize("images", [8, 4096])
@pytest.mark.parametrize("attack", ["inverter", "with features", "joint"])
def test_the_number_of_images_measured_changes_no_training(attack: str, images: int) -> None:
    assert changed(attack, {"evaluation.images": images}) == {"victims", "yardsticks", *REBUILT}
    assert changed(attack, {"evaluation.images": images}, INFERENCE) == {"evaluation"}


@pytest.mark.parametrize("attack", ["inverter", "with features", "joint"])
def test_both_tasks_share_every_training(attack: str) -> None:
    one, other = planned(attack), planned(attack, INFERENCE)
    different = {name for name in other if one[name].key != other[name].key}
    assert different == {"yardsticks", *REBUILT}
    assert set(one) - set(other) == {"victims"}


# What cannot be attacked


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"attack": {**INVERTER, "losses": {"features": 0.5}}},
            "attack.inverter.losses: Value error, features=0.5 needs a surrogate to compare with; set "
            "attack.losses.surrogate, for example to {model: {name: ami-digit}}.",
        ),
        (
            {"attack": ATTACKS["joint"], "release": {"labels_only": True}},
            ": Value error, release.labels_only=true passes no gradient to the classifier, so "
            "attack.name=joint has nothing to train; release scores or choose another attack.",
        ),
        (
            {"attack": ATTACKS["mia"]},
            ": Value error, attack.name=mia makes one image for each class, not for each prediction; set "
            "evaluation.task=class-inference or use attack.name=optimization.",
        ),
        (
            {"attack": ATTACKS["optimization"], "release": {"renormalised": True}},
            ": Value error, release.renormalised=true hides the sum of the kept scores, which "
            "attack.name=optimization fits; release them as they are or choose another attack.",
        ),
        ({"target.classes": 1}, "target.classes: Input should be greater than or equal to 2"),
        (
            {"attack": {**INVERTER, "losses": {"adversarial": -0.1}}},
            "attack.inverter.losses.adversarial: Input should be greater than or equal to 0",
        ),
        (
            {"attack": {**ATTACKS["joint"], "weight": 0.0}},
            "attack.joint.weight: Input should be greater than 0",
        ),
        (
            {"attack": {**ATTACKS["joint"], "recipe": tiny.RECIPE}},
            "attack.joint.recipe: Extra inputs are not permitted",
        ),
        (
            {"attack": {**ATTACKS["joint"], "log_floor": 0.0}},
            "attack.joint.log_floor: Input should be less than 0",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_attacked_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny.spec(changes)
    (fault,) = caught.value.errors()
    assert f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" == text


def test_an_unknown_attack_is_refused_with_the_known_ones() -> None:
    known = ", ".join(f"'{name}'" for name in ATTACK_SPECS)
    with pytest.raises(ValidationError, match=known):
        tiny.spec({"attack": {"name": "gan"}})


@pytest.mark.parametrize(
    "changes",
    [
        {"attack": {**INVERTER, "losses": LOSSES}, "release": {"labels_only": True}},
        {"attack": {**INVERTER, "losses": {"surrogate": SURROGATE}}},
        {"attack": ATTACKS["joint"], "release": {"renormalised": True, "truncation": 2}},
        {"attack": ATTACKS["mia"], "release": {"renormalised": True}, **INFERENCE},
        {"attack": ATTACKS["optimization"], "release": {"labels_only": True}},
        {"target.classes": 2, "release": {"truncation": 2}},
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_next_to_it_is_allowed(changes: dict[str, Any]) -> None:
    assert list(plan(normalise(tiny.spec(changes)), DIGESTS, Profile()))[-1] == "evaluation"
