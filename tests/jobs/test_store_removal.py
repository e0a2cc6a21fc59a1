"""`python -m jobs.store rm` and `gc --unused` over real sweeps: nothing of a removed one is left anywhere."""

import json
import os
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs import store as job
from jobs import sweep as sweep_job
from orchestrator.report.user_study.key import key_file, page_file
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.store.removal import sweep_needs
from tests import tiny
from tests.report.user_study.trials import study as user_study

pytestmark = pytest.mark.mlflow


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the command."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    """Return the folder of two sweeps that share their target."""
    out = tmp_path_factory.mktemp("swept")
    shutil.copy(mlflow_database, out / "mlflow.db")
    for name, truncation in (("first", 1), ("second", 2)):
        path = tiny.write(out / f"{name}.yaml", {"release.truncation": [truncation]}, report={"rows": ["m"]})
        path.write_text(path.read_text().replace("study: tiny", f"study: {name}"))
        words = [str(path), "--local", "--out", str(out)]
        result = CliRunner().invoke(sweep_job.app, words)
        assert result.exit_code == 0, (result.output, result.exception)
    return out


@pytest.fixture
def out(swept: Path, tmp_path: Path) -> Path:
    """Return a copy to remove from."""
    return shutil.copytree(swept, tmp_path / "out")


def run(*words: object) -> Result:
    return CliRunner().invoke(job.app, [str(word) for word in words])


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def runs(out: Path) -> int:
    with closing(sqlite3.connect(out / "mlflow.db")) as database:
        return int(database.execute("SELECT COUNT(*) FROM runs").fetchone()[0])


def key_of(out: Path, study: str) -> str:
    sweeps = sweep_needs(DirectoryBlobs(out / "store"))
    return next(sweep.key for sweep in sweeps if sweep.study == study)


def test_a_dry_run_says_what_goes_and_changes_nothing(out: Path) -> None:
    before = files(out)
    key = key_of(out, "first")
    result = run("rm", "--sweep", key[:8], "--out", out, "--dry-run")
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stdout.splitlines()
    assert lines[0] == f"sweep {key[:12]} first"
    assert lines[1].startswith("would remove 1 sweeps, 5 artifacts, ")
    assert lines[2] == f"would remove 2 runs with their files from MLflow at sqlite:///{out / 'mlflow.db'}"
    assert files(out) == before


def placeless(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return files without the folder of the study in the page, which names how it was called."""
    return {name: re.sub(rb"jobs\.sweep [^<]*second\.yaml", b"", data) for name, data in found.items()}


def test_a_removed_sweep_leaves_nothing_and_the_other_is_whole(out: Path) -> None:
    key, other = key_of(out, "first"), files(out / "second")
    assert run("rm", "--sweep", key, "--out", out).exit_code == 0
    left = files(out)
    assert not [name for name in left if key in name or name.startswith(("first/", "mlartifacts/first"))]
    assert runs(out) == 2
    assert files(out / "second") == other
    store = Artifacts(DirectoryBlobs(out / "store"))
    (second,) = sweep_needs(store.blobs)
    assert set(store.keys()) == second.stages
    again = CliRunner().invoke(sweep_job.app, [str(out / "second.yaml"), "--local", "--out", str(out)])
    assert again.exit_code == 0
    assert placeless(files(out / "second")) == placeless(other)


def test_pages_of_user_studies_go_with_the_sweep_whose_images_they_show(out: Path) -> None:
    _, key = user_study()
    for page, sweep in (("a" * 12, key_of(out, "first")), ("b" * 12, key_of(out, "second"))):
        (out / "first" / page_file(page)).write_text("private images")
        (out / "first" / key_file(page)).write_text(key.but(page=page, sweep=sweep).model_dump_json())
    assert run("rm", "--sweep", key_of(out, "first"), "--out", out).exit_code == 0
    left = {path.name for path in (out / "first").iterdir()}
    assert left == {page_file("b" * 12), key_file("b" * 12)}


@pytest.mark.parametrize("folder", ["first.smoke", "first.1a2b3c4d"])
def test_a_report_in_the_folder_of_a_scale_or_an_override_goes_too(folder: str, out: Path) -> None:
    shutil.move(out / "first", out / folder)
    before = files(out / "second")
    assert run("rm", "--sweep", key_of(out, "first"), "--out", out).exit_code == 0
    assert not (out / folder).exists()
    assert files(out / "second") == before


def test_everything_that_was_computed_from_a_data_set_goes(out: Path) -> None:
    told = run("rm", "--dataset", "digits", "--out", out, "--json")
    assert told.exit_code == 0, (told.output, told.exception)
    document = json.loads(told.stdout)
    assert {sweep["study"] for sweep in document["sweeps"]} == {"first", "second"}
    assert document["mlflow"]["num_runs"] == 4
    left = {name for name in files(out) if not name.endswith((".yaml", "ignore"))}
    assert left == {"mlflow.db", "mlflow.db.lock"}
    assert runs(out) == 0
    result = run("rm", "--dataset", "digits", "--out", out)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: dataset=digits has nothing computed from it in file://")


def test_a_report_file_that_two_sweeps_of_a_study_share_is_counted_and_removed_once(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "store")
    for number, letter in enumerate("ab"):
        with Journal(blobs, letter * 64) as journal:
            journal.append("start", study="twice", points=1)
            journal.append("planned", trials=[], stages=0, needs=[], datasets=["faces"])
        blobs.put(f"sweeps/{letter * 64}/report/note.md", b"the same")
        blobs.put(f"sweeps/{letter * 64}/report/results.csv", b"%d" % number)
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "note.md").write_bytes(b"the same")
    (tmp_path / "twice" / "results.csv").write_bytes(b"1")
    words = ("rm", "--dataset", "faces", "--out", tmp_path, "--json")
    dry, real = run(*words, "--dry-run"), run(*words)
    assert (dry.exit_code, real.exit_code) == (0, 0), (dry.output, real.output, real.exception)
    copies = [str(tmp_path / "twice" / name) for name in ("note.md", "results.csv")]
    assert sorted(json.loads(dry.stdout)["files"]) == sorted(json.loads(real.stdout)["files"]) == copies
    assert not (tmp_path / "twice").exists()
    assert not list(blobs.names("sweeps/"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "--dataset and --sweep exclude each other, and one is needed; give one."),
        (
            ["--dataset", "a", "--sweep", "b"],
            "--dataset and --sweep exclude each other, and one is needed; give one.",
        ),
        (["--sweep", "nope"], "sweep=nope begins the key of no sweep here; `ls --sweeps` lists them."),
        (["--dataset", "no'pe"], "dataset=no'pe is no name of a data set; give it as `data.dataset` does."),
    ],
)
def test_what_names_nothing_is_refused_and_changes_nothing(words: list[str], text: str, swept: Path) -> None:
    before = files(swept)
    result = run("rm", *words, "--out", swept)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {text}\n")
    assert files(swept) == before


def test_artifacts_that_no_sweep_needs_are_garbage_once_they_are_old(out: Path) -> None:
    store = Artifacts(DirectoryBlobs(out / "store"))
    key = key_of(out, "first")
    for name in store.blobs.names(f"sweeps/{key}/"):
        store.blobs.remove(name)
    (second,) = sweep_needs(store.blobs)
    keys = set(store.keys())
    assert "removed nothing" in run("gc", "--unused", "--store", out / "store").stdout  # too young
    for path in (out / "store" / "artifacts").rglob("*"):
        os.utime(path, (time.time() - 3 * 86400,) * 2)
    assert "removed nothing" in run("gc", "--store", out / "store").stdout
    assert "would remove 5 artifacts" in run("gc", "--unused", "--dry-run", "--store", out / "store").stdout
    assert set(store.keys()) == keys
    assert "removed 5 artifacts" in run("gc", "--unused", "--store", out / "store").stdout
    assert set(store.keys()) == second.stages
