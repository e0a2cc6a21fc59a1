"""The report from what is stored: all of it, part of it, nothing of it; the store is filled by hand."""

import io
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from jobs import report as job
from jobs.sweep import Sweep, start_console
from orchestrator.api.options import RUNS, Options
from orchestrator.stages.graph import STAGES
from orchestrator.store.artifacts import Artifact
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.json_tracker import read_trials
from orchestrator.sweep.study_checks import check_report
from tests import tiny

AXES = {"release.truncation": [1, 2], "seed": [0, 1]}
ADDED = [name for name, kind in STAGES.items() if kind.is_added]
REPORT: dict[str, Any] = {
    "rows": ["m"],
    "columns": 2,
    "printed": [
        {
            "source": "AMI, Table II",
            "label": "black-box [1]",
            "where": {"m": 1},
            "metric": "inversion/mse_test",
            "value": 0.3,
        }
    ],
    "orderings": [
        {
            "claim": "larger m leaks more",
            "source": "AMI, Figure 7",
            "metric": "inversion/mse_test",
            "axis": "m",
            "order": [1, 2],
        }
    ],
}
TABLES = {
    f"{name}.{ending}"
    for name in ("summary", "variance", "comparison", "orderings")
    for ending in ("csv", "tex")
}
FILES = TABLES | {
    "results.csv",
    "results.parquet",
    "study.yaml",
    "note.md",
    "figure.png",
    "importance.csv",
    "report.html",
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the command."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return the tiny study's file."""
    return tiny.write(tmp_path / "tiny.yaml", AXES, report=REPORT)


def options(study: Path, out: Path, **more: Any) -> Options:
    """Return what the commands are given."""
    given: dict[str, Any] = {
        "overrides": [],
        "scale": None,
        "store": None,
        "data": None,
        "tracking_uri": None,
    }
    return Options(study=str(study), out=out, **{**given, "ship_later": True, **more})


def fill(study: Path, out: Path, num_points: int, *, without: Sequence[str] = ()) -> None:
    """Store made-up stages of the first points, some left out: errors fall with m and a little with the
    seed."""
    opened = Sweep(options(study, out), start_console())
    for point in opened.search.ask()[:num_points]:
        error = 0.4 - 0.1 * float(point.axes["m"]) - 0.01 * float(point.axes["seed"])
        for stage in (one for one in opened.plan(point).values() if one.name not in without):
            is_last = stage.name == "evaluation"
            metrics = {"inversion/mse_test": error} if is_last else {}
            artifact = Artifact(stage.key, stage.name, 1, {}, metrics=metrics, created_ms=1)
            opened.store.publish(artifact, images() if is_last else {})


def images() -> dict[str, bytes]:
    """Return two victims and what was rebuilt of them."""
    buffer = io.BytesIO()
    np.save(buffer, np.full((2, 1, 32, 32), 99, np.uint8))
    return {name: buffer.getvalue() for name in ("victims_test.npy", "reconstructions_test.npy")}


def report(study: Path, out: Path, *flags: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(job.app, [str(study), "--out", str(out), *flags])


def test_everything_is_written_again_from_the_store(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    fill(study, out, 4)
    result = report(study, out, "--ship-later")
    assert result.exit_code == 0, (result.output, result.exception)
    assert {file.name for file in (out / "tiny").iterdir()} == FILES
    (row,) = pd.read_csv(out / "tiny" / "orderings.csv").to_dict("records")
    assert (row["difference"], row["verdict"], row["seeds_agreeing"]) == (pytest.approx(0.1), "holds", 2)
    (row,) = pd.read_csv(out / "tiny" / "comparison.csv").to_dict("records")
    assert (row["ours"], row["seeds"]) == (pytest.approx(0.295), 2)
    assert result.stdout.startswith(f"the answer on one page: {(out / 'tiny' / 'report.html').as_uri()}")
    assert b"jobs.sweep" in (out / "tiny" / "report.html").read_bytes()
    assert str(tmp_path / "runs").encode() not in (out / "tiny" / "report.html").read_bytes()
    assert "numbers that papers print" in result.stdout
    assert "black-box [1]" in result.stdout
    assert "orders that papers report" in result.stdout
    assert "m: 1 -> 2" in result.stdout
    assert "held fixed: classes, class draw, split" in " ".join(result.stdout.split())
    assert "trials: 4 finished, 0 failed, 0 pruned" in result.stdout
    blobs = DirectoryBlobs(out / "store")
    in_store = {name.rsplit("/", 1)[1]: blobs.get(name) for name in blobs.names("sweeps/")}
    assert in_store == {file.name: file.read_bytes() for file in (out / "tiny").iterdir()}  # and no journal
    (told,) = (out / "unshipped").iterdir()
    assert {trial["status"] for trial in read_trials(told).values()} == {"finished"}
    assert {file.name for file in (told / "report").iterdir()} == FILES
    again = report(study, out, "--ship-later", "--set", "report.columns=1")
    assert again.exit_code == 0
    assert (out / "tiny" / "figure.png").read_bytes() != in_store["figure.png"]


def test_a_store_from_before_stages_is_read_and_a_sweep_adds_them_alone(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    fill(study, out, 4, without=ADDED)
    result = report(study, out, "--ship-later")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "trials: 4 finished, 0 failed, 0 pruned" in result.stdout
    table = pd.read_csv(out / "tiny" / "results.csv")
    assert table["inversion/mse_test"].tolist() == pytest.approx([0.3, 0.29, 0.2, 0.19])
    opened = Sweep(options(study, out), start_console())
    ledger = opened.ledger(Journal(opened.store.blobs, opened.study.key), [])
    planned = [stage for task in ledger.next_tasks() for stage in task.stages.values()]
    missing = [stage.name for stage in planned if opened.store.find(stage.key) is None]
    assert missing == [stage.name for stage in planned if stage.name in ADDED]
    assert {"reconstructions", "yardsticks"} <= set(missing)
    fill(study, tmp_path / "other", 4, without=["victims"])  # no stage that was always there may be missing
    assert report(study, tmp_path / "other", "--ship-later").exit_code == 2


def test_points_whose_files_are_damaged_are_missing(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    fill(study, out, 4)
    assert report(study, out, "--ship-later").exit_code == 0
    opened = Sweep(options(study, out), start_console())
    key = opened.plan(opened.search.ask()[0])["evaluation"].key  # of a trial that the picture shows
    (path,) = (out / "store" / "artifacts" / key[:2] / key).glob("*victims_test.npy")
    path.write_bytes(path.read_bytes()[:-1])
    result = report(study, out, "--ship-later")
    assert result.exit_code == 1, (result.output, result.exception)
    assert "1 of 4 points are not stored; this computes them: python -m jobs.sweep" in result.stdout
    assert not path.parent.joinpath("manifest.json").exists()


def test_points_that_are_not_stored_are_told(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    fill(study, out, 3)
    result = report(study, out, "--ship-later")
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout.splitlines()[-1] == (
        "1 of 4 points are not stored; this computes them: "
        f"python -m jobs.sweep {study} --out {out} --ship-later"
    )
    assert list(pd.read_csv(out / "tiny" / "results.csv")["trial"]) == [
        "m001-s0",
        "m001-s1",
        "m002-s0",
    ]
    assert "stages run/reused" not in result.stdout


def test_nothing_stored_is_refused_and_writes_nothing(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    result = report(study, out)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: store={out / 'store'} is no directory; name another with --store."
    ]
    (tmp_path / "empty").mkdir()
    result = report(study, out, "--store", str(tmp_path / "empty"))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: none of the 4 points of tiny is stored at {tmp_path / 'empty'}; this computes them: "
        f"python -m jobs.sweep {study} --store {tmp_path / 'empty'} --out {out}"
    ]
    assert not out.exists()
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_command_to_copy_has_what_was_given_but_no_password(tmp_path: Path) -> None:
    given = options(
        Path("demo"),
        RUNS,
        overrides=["sweep.seed=[0, 1]"],
        scale="smoke",
        tracking_uri="http://me:secret@host:5000",
        ship_later=False,
    )
    assert shlex.split(given.command()) == [
        *("python", "-m", "jobs.sweep", "demo", "--scale", "smoke"),
        *("--tracking-uri", "http://***@host:5000", "--set", "sweep.seed=[0, 1]"),
    ]


@pytest.mark.mlflow
def test_the_report_is_attached_to_the_run_of_its_sweep(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    fill(study, out, 4)
    for _ in range(2):
        result = report(study, out)
        assert result.exit_code == 0, (result.output, result.exception)
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    assert len(found) == 5
    assert parent.info.status == "FINISHED"
    place = parent.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    attached = {file.name for file in (out / "mlartifacts" / place / "report").iterdir()}
    assert attached >= FILES


def test_an_axis_that_could_be_swept_and_is_not_is_no_fault() -> None:
    axes = {"rows": ["k"], "where": {"align": True, "attack.losses.features": 0.1, "budget": "full"}}
    check_report(tiny.study({"seed": [0]}, report={**axes, "beside": ["data", "attack.cost"]}))


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"rows": ["kk"]}, "report.rows.0=kk is not an axis; swept here are m, seed."),
        ({"beside": ["m", "sise"]}, "report.beside.1=sise is not an axis; swept here are m, seed."),
        ({"where": {"kk": 3}}, "report.where.kk is not an axis; swept here are m, seed."),
        (
            {"orderings": [{"axis": "kk"}]},
            "report.orderings.0.axis=kk is not an axis; swept here are m, seed.",
        ),
        (
            {"orderings": [{}, {"where": {"aligned": True}}]},
            "report.orderings.1.where.aligned is not an axis; swept here are m, seed.",
        ),
        (
            {"printed": [{"where": {"kk": 1}}]},
            "report.printed.0.where.kk is not an axis; swept here are m, seed.",
        ),
        (
            {"printed": [{"metric": "a/b"}]},
            "report.printed.0.metric=a/b is not measured; choose from target/",
        ),
        ({"orderings": [{"metric": "mse"}]}, "report.orderings.0.metric=mse is not measured; choose from "),
    ],
)
def test_a_report_that_names_what_is_not_there_is_refused(
    tmp_path: Path, section: dict[str, Any], line: str
) -> None:
    whole = {
        name: [{**REPORT[name][0], **entry} for entry in entries]
        if name in ("printed", "orderings")
        else entries
        for name, entries in section.items()
    }
    path = tiny.write(tmp_path / "tiny.yaml", AXES, report=whole)
    result = report(path, tmp_path / "runs")
    assert result.exit_code == 2
    (told,) = result.stderr.splitlines()
    assert told.startswith(f"error: {line}")


def test_no_ray_is_loaded() -> None:
    code = "import sys, jobs.report; assert 'ray.train' not in sys.modules and 'ray.tune' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_help_is_text() -> None:
    command = [sys.executable, "-m", "jobs.report", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for flag in ("--set", "--scale", "--out", "--store", "--data", "--tracking-uri", "--ship-later"):
        assert flag in done.stdout
    assert "--local" not in done.stdout


@pytest.mark.parametrize(("replicates", "averaged"), [(None, ["seed"]), (["m"], ["m"]), ([], [])])
def test_a_sweeps_record_names_the_axes_that_its_report_averages_over(
    tmp_path: Path, replicates: list[str] | None, averaged: list[str]
) -> None:
    changes = {} if replicates is None else {"replicates": replicates}
    path = tiny.write(tmp_path / "tiny.yaml", AXES, report=changes)
    opened = Sweep(options(path, tmp_path / "runs"), start_console())
    record = opened.sweep_record(Journal(opened.store.blobs, opened.study.key))
    assert list(record.replicates) == averaged


def test_the_page_of_the_demo_says_which_axis_matters_most(tmp_path: Path) -> None:
    """All 96 points with made-up errors: its grid lacks m=5 of k=3, and has a baseline beside it."""
    out, kinds = tmp_path / "runs", {"same-heldout": 0.02, "generic": 0.05, "distinct": 0.15}
    opened = Sweep(options(Path("demo"), out), start_console())
    for point in opened.search.ask():
        axes = point.axes
        error = kinds[str(axes["auxiliary"])] + 0.004 * float(axes["m"]) + 0.0003 * float(axes["seed"]) ** 2
        for stage in opened.plan(point).values():
            is_last = stage.name == "evaluation"
            metrics = {"inversion/mse_test": error} if is_last else {}
            artifact = Artifact(stage.key, stage.name, 1, {}, metrics=metrics, created_ms=1)
            opened.store.publish(artifact, images() if is_last else {})
    assert report(Path("demo"), out, "--ship-later").exit_code == 0
    results = pd.read_csv(out / "demo" / "results.csv")
    block = results[results["m"].isin([1, 3]) & results["align"]]
    value = block["inversion/mse_test"]
    total = ((value - value.mean()) ** 2).sum()
    shares = {
        axis: 100
        * ((block.groupby(axis)["inversion/mse_test"].transform("mean") - value.mean()) ** 2).sum()
        / total
        for axis in ("auxiliary", "m", "k", "budget")
    }
    page = (out / "demo" / "report.html").read_text(encoding="utf-8")
    assert len(block) == 72
    largest = "<strong>auxiliary</strong> has the largest share of one axis, not shown to be ahead of others"
    assert f"{largest}: {shares['auxiliary']:.0f} % of the variance" in page
    assert f"then <code>m</code> {shares['m']:.0f} %, <code>k</code> {shares['k']:.0f} %" in page
    assert "exact, over 24 of 32 settings that form a complete grid, 3 replicates each" in page
