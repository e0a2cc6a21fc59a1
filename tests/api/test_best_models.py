"""Models for a registry: of the setting that the report names, each stage once, as the store has them."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.api.best_models import best_models
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.page.trials import empty_store
from tests.report.trials import MSE, record

SKILL = "inversion/skill_test"
STUDY = tiny.study({"release.truncation": [1, 3], "seed": [0, 1]}, search={"objectives": {MSE: "minimize"}})
SHARED, ONE, OTHER = "a" * 64, "b" * 64, "c" * 64  # a target, and an inverter of each seed


def trials(skill: float) -> Iterator[TrialRecord]:
    """Yield two seeds of two settings, of which m=3 leaks more; all attack one target."""
    for index, (m, seed) in enumerate([(1, 0), (1, 1), (3, 0), (3, 1)]):
        own = skill + 0.2 * (m == 3) + 0.001 * seed
        metrics = {SKILL: own, MSE: 1 - own, "yardstick/label_mse_test": 1.0}
        keys = {"target": SHARED, "judge": "d" * 64, "inversion": (ONE, OTHER)[seed] if m == 3 else "e" * 64}
        yield replace(record(index, {"m": m, "seed": seed}, metrics), stage_keys=keys)


@pytest.fixture
def store() -> Artifacts:
    """Return a store with every stage of the better setting."""
    kept = empty_store()
    files = {SHARED: "model.safetensors", ONE: "inverter.safetensors", OTHER: "inverter.safetensors"}
    for key, name in files.items():
        kept.publish(Artifact(key, "any", 1, {}), {name: key.encode(), "curves.json": b"{}"})
    kept.publish(Artifact("d" * 64, "judge", 1, {}), {"model.safetensors": b"judge"})
    return kept


def test_each_network_of_the_best_setting_is_there_once(store: Artifacts) -> None:
    found = best_models(STUDY, list(trials(0.4))[::-1], store)
    assert [(one.role, one.key) for one in found] == [
        ("target", SHARED),
        ("inverter", ONE),
        ("inverter", OTHER),
    ]
    assert {one.setting for one in found} == {"m=3"}
    assert [one.trial for one in found] == [
        one.key for one in list(trials(0.4))[2:3] * 2 + list(trials(0.4))[3:]
    ]
    assert [one.files for one in found] == [["model.safetensors"], *[["inverter.safetensors"]] * 2]
    assert [one.read(one.files[0]) for one in found] == [one.key.encode() for one in found]


def test_what_the_store_lacks_is_left_out() -> None:
    assert best_models(STUDY, list(trials(0.4)), empty_store()) == []


def test_where_nothing_leaks_nothing_is_registered(
    store: Artifacts, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert best_models(STUDY, list(trials(-0.9)), store) == []
    assert "event=models_not_registered reason='no setting is shown to leak'" in caplog.messages
