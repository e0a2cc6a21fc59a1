"""Spans modules: golden stage keys, and the changes that do and do not alter them.

A key that changes here throws away every stored artifact of that stage: do it on purpose, by raising the
stage's version in the table `stages.table.STAGES`, and say so in the commit.
"""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config import TrialSpec
from orchestrator.config.base import canonical
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location
from orchestrator.stages.graph import STAGES, Profile, Stage, dataset_names, plan
from orchestrator.sweep.points import Point, expand
from orchestrator.sweep.validation import Preflight
from tests import tiny

DIGESTS = {
    **{"digits": "d" * 64, "photo-patches": "p" * 64, "faces": "f" * 64},
    **{"weights/face": "w" * 64, "weights/theirs": "t" * 64},
}
FIXED = TrialSpec.model_validate(
    {
        "data": {"dataset": "digits", "class_pool": 5},
        "target": {"classes": 5, "model": {"name": "ami-digit"}, "pretrain": {}, "budget": "block2"},
        "release": {"truncation": 3},
        "auxiliary": {"kind": "distinct"},
        "attack": {"model": {"name": "ami-digit"}, "offset": 50.0},
        "judge": {"model": {"name": "ami-digit"}},
    }
)
GOLDEN = {
    "pretrain": "7508c3750ae29729c63bb98e50e83af83b6320ae35e37686915c9f0ceeefc06f",
    "target": "0a77236a519566b47605d74036b379f2472a3f2e0b4c5cf291d9a03046d7775a",
    "judge": "9d161579d4b6cc7c4ad71eb62ad0c4da34a2730be32255ad46b558093c4bcfa7",
    "victims": "142d03a4fc33a68fcea830dd0b81757734b9905acd36c73256aaaf820a50e3d6",
    "predictions": "92196d50f35a96226c65d4b713edec740d39b17a6d50bfc5afd682a46f697021",
    "inversion": "f4944b1fa9cd05bf8b67254da8099647efad255afd2ed3e17a4c73411990b001",
    "reconstructions": "94f779032193d1a4df4a614a71bc97b8d490ddeb645f0f816b28b32a32b8a30a",
    "yardsticks": "64f4ffa8e304855edc8ba1e17d227d8e4b203684377aab78d685a60b614426bd",
    "retrieval": "01e7516607b133f8107b445c36f337d12e1a04ce1131472c7e7205a7a0d49599",
    "evaluation": "67a11e352cca0432d88c7e1e2826e2b32525d403d9dc4edf8a3bb6f1d32ee8f4",
}


BOTTLENECK = {"target.defense": {"mid": {"weight": 0.01}}}
JOINT = {"name": "joint", "model": tiny.DIGIT}
WHITE_BOX = {"name": "optimization"}
SEARCHED = {"prior": {}, "attack": {"name": "gmi"}, "evaluation.task": "class-inference"}
DISTILLED = {**SEARCHED, "attack": {"name": "lomma-g"}}
SNAPSHOT = {"target.snapshots": [1], "target.snapshot": 1}
GIVEN = {"target": {"classes": 3, "model": tiny.DIGIT, "weights": "theirs"}}
FURTHER = {"judges": {"classifiers": {"other": {"model": tiny.DIGIT, "seed": 9}}}}
RECOGNISER = {"judges": {"recogniser": {"weights": "face"}}}
SHIELDED: dict[str, Any] = {"release.shield": {}}
WITH_FEATURES = {"model": tiny.DIGIT, "losses": {"features": 1.0, "surrogate": {"model": tiny.DIGIT}}}


def planned(changes: dict[str, Any] | None = None) -> dict[str, Stage]:
    """Return the stages of the tiny trial with dotted paths changed."""
    return plan(normalise(tiny.spec(changes)), DIGESTS, Profile())


def changed(changes: dict[str, Any], start: dict[str, Any] | None = None) -> set[str]:
    """Return the stages whose keys differ from those of the tiny trial (`start` applied to both)."""
    before, after = planned(start), planned({**(start or {}), **changes})
    return {
        name
        for name in {*before, *after}
        if name not in before or name not in after or before[name].key != after[name].key
    }


def test_golden_keys() -> None:
    assert {name: stage.key for name, stage in plan(normalise(FIXED), DIGESTS, Profile()).items()} == GOLDEN


@pytest.mark.parametrize(
    ("prior", "key"),
    [
        ({}, "3bf5455f1a196658e0b76dac984206427387b592dd7a710bb40e8b57f67e7150"),
        (
            {"loss": "wgan-gp", "dataset": "faces"},
            "295dcde26a1798cb64cff1345c90c71ebecafc12f3993eab845b5476536a8dff",
        ),
    ],
    ids=tiny.in_order,
)
def test_golden_keys_of_priors(prior: dict[str, Any], key: str) -> None:
    changes = {"prior": prior, "attack": {"name": "gmi"}, "evaluation": {"task": "class-inference"}}
    spec = TrialSpec.model_validate({**FIXED.model_dump(mode="json"), **changes})
    assert plan(normalise(spec), DIGESTS, Profile())["prior"].key == key


def test_a_bottleneck_on_a_network_without_a_norm_keeps_its_key() -> None:
    point = expand(tiny.study({"seed": [3]}, BOTTLENECK))[0][0]
    spec = normalise(Preflight(Location()).resolve(point).spec)
    key = plan(spec, DIGESTS, Profile())["target"].key
    assert key == "748ced5170f991c8d3b4e97d16c6a066f79adcd6eb2e88ad01f8e66df5e4c4e4"
    assert key != plan(normalise(tiny.spec(BOTTLENECK)), DIGESTS, Profile())["target"].key  # as of a VGG16


def test_stages_come_in_the_order_they_need_each_other() -> None:
    seen: set[str] = set()
    for stage in planned().values():
        assert set(stage.needs.values()) <= seen, stage.name
        seen.add(stage.key)
    every = [planned({"attack": attack}) for attack in (JOINT, WHITE_BOX, WITH_FEATURES)]
    every += [planned(SNAPSHOT), planned({"evaluation.fisher": {}}), planned(SEARCHED)]
    every += [planned(FURTHER), planned(RECOGNISER), planned(SHIELDED), planned(DISTILLED)]
    every += [planned(GIVEN), planned({**SEARCHED, "evaluation.networks": {"inception": "face"}})]
    order = list(STAGES)
    for stages in (planned(), *every):
        names = list(dict.fromkeys(stage.name for stage in stages.values()))
        assert [name for name in order if name in names] == names
    assert {stage.name for stages in (planned(), *every) for stage in stages.values()} == set(order)


REBUILT = {"reconstructions", "retrieval", "evaluation"}
ATTACKED = {"inversion", *REBUILT}
RELEASED = {"yardsticks", *ATTACKED}
QUERIED = {"predictions", "victims", *RELEASED}
TRAINED = {"target", *QUERIED}


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"release.truncation": 2}, RELEASED),
        ({"release.truncation": None}, RELEASED),
        ({"release.decimals": 3}, RELEASED),
        (SHIELDED, {"shield", *RELEASED}),
        ({"release.shield": None}, set()),
        ({"target.seed": 1}, TRAINED),
        ({"target.classes": 2}, TRAINED),
        ({"target.budget": "block2"}, TRAINED),
        ({"target.freeze": "weights+statistics"}, TRAINED),
        ({"target.defense": {"mid": {}}}, TRAINED),
        ({"target.snapshots": [1]}, TRAINED),
        (SNAPSHOT, {"snapshot", *TRAINED}),
        ({"evaluation.fisher": {}}, {"fisher"}),
        ({"target.recipe": {"epochs": 2}}, TRAINED),
        ({"target.pretrain": {"seed": 3}}, {"pretrain", *TRAINED}),
        ({"target.pretrain": {"dataset": "faces"}}, {"pretrain", *TRAINED}),
        ({"target.pretrain": None}, {"pretrain", *TRAINED}),
        ({"auxiliary.kind": "same-train"}, {"predictions", *RELEASED}),
        ({"auxiliary.kind": "distinct"}, {"predictions", *RELEASED}),
        ({"auxiliary.size": 32}, {"predictions", *RELEASED}),
        ({"attack.seed": 1}, ATTACKED),
        ({"attack.align": False}, ATTACKED),
        ({"attack.align": "random"}, ATTACKED),
        ({"attack.offset_learnable": True}, ATTACKED),
        ({"attack.offset": "log-k"}, ATTACKED),
        ({"attack.classes": "given"}, set()),
        ({"attack.classes": "estimated"}, ATTACKED),
        ({"attack.encoding": "log"}, set()),
        ({"attack.encoding": "logit"}, ATTACKED),
        ({"attack.offset_learning_rate": 0.1}, set()),  # of a constant c
        ({"attack.offset_learnable": True, "attack.offset_learning_rate": 0.1}, ATTACKED),
        ({"judge.seed": 9}, {"judge", "retrieval", "evaluation"}),
        ({"judge.images": "auxiliary"}, {"judge", "retrieval", "evaluation"}),
        (FURTHER, {"judge.other", "judgement.other"}),
        (RECOGNISER, {"descriptors", "recognition"}),
        ({"evaluation.images": 8}, {"victims", "yardsticks", *REBUILT}),
        ({"evaluation.grid": 2}, {"evaluation"}),
        ({"attack.losses": {"surrogate": {"model": tiny.DIGIT}}}, set()),
        ({"attack.losses": {"adversarial_form": "non-saturating"}}, set()),
        ({"attack.losses": {"adversarial": 0.1, "adversarial_form": "non-saturating"}}, ATTACKED),
        ({"data.class_seed": 9}, {"pretrain", "judge", *TRAINED}),
        ({"data.split": "even"}, {"pretrain", "judge", *TRAINED}),
    ],
    ids=tiny.in_order,
)
def test_a_setting_changes_the_stages_that_read_it_and_those_after(
    changes: dict[str, Any], stages: set[str]
) -> None:
    assert changed(changes) == stages


def test_a_further_judge_is_trained_once_for_trials_that_have_it_under_any_name() -> None:
    judge = FURTHER["judges"]["classifiers"]["other"]
    first = planned({"judge": judge})["judge"]
    assert planned(FURTHER)["judge.other"].key == first.key
    assert planned({"judges": {"classifiers": {"b": judge}}})["judge.b"].key == first.key
    judgement = planned(FURTHER)["judgement.other"]
    assert changed({**FURTHER, "attack.seed": 9}, FURTHER) == {*ATTACKED, "judgement.other"}
    assert judgement.needs["judge"] == first.key


@pytest.mark.parametrize("align", [False, "random"])
def test_unaligned_inverters_share_one_training_over_m(align: bool | str) -> None:
    unaligned = {"attack.align": align}
    assert changed({"release.truncation": 2}, unaligned) == {"yardsticks", *REBUILT}
    assert changed({"release.truncation": None}, unaligned) == {"yardsticks", *REBUILT}
    keys = {planned({"attack.align": align, "release.truncation": m})["inversion"].key for m in (1, 2, None)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "profile",
    [
        Profile(device="cuda"),
        Profile(precision="bfloat16"),
        Profile(workers=2),
        Profile(threads=2),
    ],
    ids=tiny.in_order,
)
def test_what_changes_bits_changes_every_key(profile: Profile) -> None:
    other = plan(normalise(tiny.spec()), DIGESTS, profile)
    assert all(other[name].key != stage.key for name, stage in planned().items())


def test_other_bytes_of_a_data_set_change_what_reads_it_and_what_follows() -> None:
    trial = tiny.spec({"auxiliary.kind": "distinct"})
    before = plan(normalise(trial), DIGESTS, Profile())
    after = plan(normalise(trial), {**DIGESTS, "photo-patches": "q" * 64}, Profile())
    assert {name for name in before if before[name].key != after[name].key} == {"predictions", *RELEASED}
    every = plan(normalise(trial), {**DIGESTS, "digits": "e" * 64}, Profile())
    assert all(before[name].key != every[name].key for name in before)


def test_a_new_version_of_a_stage_changes_its_key_and_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned()
    newer = replace(STAGES["predictions"], version=STAGES["predictions"].version + 1)
    monkeypatch.setitem(STAGES, "predictions", newer)
    after = planned()
    assert {name for name in before if before[name].key != after[name].key} == {"predictions", *RELEASED}


def test_every_part_of_a_stage_enters_its_key() -> None:
    stage = planned()["evaluation"]
    others = [
        replace(stage, name="other"),
        replace(stage, version=0),
        replace(stage, specs={}),
        replace(stage, datasets={}),
        replace(stage, needs={}),
        replace(stage, profile={}),
    ]
    assert len({stage.key, *(other.key for other in others)}) == 7


def test_resources_never_enter_a_key() -> None:
    plain = tiny.study({"seed": [0, 1]})
    wide = tiny.study(
        {"seed": [0, 1]}, resources={"groups": 7, "checkpoint_seconds": 1.0, "gpus_per_worker": 1}
    )

    def points(study: tiny.Study) -> list[Point]:
        return expand(study)[0]

    assert [point.key for point in points(plain)] == [point.key for point in points(wide)]
    assert plain.key == wide.key
    words = "groups", "checkpoint_seconds", "gpus_per_worker", "resources"
    text = "".join(canonical(dict(stage.specs)) for stage in planned().values())
    assert not [word for word in words if word in text]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, {"private": "digits"}),
        ({"auxiliary.kind": "distinct"}, {"private": "digits", "auxiliary": "photo-patches"}),
        (
            {"auxiliary": {"kind": "distinct", "dataset": "faces"}},
            {"private": "digits", "auxiliary": "faces"},
        ),
        ({"auxiliary": {"kind": "generic", "dataset": "faces"}}, {"private": "digits", "auxiliary": "faces"}),
        ({"auxiliary.kind": "augmented"}, {"private": "digits"}),
        ({"target.pretrain": {"dataset": "faces"}}, {"private": "digits", "pretrain": "faces"}),
    ],
    ids=tiny.in_order,
)
def test_data_sets_that_a_trial_reads(changes: dict[str, Any], names: dict[str, str]) -> None:
    assert dataset_names(tiny.spec(changes)) == names


def test_canonical_json_is_sorted_without_spaces_and_refuses_nan() -> None:
    assert canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="Out of range float values"):
        canonical({"a": float("nan")})
