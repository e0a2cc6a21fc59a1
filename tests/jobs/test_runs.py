"""`jobs.runs`: tables, JSON and CSV of the sweeps of stores; a listing reads no artifact."""

import csv
import io
import json
import os
import socket
import threading
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from jobs.runs import app
from orchestrator.store.artifacts import Artifact, Artifacts, manifest_name
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.store.requests import RequestFolder, State, start_fields
from tests import tiny
from tests.api.test_runs import DIGITS, FACES, write
from tests.jobs.test_imports import run
from tests.test_floors import ROOT

GROWTH = 1.5
"""Of CPU seconds from a listing beside 100 artifacts to one beside 10,000; today 1.0."""


@pytest.fixture
def stores(tmp_path: Path) -> list[str]:
    """Return the options of two stores with a sweep each."""
    write(tmp_path / "one", "ab" * 32, "digits", DIGITS, 1000)
    write(tmp_path / "two", "cd" * 32, "faces", FACES, 2000)
    artifacts = Artifacts(DirectoryBlobs(tmp_path / "one"))
    for version, number in ((1, "1"), (2, "2")):
        artifacts.publish(Artifact("ab" * 32 + number, "target", version, {}, code_version="0.1.0"), {})
    Artifacts(DirectoryBlobs(tmp_path / "two")).publish(
        Artifact("cd" * 32 + "1", "target", 3, {}, code_version="0.2.0"), {}
    )
    return ["--store", str(tmp_path / "one"), "--store", str(tmp_path / "two")]


def runs(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def rows(*words: str) -> list[dict[str, str]]:
    """Return the rows that a command prints as CSV."""
    done = runs(*words, "--format", "csv")
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_ls_lists_the_sweeps_of_all_stores(stores: list[str]) -> None:
    done = runs("ls", *stores)
    assert done.exit_code == 0, done.output
    assert [line.split()[:4] for line in done.stdout.splitlines()[2:]] == [
        ["cdcdcdcd", "faces", "2/2", "finished"],
        ["abababab", "digits", "2/2", "finished"],
    ]
    assert [row["study"] for row in rows("ls", "--study", "faces", *stores)] == ["faces"]
    document = json.loads(runs("ls", "--format", "json", *stores).stdout)
    assert [row["sweep"] for row in document["rows"]] == ["cdcdcdcd", "abababab"]


def test_show_has_means_with_intervals_as_text_and_as_numbers(stores: list[str]) -> None:
    done = runs("show", "digits", *stores)
    assert "digits abababab: 2 of 2 trials ended, finished, 1970-01-01 00:00 UTC" in done.stdout
    assert "0.05 +- 0.001" in done.stdout
    assert "report: file://" in done.stdout
    first = rows("show", "digits", "--metric", "inversion/skill_test", *stores)[0]
    assert first == {
        "m": "1",
        "k": "3",
        "seeds": "3",
        "inversion/skill_test": "0.1",
        "inversion/skill_test +-": "0.05",
    }
    row = json.loads(runs("show", "digits", "--format", "json", *stores).stdout)["rows"][2]
    assert (row["inversion/mse_test"], row["inversion/mse_test +-"]) == (0.03, None)


def test_compare_puts_sweeps_of_two_stores_side_by_side(stores: list[str]) -> None:
    done = runs("compare", "digits", "faces", *stores)
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert done.stdout.startswith("by k\n")
    assert "A: digits abababab" in done.stdout
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines[2:7]] == [
        ["3", "m=1", "0.05 +- 0.001"],
        ["3", "m=3", "0.04 +- 0.001"],
        ["3", "0.02 +- 0.001"],
        ["5", "m=1", "0.03"],
        ["9", "0.02 +- 0.001"],
    ]


def test_best_leaves_out_what_may_be_no_better_than_nothing(stores: list[str]) -> None:
    done = runs("best", *stores)
    assert done.exit_code == 0, done.output
    assert [row["setting"] for row in rows("best", *stores)] == ["k=3", "m=1, k=3"]
    for fault in ("has an interval that holds 0", "has no interval", "is no better than label (test)"):
        assert f"not ranked: 1 settings, each {fault}" in done.stdout
    by_error = rows("best", "--metric", "inversion/mse_test", "--most", "1", *stores)
    assert [(row["setting"], row["inversion/mse_test"]) for row in by_error] == [("k=3", "0.02")]


def test_diff_names_settings_code_and_stages(stores: list[str]) -> None:
    found = {
        (row["what"], row["name"]): (row["A"], row["B"]) for row in rows("diff", "digits", "faces", *stores)
    }
    assert found[("setting", "base.data.dataset")] == ("digits", "faces")
    assert found[("code", "target")] == ("0.1.0, stage target v2", "0.2.0, stage target v3")
    assert found[("stages", "target")] == ("2: abababababab, abababababab", "1: cdcdcdcdcdcd")
    trials = {
        (row["what"], row["name"]): (row["A"], row["B"])
        for row in rows("diff", "digits/0", "digits/1", *stores)
    }
    assert trials[("setting", "k")] == ("3", "9")
    assert "nothing differs" in runs("diff", "faces", "faces", *stores).stdout


def test_a_key_selects_its_own_sweep(stores: list[str]) -> None:
    write(Path(stores[1]), "ac" * 32, "digits", DIGITS, 500)
    assert [row["sweep"] for row in rows("ls", "--study", "acac", *stores)] == ["acacacac"]
    assert [row["sweep"] for row in rows("best", "--study", "cdcd", *stores)] == ["faces cdcdcdcd"]
    assert "no setting has a skill" not in runs("best", "--study", "cdcd", *stores).stdout
    assert len(rows("ls", "--study", "digits", *stores)) == 2


def test_each_metric_has_a_table_of_its_own(stores: list[str], tmp_path: Path) -> None:
    other = "attack,seeds,class/skill,class/skill +-\ngmi,3,0.9,0.1\n"
    write(tmp_path / "two", "ef" * 32, "classes", other, 4000)
    text = runs("best", *stores).stdout
    heads = [line for line in text.splitlines() if line.startswith("best settings by")]
    assert heads == ["best settings by inversion/skill_test", "best settings by class/skill"]
    asked = ("--metric", "inversion/mse_test", "--metric", "class/skill")
    found = [(row["by"], row["setting"]) for row in rows("best", *asked, *stores)]
    assert found == [
        ("inversion/mse_test", "k=3"),
        ("inversion/mse_test", "m=1, k=3"),
        ("class/skill", "attack=gmi"),
    ]


def test_sweeps_without_a_common_axis_are_not_compared(stores: list[str], tmp_path: Path) -> None:
    write(tmp_path / "two", "ef" * 32, "classes", "attack,seeds,inversion/mse_test\ngmi,3,0.9\n", 4000)
    done = runs("compare", "digits", "classes", *stores)
    assert done.exit_code == 2
    assert "has no axis that all of classes efefefef have; name sweeps that share one" in done.stderr


def test_no_number_that_json_lacks_is_printed_and_no_letter_that_terminals_obey(
    stores: list[str], tmp_path: Path
) -> None:
    odd = "m,seeds,inversion/mse_test,inversion/mse_test +-\n\x1b[31mred,3,inf,nan\n"
    write(tmp_path / "two", "ef" * 32, "odd", odd, 4000)
    printed = runs("show", "odd", "--format", "json", *stores).stdout
    row = json.loads(printed, parse_constant=pytest.fail)["rows"][0]
    assert (row["inversion/mse_test"], row["inversion/mse_test +-"]) == (None, None)
    for words in (("show", "odd"), ("show", "odd", "--format", "csv")):
        printed = runs(*words, *stores).stdout
        assert "\x1b" not in printed
        assert "\\x1b[31mred" in printed


def test_odd_stores_are_refused_in_one_line_or_read(stores: list[str], tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "two")
    write(tmp_path / "two", "ef" * 32, "odd", DIGITS, 4000)
    report = f"sweeps/{'ef' * 32}/report"
    blobs.put(f"{report}/results.csv", b"trial,k,status\nunnumbered,3,finished\n")
    event = {"event": "planned", "time_ms": 1}  # of a version that named no trials
    blobs.put(f"sweeps/{'ef' * 32}/journal/0000000000001-1-00000000-0000.jsonl", json.dumps(event).encode())
    done = runs("diff", "odd/unnumbered", "digits/0", *stores)
    assert done.exit_code == 0, (done.output, done.exception)
    for content in (b"study: [", b"- a list\n"):
        blobs.put(f"{report}/study.yaml", content)
        done = runs("diff", "odd", "digits", *stores)
        assert done.exit_code == 2
        assert "report/study.yaml is no mapping in YAML; write it again with jobs.report" in done.stderr
        assert done.stderr.count("\n") == 1


def test_trials_are_compared_by_their_resolved_settings(stores: list[str], tmp_path: Path) -> None:
    key, blobs = "ef" * 32, DirectoryBlobs(tmp_path / "two")
    write(tmp_path / "two", key, "tiny", DIGITS, 4000)
    study = tiny.study({"release.truncation": [1, 2], "seed": [0, 1]})
    plain = yaml.safe_dump(study.model_dump(mode="json"))
    blobs.put(f"sweeps/{key}/report/study.yaml", plain.encode())
    blobs.put(
        f"sweeps/{key}/report/results.csv", b"trial,m,seed,status\n0000-m1-s0,1,0,x\n0003-m2-s1,2,1,x\n"
    )
    found = {row["name"]: (row["A"], row["B"]) for row in rows("diff", "tiny/0", "tiny/1", *stores)}
    assert found == {
        "target.seed": ("0", "1"),
        "attack.seed": ("0", "1"),
        "release.truncation": ("1", "2"),
    }
    assert "those that each trial ran itself" in runs("diff", "tiny/0", "tiny/1", *stores).stdout


@pytest.fixture
def running(tmp_path: Path) -> RequestFolder:
    """Return the requests to a sweep that this process seems to run on Ray, in the second store."""
    blobs = DirectoryBlobs(tmp_path / "two")
    with Journal(blobs, "ef" * 32) as journal:
        journal.append("start", study="busy", points=8, **start_fields(journal, is_local=False))
    return RequestFolder(blobs, "ef" * 32, journal.attempt)


def test_a_running_sweep_is_listed_with_its_groups_and_asked_for_others(
    stores: list[str], running: RequestFolder
) -> None:
    assert rows("ls", "--study", "busy", *stores)[0]["status"] == "running"
    done = runs("resize", "busy", "4", "--wait", "0", *stores)
    assert done.exit_code == 1
    assert f"on {socket.gethostname()}, process {os.getpid()}: no answer within 0 s; if" in done.stdout
    (request,) = running.read()
    assert (request.subject, request.value) == ("groups", 4)
    running.write_state(State("running", 1, 4, 2, (request.id,), ("prior (epoch 3 of 40)",)))
    assert [(row["study"], row["groups"]) for row in rows("ls", *stores)] == [
        ("busy", "1 group, 4 asked, room for 2"),
        ("faces", ""),
        ("digits", ""),
    ]
    shown = runs("show", "busy", *stores).stdout
    assert "busy efefefef: 0 of 8 trials ended, running, 1 group, 4 asked, room for 2, " in shown
    assert "building prior (epoch 3 of 40)" in shown
    answering = threading.Timer(0.3, lambda: running.write_state(State("paused", 0, 4, None, ids())))

    def ids() -> tuple[str, ...]:
        return tuple(one.id for one in running.read())

    answering.start()
    done = runs("pause", "busy", "--wait", "20", *stores)
    assert (done.exit_code, done.stdout.rstrip().rpartition(": ")[2]) == (0, "paused, 0 groups, 4 asked")
    assert rows("ls", "--study", "busy", *stores)[0]["status"] == "paused"


def test_diff_says_how_many_stages_it_read(stores: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.runs.KEYS_SHOWN", 1)
    assert "stages of A: of the first 1 of 2" in runs("diff", "digits", "faces", *stores).stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("best", "--metric", "inversion/mse_tst"), "is in no summary; did you mean inversion/mse_test"),
        (("show", "digts"), "error: sweep=digts is in no store given; did you mean digits."),
        (("compare", "digits"), "error: sweep=digits is compared with nothing; name a second sweep."),
        (
            ("show", "digits", "--metric", "x/y"),
            "error: --metric=x/y is in no summary; did you mean inversion/mse_test or",
        ),
        (("diff", "digits/0", "faces"), "error: other=faces is a sweep, the first a trial; name two sweeps"),
        (("ls", "--study", "fces"), "did you mean faces."),
        (("best", "--study", "fces"), "did you mean faces."),
        (
            ("pause", "digits"),
            "error: sweep=digits abababab has ended (finished); run its command again: what is stored is not",
        ),
        (("resize", "digts", "2"), "error: sweep=digts is in no store given; did you mean digits."),
        (("resume", "fces"), "did you mean faces."),
    ],
)
def test_refusals_are_one_line(stores: list[str], words: tuple[str, ...], text: str) -> None:
    done = runs(*words, *stores)
    assert done.exit_code == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_listing_takes_no_longer_beside_10000_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    seconds = {}
    for artifacts in (100, 10_000):
        store = tmp_path / f"store{artifacts}"
        for number in range(artifacts):
            file = store / manifest_name(f"{number % 256:02x}{number:062x}")
            file.parent.mkdir(parents=True)
            file.write_bytes(b"{}")
        for number in range(50):
            write(store, f"{number:064x}", f"study-{number}", DIGITS, 1000 + number)
        tries = [run(["-m", "jobs.runs", "ls", "--store", str(store)], tmp_path) for _ in range(3)]
        assert [(done.code, len(done.output.splitlines())) for done in tries] == [(0, 52)] * 3
        seconds[artifacts] = min(done.seconds for done in tries)
    assert seconds[10_000] < GROWTH * seconds[100]
