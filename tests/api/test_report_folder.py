"""Report folders: one for each sweep; nothing of another sweep stays, nothing of the user's goes."""

from pathlib import Path

import pytest

from orchestrator.api.report_folder import folder_name, write_report
from orchestrator.config.load import read_study
from tests import tiny

SCALES = {"smoke": {"base.evaluation.images": 8}, "../up": {}}


@pytest.mark.parametrize(
    ("scale", "overrides", "name"),
    [
        (None, [], "tiny"),
        ("smoke", [], "tiny.smoke"),
        (None, ["attack.offset=3"], "tiny.KEY"),
        ("smoke", ["attack.offset=3"], "tiny.smoke.KEY"),
        (None, ["sweep.seed=[0]"], "tiny"),  # as in the file
        (None, ["report.columns=3", "resources.threads=2", "about=x"], "tiny"),  # the same sweep
        (None, ["study=other"], "other.KEY"),
        ("../up", [], "tiny.KEY"),
    ],
)
def test_a_scale_or_an_override_never_has_the_folder_of_the_full_run(
    tmp_path: Path, scale: str | None, overrides: list[str], name: str
) -> None:
    file = tiny.write(tmp_path / "tiny.yaml", {"seed": [0]}, scales=SCALES)
    study = read_study(file, scale=scale, overrides=overrides)
    found = folder_name(study, file, scale, is_overridden=bool(overrides))
    assert found == name.replace("KEY", study.key[:8])


def test_a_study_that_needs_its_overrides_has_a_folder_of_its_own(tmp_path: Path) -> None:
    file = tiny.write(tmp_path / "tiny.yaml", {"seed": []})
    study = read_study(file, overrides=["sweep.seed=[0]"])
    assert folder_name(study, file, None, is_overridden=True) == f"tiny.{study.key[:8]}"


def test_nothing_of_an_earlier_report_stays_and_nothing_else_goes(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    first = ["results.csv", "heatmap-m-k.png", "curve-a.csv", "curve-a.png", "summary.tex", "figure.png"]
    write_report(folder, dict.fromkeys(first, b"1"))
    (folder / "notes.txt").write_bytes(b"mine")
    (folder / "seed-7.png").write_bytes(b"mine")
    write_report(folder, {"results.csv": b"2", "histogram-b.csv": b"2"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "results.csv": b"2",
        "histogram-b.csv": b"2",
        "notes.txt": b"mine",
        "seed-7.png": b"mine",
    }
