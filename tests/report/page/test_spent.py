"""Costs of a sweep: shared stages count once, and what sharing saved."""

from dataclasses import replace

from orchestrator.report.page.content import spent_table, spent_words
from orchestrator.report.page.findings import CPU, WALL
from orchestrator.report.page.spent import Spent, artifacts_of, spent_by_stage
from orchestrator.store.artifacts import Artifact
from tests.report.page.trials import empty_store
from tests.report.trials import record


def test_shared_stages_count_once() -> None:
    store = empty_store()
    keys = {"target": ["a" * 64, "a" * 64], "inversion": ["b" * 64, "c" * 64], "judgement.x": ["d" * 64] * 2}
    for key, seconds in {"a": 5.0, "b": 1.0, "c": 2.0}.items():
        cost = {"cpu_seconds": seconds, "wall_seconds": 2 * seconds}
        store.publish(Artifact(key * 64, "s", 1, {}, metrics={}, cost=cost, created_ms=1), {})
    trials = [
        replace(record(i, {}), stage_keys={stage: own[i] for stage, own in keys.items()}) for i in range(2)
    ]
    found = spent_by_stage(trials, artifacts_of(trials, store))  # the judgement is not stored
    assert found == [
        Spent("target", 1, 2, 5.0, 10.0, 10.0, 20.0),
        Spent("inversion", 2, 2, 3.0, 6.0, 3.0, 6.0),
    ]
    assert "8 CPU seconds for 3 stages" in spent_words(found, CPU)
    assert "13: sharing saved 38 %" in spent_words(found, CPU)
    assert "16 device seconds for 3 stages" in spent_words(found, WALL)
    assert "26: sharing saved 38 %" in spent_words(found, WALL)
    assert [one.text for one in spent_table(found, WALL).rows[0]] == ["target", "1", "2", "10", "20", "10"]
    assert spent_words([], CPU) == "No stage of these trials is stored with its cost."
