"""The front of several objectives, and the line that reports it in place of a best trial."""

import math

from orchestrator.report.page.findings import findings
from orchestrator.report.pareto import front_line, pareto_front
from orchestrator.report.per_image import PerImage
from orchestrator.report.sections import Sections
from orchestrator.report.skill import best_lines
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny
from tests.report.trials import record

LEAK, ACCURACY = "attack/accuracy_top1_test", "target/accuracy"
OBJECTIVES = {LEAK: "minimize", ACCURACY: "maximize"}
TRIALS = [(0.9, 1.0), (0.5, 0.8), (0.6, 0.7), (0.2, 0.4)]
RECORDS = [
    record(index, {"m": index}, {LEAK: leak, ACCURACY: accuracy})
    for index, (leak, accuracy) in enumerate(TRIALS)
]


def test_the_front_has_its_ends_and_nothing_is_best() -> None:
    line = front_line(RECORDS, OBJECTIVES)
    assert "3 of 4 finished trials are on the front" in line
    assert f"lowest `{LEAK}` 0.2 at `{ACCURACY}` 0.4 in `{RECORDS[3].name}`" in line
    assert f"highest `{ACCURACY}` 1 at `{LEAK}` 0.9 in `{RECORDS[0].name}`" in line
    assert front_line([], OBJECTIVES) == ""


def test_an_objective_that_is_undefined_is_on_no_front() -> None:
    undefined = record(9, {"m": 9}, {LEAK: math.nan, ACCURACY: 1.0})
    assert pareto_front([*RECORDS, undefined], OBJECTIVES) == [RECORDS[0], RECORDS[1], RECORDS[3]]
    assert front_line([*RECORDS, undefined], OBJECTIVES) == front_line(RECORDS, OBJECTIVES)


def test_a_study_of_two_objectives_has_no_best_of_one(tmp_path: object) -> None:
    study = tiny.study({"seed": [0]}, search={"objectives": OBJECTIVES})
    assert best_lines(study, RECORDS) == []
    store = Artifacts(DirectoryBlobs(str(tmp_path)))
    found = findings(study, RECORDS, store, PerImage(store), Sections())
    assert found.answer[0] == front_line(RECORDS, OBJECTIVES)
    assert not any("Best" in line for line in found.answer)
