"""A user study by command: page and key from the store, answers back into a table, requests refused."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from jobs import report as job
from jobs.sweep import Sweep, start_console
from orchestrator.report.user_study.answers import HEADER
from orchestrator.store.artifacts import Artifact
from tests import tiny
from tests.jobs.test_report import options

AXES = {"release.truncation": [1, 2], "seed": [0, 1]}
BOTH = ("--compare", "{m: 1}", "--compare", "{m: 2}")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the command."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def npy(array: np.ndarray) -> bytes:
    """Return an array as a file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return the tiny study's file; its evaluations are stored with images of three classes."""
    path = tiny.write(tmp_path / "tiny.yaml", AXES)
    opened = Sweep(options(path, tmp_path / "runs"), start_console())
    table = np.array([(label, 0.0) for label in (0, 1, 2)], [("label", np.int32), ("mse", np.float32)])
    for point in opened.search.ask():
        images = np.full((3, 1, 32, 32), 10 + point.index, np.uint8)
        files = {
            "victims_test.npy": npy(np.arange(3, dtype=np.uint8)[:, None, None, None] + 0 * images),
            "reconstructions_test.npy": npy(images),
            "per_image_test.npy": npy(table),
        }
        for stage in opened.plan(point).values():
            artifact = Artifact(stage.key, stage.name, 1, {}, metrics={}, created_ms=1)
            opened.store.publish(artifact, files if stage.name == "evaluation" else {})
    return path


def report(study: Path, *flags: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(job.app, [str(study), "--out", str(study.parent / "runs"), *flags])


def exported(study: Path, *flags: str) -> tuple[Path, Path]:
    """Export a study; return page and key."""
    result = report(study, *BOTH, *flags)
    assert result.exit_code == 0, (result.output, result.exception)
    page, key = (Path(found) for found in re.findall(r"^(?:page|key): (\S+):", result.stdout, re.MULTILINE))
    return page, key


def test_page_and_key_are_written_and_answers_become_a_table(study: Path) -> None:
    page, key_file = exported(study)
    key = json.loads(key_file.read_text())
    assert {file.name for file in page.parent.iterdir()} == {page.name, key_file.name}
    assert (page.parent.name, len(key["pairs"])) == ("tiny", 6)
    assert page.read_text().count("<section") == 6
    assert key["sweep"] == Sweep(options(study, study.parent / "runs"), start_console()).study.key
    lines = [",".join(HEADER)]
    for rater in ("ann", "bob"):  # both find the second setting closer, but in the first pair
        for number, pair in enumerate(key["pairs"], start=1):
            other = {"left": "right", "right": "left"}[pair["first"]]
            lines.append(f"{key['page']},{rater},{number},{pair['first'] if number == 1 else other},1.5")
    answers = study.parent / "answers.csv"
    answers.write_text("\n".join(lines) + "\n")
    result = report(study, "--answers", str(answers))
    assert result.exit_code == 0, (result.output, result.exception)
    assert "{m=1} was found closer than {m=2} in 16.7 % of 12 answers" in result.stdout
    (row,) = pd.read_csv(page.parent / f"user-study-{key['page']}.csv").to_dict("records")
    assert (row["share"], row["persons"], row["raters"]) == (pytest.approx(1 / 6, abs=1e-5), 3, 2)
    assert row["low"] < row["share"] < row["high"]
    assert (page.parent / f"user-study-{key['page']}.tex").read_bytes().startswith(b"\\begin{tabular}")


def test_an_export_repeats_and_another_seed_leaves_it_alone(study: Path) -> None:
    page, key = exported(study)
    before = page.read_bytes(), key.read_bytes()
    assert exported(study) == (page, key)
    assert (page.read_bytes(), key.read_bytes()) == before
    other, _ = exported(study, "--order-seed", "1", "--pairs", "3")
    assert other != page
    assert (page.read_bytes(), other.read_text().count("<section")) == (before[0], 3)


def test_a_report_leaves_the_files_of_a_user_study(study: Path) -> None:
    page, key = exported(study)
    assert report(study, "--ship-later").exit_code == 0
    assert page.exists()
    assert key.exists()
    assert (page.parent / "results.csv").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (BOTH[:2], "--compare={m: 1} is given 1 times; give it for each of two settings."),
        ((*BOTH, *BOTH[:2]), "--compare={m: 1} is given 3 times; give it for each of two settings."),
        (
            (*BOTH, "--answers", "a.csv"),
            "--compare={m: 1} exports a study, and --answers reads one; give one",
        ),
        (
            ("--compare", "m", *BOTH[:2]),
            "--compare=m must be a mapping of axes to values; write for instance",
        ),
        (
            ("--compare", "{m: [1]}", *BOTH[:2]),
            "--compare={m: [1]} must be a mapping of axes to values; write",
        ),
        (("--compare", "{}", *BOTH[:2]), "--compare={} must be a mapping of axes to values; write"),
        (("--compare", "{m: 7}", *BOTH[:2]), "--compare={m=7} fits nothing: no finished trial has m=7; see"),
        ((*BOTH, "--pairs", "0"), "--pairs=0 must lie in 1..5000; choose a value there."),
        ((*BOTH, "--order-seed", "-1"), "--order-seed=-1 must lie in 0..2147483647; choose a value there."),
        (("--answers", "none.csv"), "--answers=none.csv cannot be read (No such file or directory); give"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(study: Path, flags: tuple[str, ...], line: str) -> None:
    result = report(study, *flags)
    assert result.exit_code == 2
    (told,) = result.stderr.splitlines()
    assert told.startswith(f"error: {line}")
    assert not (study.parent / "runs" / "tiny").exists()


def test_images_that_are_damaged_are_told_in_one_line(study: Path) -> None:
    opened = Sweep(options(study, study.parent / "runs"), start_console())
    key = opened.plan(opened.search.ask()[0])["evaluation"].key
    folder = study.parent / "runs" / "store" / "artifacts" / key[:2] / key
    (path,) = folder.glob("*reconstructions_test.npy")
    path.write_bytes(path.read_bytes()[:-1])
    result = report(study, *BOTH)
    assert result.exit_code == 2
    assert f"error: artifact {key} file reconstructions_test.npy" in result.stderr


def test_nothing_stored_is_refused(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "tiny.yaml", AXES)
    (tmp_path / "runs" / "store").mkdir(parents=True)
    result = report(path, *BOTH)
    assert result.exit_code == 2
    assert "error: none of the 4 points of tiny is stored at" in result.stderr
