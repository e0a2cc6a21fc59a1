"""Studies in Python: what a notebook loads, changes, plans and runs is what the commands do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import orchestrator as inv
from jobs.sweep import app
from orchestrator.api.study import Study
from orchestrator.config.base import Refused
from orchestrator.config.study import StudyError
from tests import tiny
from tests.test_floors import ROOT
from tests.training.test_kernels import torch_settings

AXES: dict[str, Any] = {"release.truncation": [1, 2, 5], "seed": [0, 1]}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the library."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Return the tiny study with two axes and a scale."""
    scales = {"smoke": {"sweep.seed": [0], "sweep.release.truncation": [1, 5]}}
    return Study.load(tiny.write(tmp_path / "tiny.yaml", AXES, scales=scales), scale="smoke")


def test_the_library_imports_nothing_before_it_is_used() -> None:
    code = (
        "import sys; before = set(sys.modules); import orchestrator as inv\n"
        "dir(inv); loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert loaded - set(sys.stdlib_module_names) == {'orchestrator'}, loaded\n"
        "inv.Study.load('demo').plan()\n"
        "assert not {'torch', 'ray', 'mlflow', 'boto3', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_door_has_its_names_and_no_others() -> None:
    assert inv.Study is Study
    assert {"Study", "Results", "Refused", "StudyError", "__version__"} <= set(dir(inv))
    with pytest.raises(AttributeError, match="has no attribute 'Studies'"):
        _ = inv.Studies


def test_shipped_studies_and_files_load_with_scale_and_overrides(study: Study) -> None:
    assert inv.Study.load("demo").spec.study == "demo"
    assert study.spec.axes() == {"m": [1, 5], "seed": [0]}
    assert "study: tiny" in study.yaml
    changed = Study.load(study.file, overrides=["attack.offset=7"])
    assert changed.spec.base["attack"]["offset"] == 7
    assert Study.load(study.file, overrides="attack.offset=7") == changed
    with pytest.raises(StudyError, match="--scale big is not in"):
        Study.load("demo", scale="big")
    with pytest.raises(Refused, match="did you mean demo"):
        Study.load("demos")


def test_changed_settings_are_those_of_the_command(study: Study) -> None:
    changed = study.with_(
        {"target.budget": "full", "sweep.seed": np.arange(2), "attack.offset": np.float32(7)}
    )
    changed = changed.with_({"attack.offset": 1e-05, "target.pretrain": None})
    expected = Study.load(
        study.file,
        scale="smoke",
        overrides=[
            "target.budget=full",
            "sweep.seed=[0, 1]",
            "attack.offset=0.00001",
            "target.pretrain=null",
        ],
    )
    assert changed.spec == expected.spec
    assert study.spec.axes()["seed"] == [0]  # the first one is as it was
    about = 'a "face" \U0001f600, café\n\tat 3 % \\ 4'
    assert study.with_({"about": about}).spec.about == about
    with pytest.raises(StudyError, match=r"has the character '\\u2028', which cannot be printed"):
        study.with_({"about": "\u2028"})
    with pytest.raises(StudyError, match="is not a field"):
        study.with_({"target.bugdet": "full"}).plan()
    with pytest.raises(Refused, match=r"^about=<object .* is nothing that a study can hold"):
        study.with_({"about": object()})


def test_a_plan_is_tables_and_writes_nothing(study: Study, tmp_path: Path) -> None:
    plan = study.plan(out=tmp_path / "out")
    assert plan.trials[["trial", "m", "seed", "stored", "missing"]].values.tolist() == [
        ["m001-s0", 1, 0, 0, 10]
    ]
    target = plan.stages.set_index("stage").to_dict("index")["target"]
    assert (target["distinct"], target["stored"], target["missing"]) == (1, 0, 1)
    assert np.isnan(target["cpu_seconds"])
    assert plan.dropped["m"].tolist() == [5]
    assert "must lie in 1..target.classes=3" in plan.dropped["reason"][0]
    assert not (tmp_path / "out").exists()


def test_a_run_is_that_of_the_command(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    torch.set_num_threads(2)
    before = torch_settings()
    results = study.run(out=tmp_path / "out", ship_later=True, say=lines.append)
    assert torch_settings() == before
    precision = "precision: float32 (every network that trains is narrower than 0.25)"
    assert lines == ["1 trials, 10 stages to run", precision, "1/1 m001-s0 finished", *results.links]
    assert "Trials as JSON lines: " in lines[3]
    assert results.folder == tmp_path / "out" / "tiny.smoke"
    written = (results.folder / "results.csv").read_bytes()
    assert results.files["results.csv"] == written
    plan = study.plan(out=tmp_path / "out")
    assert plan.trials[["stored", "missing"]].values.tolist() == [[10, 0]]
    words = [study.file, "--scale", "smoke", "--local", "--ship-later", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "stages run/reused: 0/10" in done.stdout
    assert (results.folder / "results.csv").read_bytes() == written
    monkeypatch.setenv("INVERSION_STORE", str(tmp_path / "out" / "store"))
    again = study.run(out=tmp_path / "elsewhere", ship_later=True, say=lines.append)
    assert again.files == results.files
    assert lines[4:] == ["1 trials, 0 stages to run", *again.links]


def test_a_trial_that_fails_is_a_row(tmp_path: Path) -> None:
    axes, changes = {"attack.recipe.weight_decay": [10.0]}, {"attack.recipe": tiny.DIVERGING}
    lines: list[str] = []
    failing = Study.load(tiny.write(tmp_path / "tiny.yaml", axes, changes))
    results = failing.run(out=tmp_path / "out", ship_later=True, say=lines.append)
    assert results.table["status"].tolist() == ["failed"]
    assert "failed in inversion: the training loss is nan" in lines[2]
    with pytest.raises(Refused, match="is failed and has no images"):
        results.images(0)


def test_what_cannot_run_is_refused_before_anything_is_written(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"data.dataset=nothing is unknown"):
        study.with_({"data.dataset": "nothing"}).run(out=tmp_path / "out", ship_later=True)
    assert not (tmp_path / "out").exists()
