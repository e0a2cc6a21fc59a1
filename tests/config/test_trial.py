"""The spec: what it refuses, and that it is data which cannot change."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator import config
from orchestrator.config.base import canonical
from orchestrator.config.load import faults
from tests import tiny

SPECS = [
    one
    for one in vars(config).values()
    if isinstance(one, type) and issubclass(one, config.Spec) and one is not config.Spec
]


def refused(changes: dict[str, Any]) -> str:
    """Return the message about the tiny trial with dotted paths changed."""
    with pytest.raises(ValidationError) as caught:
        tiny.spec(changes)
    (fault,) = caught.value.errors()
    place = ".".join(str(part) for part in fault["loc"] if part not in config.ATTACK_SPECS)
    return f"{place}: {fault['msg']}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"release.truncation": 0}, "release.truncation: Input should be greater than 0"),
        (
            {"target.seed": True},
            "target.seed: Value error, true and false are no numbers or names here",
        ),
        (
            {"target.recipe": {"milestones": [5, 5]}},
            "target.recipe.milestones: Value error, each must be greater than the one before it",
        ),
        (
            {"attack.model.scaling": "imagenet"},
            "attack: Value error, model.scaling=imagenet is of a classifier's images, and an inverter reads "
            "scores; leave it out.",
        ),
        *(
            (
                {"attack.classes": "estimated", "attack.align": align},
                f"attack: Value error, classes=estimated counts classes in released answers, but "
                f"attack.align={str(align).lower()} trains on all scores, which name every class; set "
                "attack.align to true or use given.",
            )
            for align in (False, "random")
        ),
        (
            {"release.truncation": 4},
            ": Value error, release.truncation=4 must lie in 1..target.classes=3; use null to release every "
            "score.",
        ),
        (
            {"target.classes": 6},
            ": Value error, target.classes=6 must lie in 1..data.class_pool=5; enlarge the pool or lower "
            "target.classes.",
        ),
        ({"release.decimals": 8}, "release.decimals: Input should be less than or equal to 7"),
        ({"data.channels": 2}, "data.channels: Input should be 1 or 3"),
        ({"data.image_size": 4}, "data.image_size: Input should be greater than or equal to 8"),
        ({"target.seed": -1}, "target.seed: Input should be greater than or equal to 0"),
        (
            {"target.freeze": "statistics"},
            "target.freeze: Input should be 'weights' or 'weights+statistics'",
        ),
        (
            {"auxiliary.kind": "same"},
            "auxiliary.kind: Input should be 'same-train', 'same-heldout', 'same-test', 'generic', "
            "'distinct' or 'augmented'",
        ),
        ({"auxiliary.size": 0}, "auxiliary.size: Input should be greater than 0"),
        ({"attack.offset_learning_rate": 0}, "attack.offset_learning_rate: Input should be greater than 0"),
        ({"attack.encoding": "exp"}, "attack.encoding: Input should be 'log', 'logit' or 'log-ratio'"),
        (
            {"attack.zero_policy": "clamp"},
            "attack.zero_policy: Input should be 'zero-after-log', 'log-clamp' or 'floor'",
        ),
        ({"attack.model": {"name": "x", "width": 0}}, "attack.model.width: Input should be greater than 0"),
        ({"judge.recipe": {"epochs": 0}}, "judge.recipe.epochs: Input should be greater than 0"),
        (
            {"judge.recipe": {"validation_fraction": 1.0}},
            "judge.recipe.validation_fraction: Input should be less than 1",
        ),
        ({"evaluation.grid": 65}, "evaluation.grid: Input should be less than or equal to 64"),
        ({"workers": 2}, "workers: Extra inputs are not permitted"),
        (
            {"data.class_order": "staged"},
            "data: Value error, class_seed=1 draws the order of classes, which data.class_order gives; leave "
            "one of them out.",
        ),
        (
            {"data": {"dataset": "digits", "class_order": ["a", "b", "a"]}},
            "data: Value error, class_order names a twice; name each class once, in the order of the "
            "outputs.",
        ),
        (
            {"data": {"dataset": "digits", "class_order": []}},
            "data: Value error, class_order is an empty list; name each class once, in the order of the "
            "outputs.",
        ),
        (
            {"data": {"dataset": "digits", "class_order": "weights"}},
            ": Value error, data.class_order=weights is the order of the outputs of target.weights, which "
            "are not named; name them, or use staged or seeded.",
        ),
        (
            {"data.class_order": "alphabetical"},
            "data.class_order: Value error, must be seeded, staged, weights, or a list of class names",
        ),
        ({"judge.images": "test"}, "judge.images: Input should be 'train' or 'auxiliary'"),
        (
            {"judges": {"classifiers": {"Wide net": tiny.BASE["judge"]}}},
            "judges.classifiers.Wide net.[key]: String should match pattern '^[a-z0-9][a-z0-9-]{0,30}$'",
        ),
        (
            {"judges": {"classifiers": {"wide": tiny.BASE["judge"]}}},
            ": Value error, judges.classifiers.wide is the same as judge, with which it would always agree; "
            "give it another seed, model or images, or leave it out.",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_wrong_values_are_refused_where_they_stand(changes: dict[str, Any], text: str) -> None:
    assert refused(changes) == text


def test_a_class_given_as_text_is_a_name() -> None:
    """As a number the name 1 would be a place in the manifest, which may be another person's."""
    for order in (["1", "0"], ["0007", "2880"], [1, 0]):
        assert tiny.spec({"data": {"dataset": "digits", "class_order": order}}).data.class_order == tuple(
            order
        )


@pytest.mark.parametrize(
    ("order", "shown", "told"),
    [
        ([1, "a", "b"], "'a'", "place in the manifest (0, 1, ...)"),
        (["a", 1, 2], "1", "class name"),
        (["a", ""], "''", "class name"),
        ([-1], "-1", "place in the manifest (0, 1, ...)"),
        ([1.0, 2], "1.0", "place in the manifest (0, 1, ...)"),
    ],
    ids=str,
)
def test_the_first_entry_that_is_no_class_is_told(order: list[Any], shown: str, told: str) -> None:
    assert refused({"data": {"dataset": "digits", "class_order": order}}) == (
        f"data.class_order: Value error, lists {shown}, which is no {told}; list class names or places, "
        "not both"
    )


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (-1, "greater than or equal to 0"),
        (float("inf"), "a finite number"),
        ("log-m", "a valid number, unable to parse string as a number"),
    ],
)
def test_the_constant_of_an_encoding_is_a_number_or_log_k(value: Any, rule: str) -> None:
    assert tiny.spec({"attack.offset": "log-k"}).attack.offset == "log-k"  # type: ignore[attr-defined]
    with pytest.raises(ValidationError) as caught:
        tiny.spec({"attack.offset": value})
    (refusal,) = faults(caught.value, "base")
    text = f"attack.offset={value} is refused: Input should be {rule}; or Input should be 'log-k'."
    assert str(refusal) == text


ALONE = {"target.pretrain": None, "target.budget": "full"}
LIKE_TARGET = {**tiny.BASE["judge"], "seed": tiny.BASE["target"]["seed"]}
NOT_ITSELF = "is target.seed, and network and images are the target's too, which must not judge it; use"


@pytest.mark.parametrize("field", ["judge", "judges.classifiers.x"])
def test_a_judge_is_not_the_target(field: str) -> None:
    changes: dict[str, Any] = {field: LIKE_TARGET}
    if field != "judge":
        changes = {"judges": {"classifiers": {"x": LIKE_TARGET}}}
    assert refused({**ALONE, **changes}).endswith(
        f"{field}.seed={LIKE_TARGET['seed']} {NOT_ITSELF} another seed, model or images."
    )


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 9},
        {"model": {**tiny.DIGIT, "width": 0.02}},
        {"images": "auxiliary"},
        {"recipe": {"epochs": 2}},
    ],
    ids=str,
)
def test_a_judge_differs_from_the_target_by_its_first_weights_or_images(other: dict[str, Any]) -> None:
    """Another recipe alone leaves it the target's first weights."""
    changes = {**ALONE, "judge": {**LIKE_TARGET, **other}}
    if "recipe" in other:
        assert NOT_ITSELF in refused(changes)
    else:
        assert tiny.spec(changes).judge.seed in (9, LIKE_TARGET["seed"])
    assert tiny.spec({"judge": LIKE_TARGET}).target.pretrain is not None  # the target starts elsewhere


def test_a_judge_that_starts_where_the_target_does_is_the_target() -> None:
    public = {"target.pretrain": {"weights": "net"}}
    assert NOT_ITSELF in refused({**public, "judge": {**LIKE_TARGET, "weights": "net"}})
    for weights in (None, "other"):
        assert tiny.spec({**public, "judge": {**LIKE_TARGET, "weights": weights}}).judge.weights == weights
    assert tiny.spec({**ALONE, "judge": {**LIKE_TARGET, "weights": "net"}}).judge.weights == "net"


def test_judges_have_the_paths_of_their_fields() -> None:
    other = {**tiny.BASE["judge"], "seed": 9}
    every = tiny.spec({"judges": {"classifiers": {"other": other}}}).every_judge
    assert [(path, judge.seed) for path, judge in every.items()] == [
        ("judge", 42),
        ("judges.classifiers.other", 9),
    ]


def test_the_largest_release_and_pool_are_allowed() -> None:
    trial = tiny.spec({"release.truncation": 5, "target.classes": 5})
    assert (trial.release.truncation, trial.target.classes) == (5, 5)


def test_a_spec_cannot_change() -> None:
    with pytest.raises(ValidationError, match="Instance is frozen"):
        tiny.spec().release.truncation = 2  # type: ignore[misc]


def test_a_spec_survives_its_own_json() -> None:
    trial = tiny.spec({"target.budget": 0.5})
    again = config.TrialSpec.model_validate_json(trial.model_dump_json())
    assert again == trial
    assert canonical(again.model_dump(mode="json")) == canonical(trial.model_dump(mode="json"))


def test_a_budget_is_a_name_or_a_number() -> None:
    assert tiny.spec({"target.budget": "block1"}).target.budget == "block1"
    assert tiny.spec({"target.budget": 2}).target.budget == 2.0


def test_defaults_are_the_published_ones() -> None:
    recipe = config.Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay) == (
        100,
        128,
        2e-4,
        0.0,
    )
    attack = config.InverterAttack(model=config.Model(name="ami-digit"))
    assert (attack.align, attack.offset_learnable, attack.zero_policy) == (True, False, "zero-after-log")
    assert attack.offset == 10.0  # ours: released code has 50, which learns less from full scores
    assert config.JointAttack(name="joint", model=attack.model).offset == 50.0
    assert config.Release() == config.Release(truncation=None, decimals=None, labels_only=False)
    judge = config.Judge(model=config.Model(name="ami-digit"))
    assert judge.seed not in range(1000)  # no target of a usual sweep shares its weights


@pytest.mark.parametrize("part", SPECS, ids=lambda part: part.__name__)
def test_every_part_says_what_it_is(part: type[BaseModel]) -> None:
    assert part.__doc__
    nested = {name for name, field in part.model_fields.items() if "Recipe" in str(field.annotation)}
    sections = ("data", "target", "release", "auxiliary", "attack", "judge", "judges", "evaluation")
    parts = ("model", "seed", *sections)
    told = {name for name, field in part.model_fields.items() if field.description}
    assert set(part.model_fields) - told - nested - set(parts) == set()


def test_where_things_run_is_no_part_of_a_spec() -> None:
    words = ("worker", "gpu", "uri", "device", "thread", "store", "precision")
    fields = [name for part in SPECS for name in part.model_fields]
    assert [name for name in fields if any(word in name for word in words)] == []
