"""What `lacks` says of a trial is what the trial leaves: every name of the table, for each kind of trial."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.normalise import normalise
from orchestrator.metrics.names import MetricName, measured
from orchestrator.sweep.adversary import queries_beyond_release
from orchestrator.sweep.inferred import inferred_classes
from orchestrator.sweep.measurable import lacks, what_is_lacking
from tests import tiny

SURROGATE = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
CLASSES = {"evaluation.task": "class-inference"}
UNTRAINED = {"target.pretrain": None, "target.budget": "full"}
TRIALS: dict[str, dict[str, Any]] = {
    "inverter": {},
    "losses": {"attack.losses": {"features": 0.1, "adversarial": 0.1, "surrogate": SURROGATE}},
    "joint": {"attack": {"name": "joint", "model": tiny.DIGIT}},
    "mia": {
        "attack": {"name": "mia", "steps": 2},
        "evaluation.fisher": {"images": 4, "iterations": [1]},
        **CLASSES,
    },
    "optimization": {"attack": {"name": "optimization", "steps": 2}, **UNTRAINED},
    "private": {
        "target.defense": {"dp": {}},
        "target.budget": "full",
        "target.recipe": {**tiny.RECIPE, "epochs": 2},
        "target.snapshots": [1],
        "target.snapshot": 1,
    },
    "fisher": {"evaluation.fisher": {"images": 4, "distances": ["l1", "l2"]}, "target.selection": "test"},
    "classes": CLASSES,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one store for all trials, which share judges and targets."""
    return tmp_path_factory.mktemp("measured")


OTHER = {"judges": {"classifiers": {"other": {"model": tiny.DIGIT, "seed": 9}}}}


@pytest.mark.parametrize("name", TRIALS)
def test_a_metric_is_lacking_exactly_where_a_trial_leaves_none(name: str, store: Path) -> None:
    trial = tiny.spec(TRIALS[name])
    metrics = tiny.run(trial, store)
    left = (
        metrics.keys()
        | queries_beyond_release(trial, metrics).keys()
        | inferred_classes(trial, metrics).keys()
    )
    planned = normalise(trial)
    assert left == {metric for metric in measured() if not lacks(MetricName.parse(metric), planned, 10)}


@pytest.mark.parametrize(
    ("changes", "metric", "needed"),
    [
        ({}, "attack/fid_test", "evaluation.networks.inception"),
        (CLASSES, "class/lpips_vgg", "evaluation.networks.vgg"),
        (CLASSES, "inversion/mse_test", "evaluation.task=reconstruction"),
        ({}, "class/judge_top1", "evaluation.task=class-inference"),
        ({}, "target/epsilon", "target.defense.dp"),
        (
            {"target": {"classes": 3, "model": tiny.DIGIT, "weights": "x", "defense": {"dp": {}}}},
            "target/epsilon",
            "a target that is trained here",
        ),
        (
            {"judge": {"model": tiny.DIGIT, "weights": "x", "trained": False}},
            "judge/best_epoch",
            "a judge that is trained here",
        ),
        (UNTRAINED, "pretrain/best_epoch", "the stage pretrain"),
        ({}, "pretrain/accuracy", "target.pretrain.weights with target.pretrain.dataset"),
        ({"target.pretrain": {"weights": "x"}}, "pretrain/best_epoch", "target.pretrain without weights"),
        ({"evaluation.fisher": {}}, "fisher/early_share_l1", "l1 in evaluation.fisher.distances"),
        ({}, "surrogate.b0/best_epoch", "the stage surrogate"),
        ({}, "attack/classes_estimated", "attack.classes=estimated"),
        ({"attack.classes": "estimated"}, "attack/classes_estimated", ""),
        ({}, "prior/spread", "the stage prior"),
        ({**CLASSES, "attack": {"name": "gmi"}, "prior": {}}, "prior/queries", "prior.loss=kedmi or plg"),
        ({**CLASSES, "attack": {"name": "gmi"}, "prior": {}}, "prior/validation_fake", ""),
        ({}, "inversion/skill_test", ""),
        (CLASSES, "inversion/skill_test", "evaluation.task=reconstruction"),
        (CLASSES, "class/skill", ""),
        (CLASSES, "class/over_floor", ""),
        ({}, "yardstick/classes_inferred", "evaluation.task=class-inference"),
        (CLASSES, "yardstick/recogniser_chance", "judges.recogniser with evaluation.task=class-inference"),
        ({}, "class/over_chance", "evaluation.task=class-inference"),
        ({}, "yardstick/grey_mse_test", "an adversary without images"),
        ({"attack": {"name": "optimization"}}, "yardstick/label_mse_test", "an adversary with images"),
        ({"attack": {"name": "mia"}, **CLASSES}, "class/yardstick_random_top1", "an adversary with images"),
        ({"attack": {"name": "joint", "model": tiny.DIGIT}}, "target/validation_loss", "the stage target"),
        ({}, "attack.other/accuracy_top1_test", "judges.classifiers.other"),
        ({}, "judge.other/accuracy", "the stage judge"),
        (OTHER, "attack.other/accuracy_top1_test", ""),
        (OTHER, "attack.other/kappa_test", ""),
        (OTHER, "judge.other/accuracy", ""),
        (OTHER, "class.other/judge_top1", "evaluation.task=class-inference"),
        (OTHER, "attack.other/knn_distance_test", "attack/... without a judge's name"),
        (
            OTHER,
            "attack/agreement_test",
            "the name of one of judges.classifiers, as in attack.NAME/agreement_test",
        ),
    ],
    ids=str,
)
def test_what_a_metric_needs_is_named(changes: dict[str, Any], metric: str, needed: str) -> None:
    assert lacks(MetricName.parse(metric), normalise(tiny.spec(changes)), 10) == needed


def test_top_5_of_five_classes_is_left_out() -> None:
    name, planned = MetricName.parse("attack/accuracy_top5_test"), normalise(tiny.spec())
    assert lacks(name, planned, 5) == "more than 5 classes in the private data set"
    assert lacks(name, planned, 6) == ""


def test_one_trial_that_leaves_a_metric_is_enough() -> None:
    name = MetricName.parse("class/judge_top1")
    trials = [normalise(tiny.spec(changes)) for changes in ({}, CLASSES)]
    assert what_is_lacking(name, trials, {"digits": 10}) == ""
    assert what_is_lacking(name, trials[:1], {"digits": 10}) == "evaluation.task=class-inference"
