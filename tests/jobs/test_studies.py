"""Every AMI study runs at its smoke scale, on bundled data, and leaves the report that it promises."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs import report, sweep
from orchestrator.study import Study
from orchestrator.study_file import read_study

STUDIES = sorted(path.stem for path in sweep.STUDIES.glob("ami-*.yaml"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all studies: they share the store, and with it judges and targets."""
    return tmp_path_factory.mktemp("studies")


def smoke(name: str) -> Study:
    """Return a study at its smoke scale."""
    return read_study(sweep.STUDIES / f"{name}.yaml", scale="smoke")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_and_reports(name: str, out: Path) -> None:
    arguments = [name, "--scale", "smoke", "--local", "--ship-later", "--out", str(out)]
    done = CliRunner().invoke(sweep.app, arguments)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / name / "results.csv")
    assert set(table["status"]) == {"finished"}
    study = smoke(name)
    assert set(study.report.metrics) <= set(table.columns)
    with Image.open(out / name / "figure.png") as figure:
        assert min(figure.size) > 60
    if study.report.orderings:
        verdicts = pd.read_csv(out / name / "orderings.csv")
        assert set(verdicts["verdict"]) <= {"holds", "reversed", "not shown", "equal"}


def test_a_report_is_rebuilt_byte_for_byte_without_training(out: Path) -> None:
    name = "ami-truncation"
    test_a_study_runs_and_reports(name, out)
    before = {path.name: path.read_bytes() for path in (out / name).iterdir()}
    for path in (out / name).iterdir():
        path.unlink()
    done = CliRunner().invoke(report.app, [name, "--scale", "smoke", "--ship-later", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {path.name: path.read_bytes() for path in (out / name).iterdir()} == before
