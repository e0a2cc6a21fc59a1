"""Runs: sweeps are found by study or key, compared by common axes, and none is best whose skill may be 0."""

import json
from pathlib import Path

import pytest

from orchestrator.api.runs import (
    Mean,
    StoredSweep,
    common_axes,
    find_sweep,
    find_trial,
    side_by_side,
    stored_sweeps,
)
from orchestrator.config.base import Refused
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs

HEAD = "seeds,inversion/mse_test,inversion/mse_test +-,inversion/skill_test,inversion/skill_test +-"
DIGITS = f"""m,k,{HEAD}
1,3,3,0.05,0.001,0.1,0.05
3,3,3,0.04,0.001,0.2,0.25
1,5,3,0.03,,0.3,
"""
FACES = f"""k,{HEAD.replace("seeds,", "seeds,no better than,")}
3,3,,0.02,0.001,0.4,0.1
9,3,label (test),0.02,0.001,0.4,0.1
"""


def write(store: Path, key: str, study: str, summary: str, at: int) -> None:
    """Write what a finished sweep leaves in a store."""
    blobs = DirectoryBlobs(store)
    events = [
        {"event": "start", "time_ms": at, "study": study, "points": 2},
        {
            "event": "planned",
            "time_ms": at,
            "trials": ["a", "b"],
            "names": ["k3", "k9"],
            "needs": [f"{key}1", f"{key}2"],
        },
        {"event": "ended", "time_ms": at, "trial": "a", "status": "finished", "built": [f"{key}1"]},
        {"event": "ended", "time_ms": at, "trial": "b", "status": "finished", "built": []},
        {"event": "finish", "time_ms": at + 1, "finished": 2},
    ]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    blobs.put(f"sweeps/{key}/journal/{at:013d}-1-00000000-0000.jsonl", lines.encode())
    blobs.put(f"sweeps/{key}/report/summary.csv", summary.encode())
    blobs.put(
        f"sweeps/{key}/report/results.csv",
        b"trial,k,status,x/y\nk3,3,finished,1\nk9,9,finished,2\n",
    )
    blobs.put(
        f"sweeps/{key}/report/study.yaml", f"study: {study}\nbase:\n  data: {{dataset: {study}}}\n".encode()
    )


@pytest.fixture
def sweeps(tmp_path: Path) -> list[StoredSweep]:
    """Return two sweeps of digits and one of faces, in two stores."""
    write(tmp_path / "one", "ab" * 32, "digits", DIGITS, 1000)
    write(tmp_path / "one", "ac" * 32, "digits", DIGITS, 3000)
    write(tmp_path / "two", "cd" * 32, "faces", FACES, 2000)
    return stored_sweeps([Artifacts(DirectoryBlobs(tmp_path / name)) for name in ("one", "two")])


def test_sweeps_of_all_stores_come_the_latest_first(sweeps: list[StoredSweep]) -> None:
    assert [(one.about.study, one.key[:2]) for one in sweeps] == [
        ("digits", "ac"),
        ("faces", "cd"),
        ("digits", "ab"),
    ]
    assert [(one.about.num_ended, one.about.status) for one in sweeps] == [(2, "finished")] * 3


def test_a_study_means_its_latest_sweep_and_a_key_its_own(sweeps: list[StoredSweep]) -> None:
    assert find_sweep(sweeps, "digits").key == "ac" * 32
    assert find_sweep(sweeps, "abab").key == "ab" * 32
    assert find_trial(sweeps, "faces/1")[1] == "k9"
    assert find_trial(sweeps, "cdcd/k3")[1] == "k3"


def test_a_name_comes_before_a_place(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32, "digits", DIGITS, 1000)
    blobs = DirectoryBlobs(tmp_path)
    blobs.put(f"sweeps/{'ab' * 32}/report/results.csv", b"trial,k,status\n7,7,finished\n0,0,finished\n")
    (sweep,) = stored_sweeps([Artifacts(blobs)])
    assert find_trial([sweep], "digits/0")[1] == "0"
    assert find_trial([sweep], "digits/1")[1] == "0"
    assert find_trial([sweep], "digits/0001")[1] == "0"


def test_trials_of_journals_without_names_have_their_stages(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32, "digits", DIGITS, 1000)
    (journal,) = tmp_path.rglob("*.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text(
        "".join(
            json.dumps({name: value for name, value in one.items() if name != "names"}) + "\n"
            for one in events
        )
    )
    (sweep,) = stored_sweeps([Artifacts(DirectoryBlobs(tmp_path))])
    assert [sweep.built_by(name) for name in ("0000-k3", "0001-k9", "0002-k9", "k3", "")] == [
        [f"{'ab' * 32}1"],
        [],
        [],
        [],
        [],
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("digit", "sweep=digit is in no store given; did you mean digits"),
        ("facse", "did you mean faces"),
        ("abba", "sweep=abba is in no store given; did you mean abababab"),
        ("faces/7", "trial=faces/7 is none of faces cdcdcdcd; did you mean k3"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(sweeps: list[StoredSweep], name: str, text: str) -> None:
    with pytest.raises(Refused) as refusal:
        find_trial(sweeps, name) if "/" in name else find_sweep(sweeps, name)
    assert text in str(refusal.value)


def test_a_start_of_several_keys_is_refused(tmp_path: Path) -> None:
    for letter in "12":
        write(tmp_path, f"ab{letter}" + "0" * 61, f"study{letter}", DIGITS, 1000)
    with pytest.raises(Refused, match=r"sweep=ab begins 2 sweeps \(study. ab.00000, study. ab.00000\)"):
        find_sweep(stored_sweeps([Artifacts(DirectoryBlobs(tmp_path))]), "ab")


def test_settings_are_called_best_only_where_their_skill_is_shown(sweeps: list[StoredSweep]) -> None:
    digits, faces, _ = sweeps
    assert [one.fault for one in digits.settings] == ["", "has an interval that holds 0", "has no interval"]
    assert [one.fault for one in faces.settings] == ["", "is no better than label (test)"]
    assert digits.settings[0].skill == ("inversion/skill_test", Mean(0.1, 0.05))
    assert digits.settings[2].mean("inversion/mse_test") == Mean(0.03, None)
    assert digits.settings[2].mean("target/accuracy") is None
    assert digits.metrics == ["inversion/mse_test", "inversion/skill_test"]


def test_sweeps_are_beside_each_other_by_the_axes_that_both_have(sweeps: list[StoredSweep]) -> None:
    digits, faces, _ = sweeps
    assert common_axes([digits, faces]) == ["k"]
    found = {
        place["k"]: [[one.name for one in side] for side in sides]
        for place, sides in side_by_side([digits, faces], ["k"])
    }
    assert found == {"3": [["m=1, k=3", "m=3, k=3"], ["k=3"]], "5": [["m=1, k=5"], []], "9": [[], ["k=9"]]}


def test_settings_and_stages_are_those_of_the_journal_and_the_report(sweeps: list[StoredSweep]) -> None:
    faces = sweeps[1]
    assert faces.study == {"study": "faces", "base.data.dataset": "faces"}
    assert faces.needs == ["cd" * 32 + "1", "cd" * 32 + "2"]
    assert faces.built_by("k3") == ["cd" * 32 + "1"]
    assert faces.built_by("k9") == []
    assert faces.forecast is None
