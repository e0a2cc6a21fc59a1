"""Calls apart: plans with staged weights are checked as in this process, by one that never imports torch."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, weights
from orchestrator.models.dcgan import Dcgan
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.apart import Apart
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.stages.test_brought_prior import BROUGHT
from tests.stages.test_given import GIVEN, GIVEN_JUDGE, Theirs
from tests.sweep.test_validation import point
from tests.test_floors import ROOT

FURTHER = {**GIVEN_JUDGE, "weights": "theirs"}
START = {"model": tiny.DIGIT, "weights": "odd"}
PRETRAIN = {"target": {"classes": 3, "model": tiny.DIGIT, "pretrain": {"weights": "odd", "dataset": None}}}
CASES: dict[str, dict[str, Any]] = {
    "whole": GIVEN,
    "no target": {"target": {**GIVEN["target"], "weights": "odd"}},
    "other classes": {"target": {**GIVEN["target"], "weights": "judging"}},
    "no judge": {"judge": {**GIVEN_JUDGE, "weights": "odd"}},
    "judge of few": {"judge": GIVEN_JUDGE, "judges": {"classifiers": {"x": FURTHER}}},
    "no start": {"judges": {"classifiers": {"x": START}}},
    "no body": PRETRAIN,
    "no generator": {**BROUGHT, "prior.weights": "two"},
    "no descriptor": {"judges": {"recogniser": {"weights": "odd", "pairs": 6}}},
}

PLANS = """
import pickle, sys
from pathlib import Path
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.validation import Preflight

preflight = Preflight(Location(DirectoryBlobs(Path(sys.argv[1]))))
for point in pickle.loads(Path(sys.argv[2]).read_bytes()):
    try:
        preflight.resolve(point)
        print("whole")
    except StudyError as error:
        print(error)
networks = preflight._networks
process = networks._apart._process
assert process is not None
networks._apart.close()
assert process.returncode == 0, process.returncode
assert "torch" not in sys.modules
"""

LONE = """
import sys
from orchestrator.sweep.apart import Apart

apart = Apart()
for _ in range(2):
    assert apart.call("orchestrator.models.fit.Shapes", a=(1,)) == {"a": (1,)}
    process = apart._process
    process.kill()
    process.wait()
    try:
        apart.call("orchestrator.models.fit.Shapes", a=(1,))
    except RuntimeError as error:
        print(error)
assert apart._process is None
assert "torch" not in sys.modules
apart.call("orchestrator.models.fit.Shapes", a=(1,))  # and is left to end with this process
"""


def run(program: str, *words: str) -> list[str]:
    """Run a program without this process's torch until all that write its output end; return its lines."""
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with weights of every kind, and some of none."""
    folder = tmp_path_factory.mktemp("data")
    states = {
        "theirs": Theirs(3).state_dict(),
        "judging": Theirs(10).state_dict(),
        "odd": {"fc": torch.zeros(1)},
        "two": Dcgan(channels=2, counts=(4,), latent_size=3).state_dict(),
    }
    for name, state in states.items():
        weights.stage(state, "test", DirectoryBlobs(folder), name)
    return folder


def test_plans_are_checked_as_in_this_process_and_import_no_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "points").write_bytes(pickle.dumps([point(changes) for changes in CASES.values()]))
    preflight, texts = Preflight(Location(DirectoryBlobs(folder))), []
    for changes in CASES.values():
        try:
            preflight.resolve(point(changes))
            texts.append("whole")
        except StudyError as error:
            texts.append(str(error))
    lines = run(PLANS, str(folder), str(tmp_path / "points"))
    assert dict(zip(CASES, lines, strict=True)) == dict(zip(CASES, texts, strict=True))
    assert texts.count("whole") == 1
    assert len(set(texts)) == len(CASES)


def test_a_process_that_ends_is_an_error_and_another_takes_its_place() -> None:
    assert run(LONE) == ["the process of plan checks ended with exit code -9"] * 2


def test_a_process_with_torch_starts_no_other() -> None:
    apart = Apart()
    assert apart.call("orchestrator.models.fit.Shapes", a=(1,)) == {"a": (1,)}
    assert apart._process is None
