"""`python -m jobs.store`: what people and machines are shown, what it removes, what it refuses."""

import hashlib
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from jobs import store as job
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from tests.store.test_artifacts import FILES, KEY, artifact

ROOT = Path(__file__).resolve().parents[2]
INPUT = "cd" * 32


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the command."""
    monkeypatch.delenv("INVERSION_STORE", raising=False)


@pytest.fixture
def artifacts(blobs: Blobs) -> Artifacts:
    return filled(blobs)


def filled(blobs: Blobs) -> Artifacts:
    """Return a store with an artifact and its input."""
    store = Artifacts(blobs)
    store.publish(artifact(), FILES)
    store.publish(artifact(INPUT, stage="pretrain", inputs={}, cost={}), FILES)
    return store


def store(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(job.app, list(arguments))


def lines(result: Result, code: int = 0) -> list[str]:
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout.splitlines()


def document(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout)


def digest(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()[:12]


def damage(artifacts: Artifacts) -> str:
    """Damage a file of KEY; return its name."""
    found = artifacts.find(KEY)
    assert found is not None
    artifacts.blobs.put(found.files["empty"].object, b"damage")
    return found.files["empty"].object


def test_artifacts_are_listed_by_stage(artifacts: Artifacts) -> None:
    uri = artifacts.blobs.uri
    assert lines(store("ls", "--store", uri)) == [
        f"artifacts in {uri}",
        "  stage     artifacts     size  newest (UTC)",
        "  pretrain          1  10.2 kB  2023-11-14 22:13",
        "  target            1  10.2 kB  2023-11-14 22:13",
        f"2 artifacts, 20.5 kB, in {uri}",
    ]
    told = document(store("ls", "--store", uri, "--json"))
    assert told["unreadable"] == 0
    assert told["stages"][1] == {
        "stage": "target",
        "num_artifacts": 1,
        "num_bytes": 10_249,
        "newest_ms": 1_700_000_000_000,
    }


def test_one_stage_is_listed_by_artifact(artifacts: Artifacts) -> None:
    uri = artifacts.blobs.uri
    assert lines(store("ls", "--stage", "target", "--store", uri)) == [
        "artifacts of target",
        "  key           created (UTC)        size  seconds  main metric",
        f"  {KEY[:12]}  2023-11-14 22:13  10.2 kB      1.5  target/accuracy 0.3",
    ]
    (told,) = document(store("ls", "--stage", "pretrain", "--store", uri, "--json"))
    assert (told["key"], told["bytes"], told["wall_seconds"]) == (INPUT, 10_249, None)
    result = store("ls", "--stage", "judge", "--store", uri)
    assert lines(result, 2) == []
    assert result.stderr == (f"error: stage=judge has no artifacts in {uri}; stored are: pretrain, target.\n")


def test_one_artifact_is_shown_in_full(artifacts: Artifacts) -> None:
    shown = lines(store("ls", "abab", "--store", artifacts.blobs.uri))
    assert shown == [
        f"target {KEY}",
        "version 2, code 0.1.0, created 2023-11-14 22:13 UTC",
        "files",
        "  name                    size  sha256",
        f"  weights.safetensors  10.2 kB  {digest('weights.safetensors')}",
        f"  curves/loss.json     9 bytes  {digest('curves/loss.json')}",
        "  empty                0 bytes  e3b0c44298fc",
        "inputs",
        "  role      key                                                               stored",
        f"  pretrain  {INPUT}  yes",
        "metrics",
        "  name             value",
        "  target/accuracy    0.3",
        "  target/count         3",
        "  target/psnr        inf",
        "cost",
        "  name          value",
        "  wall_seconds    1.5",
        "profile",
        "  device: cpu",
        "  threads: 1",
        "spec",
        "  target:",
        "    classes: 10",
        "    pretrain: null",
    ]
    told = document(store("ls", KEY, "--store", artifacts.blobs.uri, "--json"))
    assert told["metrics"]["target/psnr"] == "Infinity"
    assert told["files"]["empty"]["size"] == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["ls", "00"], "key=00 begins no artifact in {uri}; `ls --stage STAGE` lists some."),
        (["verify", "00"], "key=00 begins no artifact in {uri}; `ls --stage STAGE` lists some."),
        (["ls", "ab", "--sweeps"], "KEY, --stage and --sweeps exclude each other; give one of them."),
        (
            ["gc", "--older-than", "24"],
            "older_than=24 must be a number and s, m, h or d; use for example 24h.",
        ),
        (
            ["gc", "--older-than", "60s"],
            "older_than=60s must be at least 10m, because a sweep may publish what is younger; use 10m or "
            "more.",
        ),
    ],
)
def test_a_wrong_argument_is_one_line_and_changes_nothing(
    artifacts: Artifacts, arguments: list[str], error: str
) -> None:
    before = artifacts.blobs.entries("")
    result = store(*arguments, "--store", artifacts.blobs.uri)
    assert lines(result, 2) == []
    assert result.stderr == f"error: {error.format(uri=artifacts.blobs.uri)}\n"
    assert artifacts.blobs.entries("") == before


@pytest.mark.parametrize("command", ["ls", "verify", "gc"])
def test_a_store_that_is_not_there_is_one_line(command: str, s3_endpoint: str, tmp_path: Path) -> None:
    result = store(command, "--store", str(tmp_path / "none"))
    assert lines(result, 2) == []
    assert result.stderr == (
        f"error: store={tmp_path / 'none'} is no directory; name another with --store.\n"
    )
    result = store(command, "--store", "s3://no-such-bucket/x")
    assert lines(result, 2) == []
    assert result.stderr == (
        f"error: store=s3://no-such-bucket/x cannot be used: bucket no-such-bucket does not exist at "
        f"{s3_endpoint}; create it or name another with --store.\n"
    )


def test_the_store_may_come_from_the_environment(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVERSION_STORE", artifacts.blobs.uri)
    assert lines(store("ls"))[-1] == f"2 artifacts, 20.5 kB, in {artifacts.blobs.uri}"


def test_a_damaged_manifest_is_told_by_ls_and_its_artifact_is_not_shown(artifacts: Artifacts) -> None:
    artifacts.blobs.put(f"artifacts/ab/{KEY}/manifest.json", b"{")
    shown = lines(store("ls", "--store", artifacts.blobs.uri))
    assert shown[-1] == "1 manifests cannot be read; `python -m jobs.store verify` quarantines them"
    result = store("ls", KEY, "--store", artifacts.blobs.uri)
    assert lines(result, 2) == []
    assert result.stderr == (
        f"error: key={KEY} has a damaged manifest; `python -m jobs.store verify {KEY}` quarantines it.\n"
    )


def test_sweeps_are_listed_with_their_last_status(artifacts: Artifacts) -> None:
    with Journal(artifacts.blobs, "5eed" * 16) as journal:
        journal.append("start", study="tiny", points=4, dropped=0)
        journal.append("ended", trial="t", status="finished")
        journal.append("interrupted")
    shown = lines(store("ls", "--sweeps", "--store", artifacts.blobs.uri))
    assert shown[1].split() == ["sweep", "study", "points", "ended", "status", "last", "event", "(UTC)"]
    assert shown[2].split()[:5] == ["5eed5eed5eed", "tiny", "4", "1", "interrupted"]
    assert shown[3] == f"1 sweeps in {artifacts.blobs.uri}"
    (told,) = document(store("ls", "--sweeps", "--store", artifacts.blobs.uri, "--json"))
    assert (told["key"], told["num_points"], told["status"]) == ("5eed" * 16, 4, "interrupted")


def test_a_store_in_order_verifies_with_exit_code_0(artifacts: Artifacts) -> None:
    uri = artifacts.blobs.uri
    assert lines(store("verify", "--store", uri)) == ["verified 2 artifacts, 6 files, 20.5 kB: 0 damaged"]
    assert lines(store("verify", "abab", "--store", uri)) == [
        "verified 1 artifacts, 3 files, 10.2 kB: 0 damaged"
    ]
    told = document(store("verify", "--stage", "pretrain", "--store", uri, "--json"))
    assert (told["artifacts"], told["files"], told["bytes"]) == (1, 3, 10_249)


def test_damage_is_told_with_what_to_do(artifacts: Artifacts) -> None:
    uri = artifacts.blobs.uri
    damage(artifacts)
    fault = f"damaged  target  {KEY}  empty: want 0 bytes with sha256 {digest('empty')}, got 6 bytes"
    assert lines(store("verify", "--dry-run", "--store", uri), 1) == [
        fault,
        "verified 2 artifacts, 6 files, 20.5 kB: 1 damaged",
        "nothing was changed; without --dry-run damaged artifacts are quarantined, as reads do",
    ]
    assert artifacts.find(KEY) is not None
    told = document(store("verify", "--store", uri, "--json"), 1)
    assert [one["quarantined"] for one in told["found"]] == [True, False]
    artifacts.publish(artifact(), FILES)
    damage(artifacts)
    assert lines(store("verify", "--store", uri), 1) == [
        f"{fault} (quarantined)",
        "verified 2 artifacts, 6 files, 20.5 kB: 1 damaged",
        "run the sweep again: what was damaged is built again, nothing else",
    ]
    assert artifacts.find(KEY) is None
    artifacts.publish(artifact(), FILES)  # the sweep again
    assert lines(store("verify", "--store", uri)) == ["verified 2 artifacts, 6 files, 20.5 kB: 0 damaged"]


def test_an_input_that_is_gone_is_said(artifacts: Artifacts) -> None:
    artifacts.blobs.remove(f"artifacts/cd/{INPUT}/manifest.json")
    assert lines(store("verify", "--store", artifacts.blobs.uri)) == [
        "verified 1 artifacts, 3 files, 10.2 kB: 0 damaged",
        "1 name inputs that are not stored any more; what needs those computes them",
    ]


def test_garbage_is_shown_and_goes(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MINIMUM_SECONDS", 0.0)
    uri = artifacts.blobs.uri
    artifacts.publish(artifact("ef" * 32), FILES)
    artifacts.blobs.remove(f"artifacts/ef/{'ef' * 32}/manifest.json")
    artifacts.blobs.put(f"checkpoints/{KEY}.safetensors", bytes(2000))
    young = lines(store("gc", "--store", uri))
    assert young == [
        "removed nothing, 0 bytes",
        "spared 3 files that are not old enough; a publish may be about to name them",
    ]
    planned = lines(store("gc", "--older-than", "0s", "--dry-run", "--store", uri))
    assert [line.split()[0] for line in planned] == ["garbage", "kind", *["part"] * 3, "checkpoint", "would"]
    assert planned[-1] == "would remove 3 parts, 1 checkpoint, 12.2 kB"
    assert planned[-2].startswith("  checkpoint   2.0 kB  20")
    assert planned[-2].endswith(f"  checkpoints/{KEY}.safetensors")
    before = artifacts.blobs.names("")
    told = document(store("gc", "--older-than", "0s", "--dry-run", "--store", uri, "--json"))
    assert artifacts.blobs.names("") == before
    assert (told["dry_run"], [one["kind"] for one in told["garbage"]]) == (
        True,
        ["part"] * 3 + ["checkpoint"],
    )
    removed = lines(store("gc", "--older-than", "0s", "--store", uri))
    assert removed[-1] == "removed 3 parts, 1 checkpoint, 12.2 kB"
    assert lines(store("gc", "--older-than", "0s", "--store", uri)) == ["removed nothing, 0 bytes"]
    assert lines(store("verify", "--store", uri)) == ["verified 2 artifacts, 6 files, 20.5 kB: 0 damaged"]


def test_what_cannot_be_removed_is_told_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: DirectoryBlobs, name: str) -> None:
        if name.startswith("checkpoints/"):
            raise PermissionError(13, "Permission denied")

    opened = Artifacts(DirectoryBlobs(tmp_path))
    opened.publish(artifact(), FILES)
    opened.blobs.put(f"checkpoints/{KEY}.safetensors", bytes(2000))
    os.utime(tmp_path / "checkpoints" / f"{KEY}.safetensors", (time.time() - 90_000,) * 2)
    monkeypatch.setattr(DirectoryBlobs, "remove", refuse)
    shown = lines(store("gc", "--store", str(tmp_path)), 1)
    assert shown[-1] == "removed nothing, 0 bytes"
    assert shown[2].endswith("PermissionError: [Errno 13] Permission denied")


def test_files_beside_an_unreadable_manifest_are_spared(artifacts: Artifacts) -> None:
    artifacts.blobs.put(f"artifacts/ab/{KEY}/manifest.json", b"{")
    assert lines(store("gc", "--store", artifacts.blobs.uri)) == [
        "removed nothing, 0 bytes",
        "spared the files of 1 artifacts whose manifests cannot be read; `python -m jobs.store verify` "
        "quarantines those",
    ]


def test_a_directory_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: DirectoryBlobs, name: str, data: bytes, **_: bool) -> bool:
        raise PermissionError(13, "Permission denied", str(tmp_path / name))

    monkeypatch.setattr(DirectoryBlobs, "put", refuse)
    result = store("gc", "--store", str(tmp_path))
    assert lines(result, 2) == []
    assert result.stderr.startswith(f"error: store: {tmp_path}/clock-")
    assert result.stderr.endswith(": Permission denied; the store must be writable\n")


def test_on_a_terminal_tables_have_lines_and_progress_is_shown(tmp_path: Path) -> None:
    opened = Artifacts(DirectoryBlobs(tmp_path))
    opened.publish(artifact(inputs={}), FILES)
    listed = ["\u2502 target", "1 artifacts"]
    for arguments, words in ((["ls"], listed), (["verify"], ["verified 1 artifacts"])):
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "jobs.store", *arguments, "--store", str(tmp_path)]
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(command, stdout=slave, cwd=ROOT, env=env) as process:
            os.close(slave)
            shown = _read_all(master).decode()
            assert process.wait(60) == 0
        assert all(word in shown for word in words), shown


def _read_all(master: int) -> bytes:
    """Read a terminal until its last writer closes it."""
    data = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # how Linux says that nobody writes any more
            piece = b""
        if not piece:
            os.close(master)
            return data
        data += piece


def test_the_command_starts_without_torch_and_mlflow() -> None:
    code = "import sys, jobs.store; assert not {'torch', 'mlflow', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_the_help_is_text() -> None:
    for command, flags in {"ls": ["--sweeps"], "verify": ["--dry-run"], "gc": ["--older-than"]}.items():
        words = [sys.executable, "-m", "jobs.store", command, "--help"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True, cwd=ROOT)
        assert all(flag in done.stdout for flag in [*flags, "--store", "--json"])
