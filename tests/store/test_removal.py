"""What belongs to a sweep or was computed from a data set: the rest stays."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.config.base import Refused
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.store.removal import (
    needed_stages,
    of_dataset,
    of_sweep,
    one_sweep,
    remove,
    sweep_needs,
)

FACES, DIGITS = "a1" * 32, "a2" * 32  # stages of two data sets
FROM_FACES, ROTTEN, UNFINISHED = "b1" * 32, "c1" * 32, "d1" * 32
FIRST, SECOND, OLD = "11" * 32, "12" * 32, "99" * 32  # sweeps


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    """Return a store with two sweeps: one over faces, one over digits that shares a stage with it."""
    store = Artifacts(DirectoryBlobs(tmp_path))
    publish(store, FACES, "faces")
    publish(store, DIGITS, "digits")
    publish(store, FROM_FACES, None, FACES)
    publish(store, ROTTEN, "faces")
    rotten = store.find(ROTTEN)
    assert rotten is not None
    store.blobs.put(rotten.files["x"].object, b"rot")
    with pytest.raises(Corrupt):
        store.read(rotten, "x")
    store.blobs.put(f"checkpoints/{UNFINISHED}.safetensors", b"weights")
    plan(store, FIRST, [FACES, DIGITS, FROM_FACES, UNFINISHED], ["digits", "faces"])
    plan(store, SECOND, [DIGITS], ["digits"])
    return store


def publish(store: Artifacts, key: str, dataset: str | None, *inputs: str) -> None:
    spec = {"datasets": {"private": {"name": dataset, "digest": "0"}} if dataset else {}}
    needs = {f"input{number}": need for number, need in enumerate(inputs)}
    store.publish(Artifact(key, "target", 1, spec, needs), {"x": key.encode()})


def plan(store: Artifacts, sweep: str, stages: Sequence[str], datasets: Sequence[str]) -> None:
    with Journal(store.blobs, sweep) as journal:
        journal.append("start", study=f"study-{sweep[:2]}", points=1)
        journal.append("planned", trials=[], stages=len(stages), needs=stages, datasets=datasets)
    store.blobs.put(f"sweeps/{sweep}/report/figure.png", b"faces")


def left(store: Artifacts, *keys: str) -> list[str]:
    """Return the names of objects that belong to any of the keys."""
    return [name for name in store.blobs.names("") if any(key in name for key in keys)]


def test_a_sweep_goes_with_what_no_other_needs(store: Artifacts) -> None:
    sweeps = sweep_needs(store.blobs)
    removal = of_sweep(store, one_sweep(sweeps, FIRST[:6]), sweeps)
    assert removal.stages == tuple(sorted([FACES, FROM_FACES]))
    remove(store.blobs, removal)
    assert left(store, FIRST, FACES, FROM_FACES, UNFINISHED) == []
    assert store.find(DIGITS) is not None
    assert [sweep.key for sweep in sweep_needs(store.blobs)] == [SECOND]


def test_everything_that_was_computed_from_a_data_set_goes(store: Artifacts) -> None:
    removal = of_dataset(store, "faces", sweep_needs(store.blobs))
    assert [(sweep.key, sweep.study) for sweep in removal.sweeps] == [(FIRST, "study-11")]
    assert removal.num_bytes == sum(len(store.blobs.get(entry.name) or b"") for entry in removal.entries)
    remove(store.blobs, removal)
    assert left(store, FIRST, FACES, FROM_FACES, ROTTEN, UNFINISHED) == []
    assert not any(b"faces" in (store.blobs.get(name) or b"") for name in left(store, SECOND, DIGITS)[:1])
    assert store.find(DIGITS) is not None
    assert of_dataset(store, "faces", sweep_needs(store.blobs)).entries == ()


def test_stages_stay_while_it_is_unknown_what_another_sweep_needs(store: Artifacts) -> None:
    with Journal(store.blobs, OLD) as journal:
        journal.append("start", study="old", points=1)
        journal.append("planned", trials=["t"], stages=3)
        journal.append("ended", trial="t", status="finished", built=[DIGITS])
    sweeps = sweep_needs(store.blobs)
    assert of_sweep(store, one_sweep(sweeps, FIRST), sweeps).stages == ()
    short = OLD[:12]
    match = f"--unused cannot know what sweep {short} old needs.*; run its command again.*rm --sweep {short}"
    with pytest.raises(Refused, match=match):
        needed_stages(store.blobs)
    remove(store.blobs, of_sweep(store, one_sweep(sweeps, OLD), sweeps))
    assert needed_stages(store.blobs) == {FACES, DIGITS, FROM_FACES, UNFINISHED}


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        (
            "1",
            f"sweep=1 begins 2 sweeps ({FIRST[:12]} study-11, {'12' * 6} study-12); give more of the key.",
        ),
        ("ff", "sweep=ff begins the key of no sweep here; `ls --sweeps` lists them."),
    ],
)
def test_a_key_that_names_no_single_sweep_is_refused(prefix: str, text: str, store: Artifacts) -> None:
    with pytest.raises(Refused, match=f"^{re.escape(text)}$"):
        one_sweep(sweep_needs(store.blobs), prefix)
