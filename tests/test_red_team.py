"""Spans modules: a ResNet-18 of others, in three formats, is staged, attacked, judged by commands."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from jobs import report, stage_data, stage_weights, sweep
from tests import red_team

STAGE = (
    "python -m jobs.stage_weights net.pt2 DATASETS/ --name my-net --program --image-size 96 --channels 3 "
    "--scaling imagenet --outputs logits --classes names.txt"
)
SWEEP = (
    "python -m jobs.sweep given-program --data DATASETS/ --set data.dataset=faces --set data.class_pool=4 "
    "--set target.classes=4 --set target.program=my-net"
)
"""The two commands of the README."""

SMALL = (
    "--local",
    "--ship-later",
    *("--set", "prior={model: {name: gmi, width: 0.02}, epochs: 1, batch_size: 16}"),
    *("--set", "judge={model: {name: ami-face, width: 0.05}, recipe: {epochs: 8, batch_size: 16}}"),
    *("--set", "evaluation.grid=4"),
)
INVERTER = "{label: inverter, model: {name: ami-face, width: 0.02}, recipe: {epochs: 1, batch_size: 32}}"
GMI = "{label: GMI, name: gmi, steps: 3}"
BREPMI = (
    "{attack: [{label: BREPMI, name: brepmi, batch: 8, budget: 40}], release.labels_only: [true], "
    "attack.seed: [0]}"
)
APPS = {"stage_data": stage_data, "stage_weights": stage_weights, "sweep": sweep, "report": report}


def call(command: str, more: Sequence[str] = ()) -> tuple[int, str]:
    """Run a command of the README in this process; return its exit code and what it printed."""
    _, _, module, *arguments = shlex.split(command)
    app = APPS[module.removeprefix("jobs.")].app
    done = CliRunner().invoke(app, [*arguments, *more])
    return done.exit_code, done.output


def small(attacks: Sequence[str]) -> list[str]:
    """Return options that make the study small, with BREPMI and these attacks."""
    grids = f"[{{attack: [{', '.join(attacks)}], attack.seed: [0]}}, {BREPMI}]"
    return [*SMALL, "--set", f"sweep={grids}"]


def table() -> pd.DataFrame:
    """Return the results of the last sweep by attack, numbers only."""
    file = max(Path("runs").glob("given-program*/results.csv"), key=lambda one: one.stat().st_mtime_ns)
    read = pd.read_csv(file).set_index("attack")
    assert set(read["status"]) == {"finished"}
    return read.select_dtypes("number")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures staged and a network saved in three formats."""
    pytest.importorskip("onnxruntime")
    made = tmp_path_factory.mktemp("red-team")
    red_team.make_pictures(made / "PHOTOS")
    red_team.save(red_team.train(made / "PHOTOS"), made)
    return made


def test_a_model_of_others_is_attacked_by_two_commands_in_each_format(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    staging = "python -m jobs.stage_data PHOTOS DATASETS --name faces --size 64 --channels 3"
    assert call(staging)[0] == 0
    tables = {}
    for ending in ("pt2", "pt", "onnx"):
        staged = STAGE.replace("net.pt2", f"net.{ending}").replace("my-net", f"my-{ending}")
        code, printed = call(staged)
        assert code == 0, printed
        attack = SWEEP.replace("my-net", f"my-{ending}")
        if ending == "onnx":
            code, printed = call(attack, [*SMALL, "--plan"])
            assert code == 2
            assert "error: target.program=my-onnx is ONNX, which gives no gradients, and attack.name=gmi" in (
                printed
            )
            attack += " --scale black-box"
        more = small([INVERTER] if ending == "onnx" else [INVERTER, GMI])
        code, printed = call(attack, [*more, "--plan"])
        assert code == 0, printed
        assert f"target.program=my-{ending}: F as it is" in printed
        code, printed = call(attack, more)
        assert code == 0, printed
        tables[ending] = table()
    first = tables["pt2"]
    assert list(first.index) == ["inverter", "GMI", "BREPMI"]
    assert first["target/accuracy"].min() > 0.7  # classes, scaling and sides are what they are there
    assert first["judge/accuracy"].min() > 0.5
    assert (first["attack/queries"] > 0).all()
    for ending, attacks in (("pt", ["inverter", "GMI", "BREPMI"]), ("onnx", ["inverter", "BREPMI"])):
        other = tables[ending]
        assert list(other.index) == attacks
        assert set(other.columns) == set(first.columns)
        pd.testing.assert_frame_equal(other[first.columns], first.loc[attacks], rtol=1e-3, atol=1e-4)
    reported = attack.replace("jobs.sweep", "jobs.report")
    code, printed = call(reported, [one for one in more if one != "--local"])
    assert code == 0, printed
    pd.testing.assert_frame_equal(table(), tables["onnx"])
