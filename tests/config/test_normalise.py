"""The canonical form of a trial: what is respelled, what is left out, and the part that each stage reads."""

from typing import Any

import pytest

from orchestrator import config
from orchestrator.config.budget import FULL, CutPoint
from orchestrator.config.normalise import PlannedSpec, normalise, respelled
from tests import tiny

INVERTER = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
SURROGATE = {"model": tiny.DIGIT}
WEIGHTS = {"weights": "net"}


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ({"release.truncation": 3}, {"release.truncation": None}),
        (
            {"release": {"labels_only": True, "truncation": 2, "decimals": 3, "renormalised": True}},
            {"release": {"labels_only": True}},
        ),
        (
            {"attack.losses": {"total_variation": 0.1, "surrogate": SURROGATE}},
            {"attack.losses": {"total_variation": 0.1}},
        ),
        (
            {"target.pretrain": {**WEIGHTS, "recipe": {"epochs": 3}, "seed": 5}},
            {"target.pretrain": WEIGHTS},
        ),
    ],
    ids=str,
)
def test_what_means_the_same_is_the_same(written: dict[str, Any], canonical: dict[str, Any]) -> None:
    assert tiny.spec(written) != tiny.spec(canonical)
    assert normalise(tiny.spec(written)) == normalise(tiny.spec(canonical))
    assert normalise(tiny.spec(canonical)).model_dump() == tiny.spec(canonical).model_dump()


@pytest.mark.parametrize(
    "changes",
    [
        {"release.truncation": 2},
        {"release.decimals": 3},
        {"attack.losses": {"features": 0.1, "surrogate": SURROGATE}},
        {"target.pretrain": {"recipe": {"epochs": 3}, "seed": 5}},
        {"target.freeze": "weights+statistics"},
        {"evaluation.fisher": {}},
    ],
    ids=str,
)
def test_what_changes_numbers_stays(changes: dict[str, Any]) -> None:
    spec = tiny.spec(changes)
    planned = normalise(spec)
    assert isinstance(planned, PlannedSpec)
    assert planned.model_dump() == spec.model_dump()
    assert normalise(planned) == planned


def test_a_budget_becomes_its_cut_point() -> None:
    spec = tiny.spec({"target.budget": 0.5, "target.freeze": "weights+statistics"})
    assert respelled(spec, cut=CutPoint("block2")).target == spec.target.but(budget="block2")
    assert normalise(spec, cut=CutPoint("block2")).target == spec.target.but(budget="block2")


def test_where_nothing_is_frozen_there_is_one_way_of_freezing() -> None:
    changes = {"target.budget": 0.5, "target.freeze": "weights+statistics", "target.freezes_random": True}
    target = respelled(tiny.spec(changes), cut=FULL).target
    assert (target.budget, target.freeze, target.freezes_random) == ("full", "weights", False)


@pytest.mark.parametrize("replaces", [True, False])
def test_mid_replaces_no_norm_where_there_is_none(replaces: bool) -> None:
    spec = tiny.spec({"target.defense": {"mid": {"weight": 0.01, "replaces_norm": replaces}}})
    assert normalise(spec).target == respelled(spec).target == spec.target
    without = normalise(spec, has_norm=False).target.defense.mid
    assert without == config.Mid(weight=0.01, replaces_norm=None)
    assert without.plain == {"weight": 0.01, "noise_at_inference": True}
    again = spec.but(target=spec.target.but(defense=config.Defense(mid=without)))
    assert normalise(again).target.defense.mid == without
    assert normalise(again, has_norm=True).target.defense.mid == config.Mid(weight=0.01)


def test_a_point_keeps_settings_that_its_stages_do_not_read() -> None:
    spec = tiny.spec({"release": {"labels_only": True, "truncation": 2}})
    assert respelled(spec) == spec


@pytest.mark.parametrize(
    ("changes", "release"),
    [
        ({}, {"truncation": 1}),
        ({"attack.align": False}, {}),
        ({"attack": {"name": "joint", "model": tiny.DIGIT}}, {"truncation": 1}),
        ({"attack": {"name": "optimization"}}, {"truncation": 1, "decimals": 2}),
        ({"attack": {"name": "optimization"}, "evaluation.task": "class-inference"}, {}),
    ],
    ids=str,
)
def test_the_release_that_an_attack_is_made_from(changes: dict[str, Any], release: dict[str, Any]) -> None:
    rounded = {"release.decimals": 2} if "attack" in changes else {}
    planned = normalise(tiny.spec({**changes, **rounded}))
    assert planned.attacked_release == config.Release(**release)
    assert planned.release.truncation == 1  # the evaluation reads the release as it is


def test_an_unaligned_inverter_is_trained_like_an_aligned_one_on_full_scores() -> None:
    unaligned = normalise(tiny.spec({"attack.align": False}))
    assert unaligned.made_attack == normalise(tiny.spec()).attack
    assert unaligned.attack != unaligned.made_attack


def test_what_is_shown_does_not_draw_images() -> None:
    changes = {"evaluation.grid": 2, "evaluation.fisher": {}, "evaluation.networks": {"vgg": "net"}}
    assert normalise(tiny.spec(changes)).drawn_images == normalise(tiny.spec()).drawn_images
    assert normalise(tiny.spec({"evaluation.seed": 1})).drawn_images.seed == 1
    classes = normalise(tiny.spec({"evaluation.task": "class-inference", "evaluation.seed": 1}))
    assert classes.drawn_images == config.Evaluation(task="class-inference")


def test_the_training_of_f_and_the_evaluation_leave_out_what_they_do_not_read() -> None:
    planned = normalise(
        tiny.spec({"target.snapshots": [1], "target.snapshot": 1, "evaluation.fisher": {"images": 4}})
    )
    assert planned.trained_target == planned.target.but(snapshot=None)
    assert planned.measured == tiny.spec().evaluation
