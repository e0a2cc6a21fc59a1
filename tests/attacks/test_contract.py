"""Spans modules: all attacks, one row each: run, are deterministic, keep their access, beat doing nothing."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks import search
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import search_to_the_end
from orchestrator.config.attacks import ATTACK_SPECS
from orchestrator.threat import BlackBox, WhiteBox
from tests import tiny
from tests.attacks.priors import boxed, small_prior

LONGER = {"epochs": 20, "batch_size": 64, "learning_rate": 0.01}
INVERTER = {"name": "inverter", "model": tiny.DIGIT, "recipe": LONGER}
JOINT = {"name": "joint", "model": tiny.DIGIT}
INFERENCE = {"evaluation.task": "class-inference"}
WITH_PRIOR = {
    **INFERENCE,
    "target.recipe": LONGER,
    "prior": {
        "model": {"name": "gmi", "width": 0.05},
        "epochs": 8,
        "learning_rate": 0.005,
        "critic_learning_rate": 0.002,
        "average": 0.9,
        "augmentation": "none",
        "seed": 6,
    },
}
CALM = {"steps": 30, "beside": 8, "learning_rate": 0.1, "log_variance": -6.0}
"""KEDMI's and LOMMA-K's: the cost is of one draw of z, which a variance of 1 moves further than 30 steps."""
STUDENTS = {"one": {"model": tiny.DIGIT, "recipe": tiny.RECIPE, "seed": 5}}
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """How an attack is tried on the tiny trial."""

    attack: dict[str, Any]
    """Its settings."""

    idle: dict[str, Any]
    """Settings with which it does nothing."""

    loss: str
    """The metric that it lowers."""

    queries: Callable[[Metrics], float | None]
    """Metrics -> how many images it has sent through the target model."""

    changes: dict[str, Any] = field(default_factory=dict)
    """What else the trial needs."""


def steps_and_last(metrics: Metrics) -> float:
    """Return a search's forward passes: one a step, and one of the last image, for 3 classes."""
    return 3 * (metrics["optimization/steps"] + 1)


def batches_and_moves(metrics: Metrics) -> float:
    """Return a search's queries by labels: whole batches of 16 for starts, 33 for a move of 3 classes."""
    moves = 33 * 3 * metrics["optimization/steps"]
    return 16 * round((metrics["attack/queries"] - moves) / 16) + moves


ROWS = {
    "inverter": Row(
        INVERTER,
        {"recipe": {**LONGER, "learning_rate": 1e-12}},
        "inversion/mse_test",
        queries=lambda metrics: 64.0,  # auxiliary.size
    ),
    "joint": Row(
        JOINT,
        {"weight": 1e-12},
        "inversion/mse_test",
        queries=lambda metrics: None,
        changes={"target.recipe": {**tiny.RECIPE, "epochs": 5}},
    ),
    "mia": Row(
        {"name": "mia", "steps": 100, "learning_rate": 10.0},
        {"steps": 1},
        "optimization/cost",
        steps_and_last,
        INFERENCE,
    ),
    "gmi": Row(
        {"name": "gmi", "steps": 30, "identities": 1},
        {"steps": 0},
        "optimization/cost",
        steps_and_last,
        WITH_PRIOR,
    ),
    "kedmi": Row(
        {"name": "kedmi", **CALM},
        {"steps": 0},
        "optimization/cost",
        steps_and_last,
        {**WITH_PRIOR, "prior.loss": "kedmi"},
    ),
    "ppa": Row(
        {"name": "ppa", "pool": 64, "starts": 1, "steps": 20, "learning_rate": 0.1},
        {"steps": 0, "pool": 1},
        "optimization/cost",
        lambda metrics: 2 * 64 + steps_and_last(metrics),
        WITH_PRIOR,
    ),
    "mirror": Row(
        {"name": "mirror", "pool": 64, "starts": 1, "steps": 20},
        {"steps": 0, "pool": 1},
        "optimization/cost",
        lambda metrics: 64 + steps_and_last(metrics),
        WITH_PRIOR,
    ),
    "plg-mi": Row(
        {"name": "plg-mi", "steps": 20},
        {"steps": 0},
        "optimization/cost",
        lambda metrics: 3 * (2 * metrics["optimization/steps"] + 1),
        {
            **WITH_PRIOR,
            "prior": {"loss": "plg", "model": {"name": "plg", "width": 0.02}, "epochs": 5, "critic_steps": 1},
        },
    ),
    "vmi": Row(
        {"name": "vmi", "family": "gaussian", "steps": 30, "samples": 8, "learning_rate": 0.1},
        {"steps": 0},
        "optimization/cost",
        lambda metrics: 3 * (8 * metrics["optimization/steps"] + 1),
        WITH_PRIOR,
    ),
    "mirror-black-box": Row(
        {"name": "mirror-black-box", "pool": 64, "population": 20, "generations": 10},
        {"generations": 0, "pool": 1, "population": 1},
        "optimization/cost",
        lambda metrics: 64 + 20 * 3 * metrics["optimization/steps"],
        WITH_PRIOR,
    ),
    "brepmi": Row(
        {"name": "brepmi", "batch": 16, "budget": 1000, "patience": 5},
        {"budget": 1, "batch": 1},
        "optimization/cost",
        batches_and_moves,
        WITH_PRIOR,
    ),
    "lomma-g": Row(
        {"name": "lomma-g", "steps": 30, "identities": 1, "identity": {"students": STUDENTS}},
        {"steps": 0},
        "optimization/cost",
        steps_and_last,
        WITH_PRIOR,
    ),
    "lomma-k": Row(
        {"name": "lomma-k", **CALM, "identity": {"students": STUDENTS}},
        {"steps": 0},
        "optimization/cost",
        steps_and_last,
        {**WITH_PRIOR, "prior.loss": "kedmi"},
    ),
    "optimization": Row(
        {"name": "optimization", "steps": 30}, {"steps": 1}, "optimization/cost", steps_and_last, INFERENCE
    ),
}


def trial(name: str, settings: dict[str, Any] | None = None) -> config.TrialSpec:
    """Return the tiny trial of a row, with settings of its attack changed."""
    row = ROWS[name]
    return tiny.spec({**row.changes, "attack": {**row.attack, **(settings or {})}})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the target and evaluation models and the prior."""
    folder = tmp_path_factory.mktemp("prepared")
    tiny.run(tiny.spec(), folder)
    for name in ("gmi", "kedmi"):
        tiny.run(trial(name, {"steps": 0}), folder)  # the others share their priors
    return folder


@pytest.fixture(scope="module", params=ROWS)
def ran(request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return an attack's name, its metrics and the store that it ran in."""
    store = tmp_path_factory.mktemp("store") / "store"
    shutil.copytree(prepared, store)
    return request.param, tiny.run(trial(request.param), store), store


def test_every_attack_has_a_row() -> None:
    assert ROWS.keys() == ATTACK_SPECS.keys()


def test_it_gives_the_same_again(ran: Any, prepared: Path, tmp_path: Path) -> None:
    name, metrics, _ = ran
    shutil.copytree(prepared, tmp_path / "again")
    assert tiny.run(trial(name), tmp_path / "again") == metrics


def test_it_counts_its_queries(ran: Any) -> None:
    name, metrics, _ = ran
    assert metrics.get("attack/queries") == ROWS[name].queries(metrics)
    assert ("attack/queries" in metrics) == (ATTACK_SPECS[name].access != "training")


def test_it_beats_doing_nothing(ran: Any) -> None:
    name, metrics, store = ran
    idle = tiny.run(trial(name, ROWS[name].idle), store)
    before, after = idle[ROWS[name].loss], metrics[ROWS[name].loss]
    assert after < before - 0.05 * abs(before)  # minus a logit is below 0


@pytest.mark.parametrize("name", [name for name in ROWS if ATTACK_SPECS[name].leaves == "images"])
def test_a_search_leaves_the_target_as_it_is(name: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    box, attack = boxed(network, ATTACK_SPECS[name].access), trial(name).attack
    tried = search(attack, box, m=1, shape=(1, 8, 8), prior=small_prior() if attack.needs_prior else None)
    found = search_to_the_end(tried, torch.eye(3))
    assert box.num_queries == int(found.queries.sum()) + attack.shared_queries
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert found.images.shape == (3, 1, 8, 8)
    assert 0 <= found.images.min() <= found.images.max() <= 1


def test_a_black_box_has_no_parameters() -> None:
    box = BlackBox(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), config.Release())
    assert not isinstance(box, nn.Module)
    public = [value for key, value in vars(box).items() if not key.startswith("_")]
    assert not any(isinstance(value, nn.Module | Tensor) for value in public)
    assert not box.query(torch.rand(2, 1, 8, 8)).requires_grad
    assert box.num_queries == 2


# What a new attack touches: its settings in the list of attacks, and a module of its name


class ToyAttack(config.AttackSpec):
    """Paints every class in one grey level."""

    access = "gradients"
    tasks = frozenset({"class-inference"})
    leaves = "images"

    name: Literal["toy"]
    level: float = 0.25
    seed: int = 0


def paint(
    attack: ToyAttack, target: WhiteBox, scores: Tensor, m: int, shape: tuple[int, int, int]
) -> SearchResult:
    images = torch.full((len(scores), *shape), attack.level)
    with torch.no_grad():
        costs = 1 - target.logits(images).softmax(dim=1)[scores.bool()]
    steps = torch.zeros(len(scores), dtype=torch.int64)
    return SearchResult(images, steps, costs, steps + 1)


def test_an_attack_in_the_list_is_planned_and_run(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("orchestrator.attacks.toy")
    module.invert = paint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(ATTACK_SPECS, "toy", ToyAttack)
    shutil.copytree(prepared, tmp_path / "store")
    spec = tiny.spec({**INFERENCE, "attack": {"name": "toy"}})
    assert [*tiny.stages(spec)] == [
        "pretrain",
        "target",
        "judge",
        "optimization",
        "yardsticks",
        "retrieval",
        "evaluation",
    ]
    metrics = tiny.run(spec, tmp_path / "store")
    assert metrics["optimization/steps"] == 0
    assert 0 < metrics["optimization/cost"] < 1
