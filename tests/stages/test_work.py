"""Work: every stage has a formula, and counts images as the stage that runs does."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import TrialSpec
from orchestrator.config.base import Model
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location, describe
from orchestrator.models import operations
from orchestrator.stages import runner
from orchestrator.stages.graph import STAGES, plan
from orchestrator.stages.work import STEP, nothing
from orchestrator.stages.workload import ROLES, Reader, Work
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.rates import stage_work
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World
from tests import tiny

NAMES = ("digits", "photo-patches")
COUNTS = ImageCounts(Location(), {name: describe(name, Location()) for name in NAMES})
SEARCH = {"name": "gmi", "steps": 2}
PRIOR = {"epochs": 1, "model": {"name": "gmi", "width": 0.05}}
CLASSES = {"evaluation.task": "class-inference", "evaluation.images": 2048, "evaluation.grid": 16}
CHANGES: list[dict[str, Any]] = [
    {},
    {"auxiliary.kind": "distinct", "target.budget": "full", "target.recipe.epochs": 2},
    {"target.selection": "test"},
    {"attack": {"name": "joint", "model": tiny.DIGIT}, "target.budget": "full"},
    {"attack": SEARCH, "prior": PRIOR, **CLASSES},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_images_are_those_that_stages_count(changes: dict[str, Any], tmp_path: Path) -> None:
    use_profile(1)
    store, reader = Artifacts(DirectoryBlobs(tmp_path)), Reader()
    for stage in tiny.stages(tiny.spec(changes)).values():
        runner.run(stage, World(), store, Location())
        artifact = store.find(stage.key)
        assert artifact is not None
        work = stage_work(stage.name, stage.specs, stage.weights, {}, reader)
        assert work.images(COUNTS) == artifact.cost["images_seen"], stage.name
        assert work.each > 0
        assert work.family


def foreign(field: str) -> Any:
    """Return the tiny trial against a program or a service."""
    raw = tiny.base({"data": {"dataset": "digits"}})
    raw["target"] = {"classes": 10, field: "theirs"}
    return TrialSpec.model_validate(raw)


@pytest.mark.parametrize(("field", "unknown"), [("program", "size"), ("service", "time")])
def test_the_work_of_a_foreign_target_is_said_to_be_unknown(field: str, unknown: str) -> None:
    spec = normalise(foreign(field))
    digests = {"digits": "0" * 64, "weights/theirs": "1" * 64}
    stages = plan(spec, digests, tiny.PROFILE)
    works = {stage.name: stage_work(stage.name, stage.specs, {}, {}, Reader()) for stage in stages.values()}
    assert {works[name].unknown for name in ("given", "victims", "evaluation")} == {unknown}
    assert f"{field} theirs" in works["victims"].family
    assert not works["judge"].unknown


def test_images_beside_those_that_a_stage_counts_are_work() -> None:
    def work(name: str, changes: dict[str, Any]) -> Work:
        stage = tiny.stages(tiny.spec(changes))[name]
        return stage_work(name, stage.specs, stage.weights, {}, Reader())

    one = {"evaluation.images": 1}
    tested = COUNTS.private(tiny.spec().data, 3, "evaluation")
    ranks = work("retrieval", one)
    assert ranks.once(COUNTS) > (tested + 256) * ranks.each
    few, many = (work("yardsticks", {**one, "auxiliary.size": size}).once(COUNTS) for size in (16, 64))
    assert many == 4 * few > 0
    service = plan(
        normalise(foreign("program")), {"digits": "0" * 64, "weights/theirs": "1" * 64}, tiny.PROFILE
    )
    given = service["given"]
    asked = stage_work("given", given.specs, {}, {}, Reader()).once(COUNTS)
    assert asked == COUNTS.private(foreign("program").data, 10, "evaluation")


def test_a_step_has_a_part_that_no_batch_makes_shorter() -> None:
    """Milliseconds of a step of one inverter and one classifier at two widths, measured on one machine."""
    for (few, quick), (many, slow) in (((14.7e6, 7.4), (864e6, 50.1)), ((128.4e6, 11.8), (1939e6, 99.4))):
        assert (few + STEP) / (many + STEP) == pytest.approx(quick / slow, rel=0.1)

    def each(batch: int) -> float:
        stage = tiny.stages(tiny.spec({"attack.recipe": {"epochs": 1, "batch_size": batch}}))["inversion"]
        return stage_work("inversion", stage.specs, stage.weights, {}, Reader()).each

    assert each(8) - each(16) == pytest.approx(STEP / 16)


def test_every_stage_has_a_formula_and_every_role_a_type() -> None:
    assert all(kind.work is not nothing for kind in STAGES.values())
    assert {role for kind in STAGES.values() for role in kind.reads} <= set(ROLES)


def test_a_discriminator_and_a_teacher_that_is_asked_again_are_work() -> None:
    def each(name: str, changes: dict[str, Any]) -> tuple[float, str]:
        stage = tiny.stages(tiny.spec(changes))[name]
        work = stage_work(name, stage.specs, stage.weights, {}, Reader())
        return work.each, work.family

    loss = {"adversarial": 0.1}
    plain, minimax, other = (
        each("inversion", {"attack.losses": losses})[0]
        for losses in ({}, loss, {**loss, "adversarial_form": "non-saturating"})
    )
    rival = operations.discriminator(0.01, channels=1, image_size=32)
    assert minimax - plain == pytest.approx(2 * rival.trained)
    assert other - minimax == pytest.approx(rival.searched)
    kedmi = {"attack": {"name": "kedmi", "steps": 2}, **CLASSES}
    made = [
        each("prior", {**kedmi, "prior": {**PRIOR, "loss": "kedmi", "teacher_mode": mode}})
        for mode in ("eval", "train")
    ]
    f = operations.classifier(Model(**tiny.DIGIT), classes=3, channels=1, image_size=32)
    assert made[1][0] - made[0][0] == pytest.approx(f.forward)
    assert made[0][1] != made[1][1]


def test_a_prior_that_learns_from_f_asks_it_once_for_every_public_image() -> None:
    def work(name: str, attack: str, loss: str, **settings: Any) -> Work:
        prior = {"epochs": 1, "loss": loss, **settings}
        stage = tiny.stages(tiny.spec({"attack": {"name": attack, "steps": 2}, "prior": prior, **CLASSES}))[
            name
        ]
        return stage_work(name, stage.specs, stage.weights, {}, Reader())

    f = operations.classifier(Model(**tiny.DIGIT), classes=3, channels=1, image_size=32)
    public = COUNTS.public(tiny.spec().data)
    assert public > 0
    narrow = {"name": "gmi", "width": 0.05}
    conditional = {"name": "plg", "width": 0.05}
    for attack, loss, model in (("kedmi", "kedmi", narrow), ("plg-mi", "plg", conditional)):
        assert work("prior", attack, loss, model=model).once(COUNTS) == pytest.approx(f.forward * public)
    assert work("prior", "gmi", "hinge", model=narrow).once(COUNTS) == 0
    made = operations.generator(Model(**narrow), channels=1, image_size=32)
    with_prior, without = (
        work("retrieval", attack, loss, model=narrow).once(COUNTS)
        for attack, loss in (("gmi", "hinge"), ("mia", "hinge"))
    )
    assert with_prior - without == pytest.approx(256 * made.forward)


def test_a_critic_of_answers_sees_three_parts_of_a_batch() -> None:
    changes = {"attack": {"name": "kedmi", "steps": 2}, **CLASSES}
    stage = tiny.stages(tiny.spec({**changes, "prior": {**PRIOR, "loss": "kedmi"}}))["prior"]
    each = stage_work("prior", stage.specs, stage.weights, {}, Reader()).each
    made = operations.generator(Model(name="gmi", width=0.05), channels=1, image_size=32)
    critic = operations.critic("kedmi", 0.05, classes=3, channels=1, image_size=32)
    in_turn = (made.trained + critic.trained + critic.forward) / 5
    assert each == pytest.approx(made.forward + 3 * critic.trained + in_turn)


def test_a_search_asks_once_for_each_candidate_and_holds_more_on_an_accelerator() -> None:
    def work(attack: dict[str, Any], changes: dict[str, Any]) -> Work:
        spec = normalise(tiny.spec({"attack": attack, "prior": PRIOR, **CLASSES, **changes}))
        stage = tiny.stages(spec)["optimization"]
        return stage_work("optimization", stage.specs, stage.weights, {}, Reader())

    mirror = {"name": "mirror", "steps": 50, "starts": 2, "pool": 2}
    one, four = (work(mirror, {"evaluation.candidates": count}) for count in (1, 4))
    assert four.once(COUNTS) == 4 * one.once(COUNTS) > 0
    assert one.on_accelerator == 4 * one.activations
    assert not one.spread
    assert work({"name": "brepmi"}, {}).spread > 0.5


@pytest.mark.parametrize(("path", "factor"), [("target.recipe.epochs", 10.0), ("attack.recipe.epochs", 10.0)])
def test_ten_times_the_epochs_are_ten_times_the_work(path: str, factor: float) -> None:
    name = "target" if path.startswith("target") else "inversion"
    totals = []
    for epochs in (1, 10):
        stage = tiny.stages(tiny.spec({path: epochs}))[name]
        work = stage_work(name, stage.specs, stage.weights, {}, Reader())
        totals.append(work.total(work.images(COUNTS), COUNTS))
    assert totals[1] == pytest.approx(factor * totals[0])


@pytest.mark.parametrize(
    ("attack", "factor"),
    [
        ({"name": "gmi", "steps": 200}, 2.0),
        ({"name": "gmi", "steps": 100, "restarts": 3}, 3.0),
        ({"name": "vmi", "steps": 100, "samples": 1}, 1.0),
        ({"name": "mirror", "steps": 50, "starts": 2, "pool": 2}, 1.0),
        ({"name": "ppa", "steps": 100, "starts": 1, "pool": 1}, 1.0),
    ],
)
def test_a_search_works_for_every_step_and_start(attack: dict[str, Any], factor: float) -> None:
    def each(settings: dict[str, Any]) -> float:
        spec = normalise(tiny.spec({"attack": settings, "prior": PRIOR, **CLASSES}))
        stage = tiny.stages(spec)["optimization"]
        return stage_work("optimization", stage.specs, stage.weights, {}, Reader()).each

    one = each({"name": "gmi", "steps": 100, "prior_weight": 0.0})
    settings = attack | ({"prior_weight": 0.0} if attack["name"] == "gmi" else {})
    assert each(settings) == pytest.approx(factor * one, rel=0.05)
