"""Listing and verification of a store, over both kinds of store."""

import math
from collections.abc import Callable

import pytest

from orchestrator.store import listing
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.journal import Journal
from orchestrator.store.listing import Checked, StageSummary, SweepSummary
from tests.store.test_artifacts import FILES, KEY, artifact

INPUT = "cd" * 32
OTHER = "ef" * 32
BYTES = sum(map(len, FILES.values()))
WEIGHTS = "weights.safetensors"


@pytest.fixture
def artifacts(blobs: Blobs) -> Artifacts:
    return filled(blobs)


def filled(blobs: Blobs) -> Artifacts:
    """Return a store with an artifact, its input and another one."""
    store = Artifacts(blobs)
    store.publish(artifact(), FILES)
    store.publish(artifact(INPUT, stage="pretrain", inputs={}, metrics={}, created_ms=5), FILES)
    store.publish(artifact(OTHER, stage="target", created_ms=9), {})
    return store


def check(store: Artifacts, *, dry_run: bool = False) -> dict[str, Checked]:
    """Verify everything."""
    return {one.key: one for one in listing.verify(store, store.keys(), dry_run=dry_run)}


def test_stages_are_counted_with_bytes_and_the_newest(artifacts: Artifacts) -> None:
    found = listing.published(artifacts)
    assert [key for key, _ in found] == [KEY, INPUT, OTHER]
    assert listing.summary(one for _, one in found if one) == [
        StageSummary("pretrain", 1, BYTES, 5),
        StageSummary("target", 2, BYTES, 1_700_000_000_000),
    ]


def test_a_damaged_manifest_is_shown_and_stays(artifacts: Artifacts) -> None:
    name = f"artifacts/ef/{OTHER}/manifest.json"
    artifacts.blobs.put(name, b"{")
    assert dict(listing.published(artifacts))[OTHER] is None
    assert artifacts.blobs.get(name) == b"{"


def test_a_prefix_names_one_artifact(artifacts: Artifacts) -> None:
    assert listing.one_key(artifacts, "abab") == KEY
    with pytest.raises(
        ValueError, match=r"^key=00 begins no artifact in .*; `ls --stage STAGE` lists some\.$"
    ):
        listing.one_key(artifacts, "00")
    artifacts.publish(artifact("abc" * 20), {})
    with pytest.raises(ValueError, match=r"^key=ab begins 2 artifacts \(abababab, abcabcab\); give more of"):
        listing.one_key(artifacts, "ab")


def test_the_main_metric_is_the_first_known_one() -> None:
    assert listing.main_metric(artifact(), ["a/z", "target/accuracy"]) == ("target/accuracy", 0.1 + 0.2)
    assert listing.main_metric(artifact(metrics={"b/x": 1.0, "a/y": math.inf})) == ("a/y", math.inf)
    assert listing.main_metric(artifact(metrics={"b/x": 1.0, "a/y": 2.0}), ["b/x", "a/y"]) == ("b/x", 1.0)
    assert listing.main_metric(artifact(metrics={}), ["b/x"]) is None


def test_a_store_in_order_verifies(artifacts: Artifacts) -> None:
    assert check(artifacts) == {
        KEY: Checked(KEY, "target", 3, BYTES),
        INPUT: Checked(INPUT, "pretrain", 3, BYTES),
        OTHER: Checked(OTHER, "target", 0, 0),
    }


Damage = Callable[[bytes], bytes | None]


@pytest.mark.parametrize(
    ("damage", "got"),
    [
        (lambda data: data[:-1], "got 10239 bytes"),
        (lambda data: data[:77] + bytes([data[77] ^ 1]) + data[78:], "got 10240 bytes with sha256 "),
        (lambda data: None, "got nothing"),
    ],
)
def test_damage_is_found_and_quarantined_as_a_read_does(
    artifacts: Artifacts, damage: Damage, got: str
) -> None:
    found = artifacts.find(KEY)
    assert found is not None
    name = found.files[WEIGHTS].object
    data = damage(artifacts.blobs.get(name) or b"")
    artifacts.blobs.remove(name) if data is None else artifacts.blobs.put(name, data)
    told = check(artifacts, dry_run=True)[KEY]
    assert (told.quarantined, len(told.faults)) == (False, 1)
    assert told.faults[0].startswith(f"{WEIGHTS}: want 10240 bytes with sha256 ")
    assert got in told.faults[0]
    assert artifacts.find(KEY) == found
    assert artifacts.blobs.names("quarantine/") == []
    again = check(artifacts)
    assert again[KEY].faults == told.faults
    assert again[KEY].quarantined
    assert [key for key, one in again.items() if one.faults] == [KEY]
    assert artifacts.find(KEY) is None
    assert len(artifacts.blobs.names("quarantine/")) == 1
    artifacts.publish(artifact(), FILES)
    assert check(artifacts)[KEY].faults == ()


def test_every_damaged_file_is_named(artifacts: Artifacts) -> None:
    found = artifacts.find(KEY)
    assert found is not None
    for file in found.files.values():
        artifacts.blobs.put(file.object, b"damage")
    assert [fault.split(":")[0] for fault in check(artifacts)[KEY].faults] == sorted(FILES)


def test_a_manifest_that_is_damaged_is_quarantined(artifacts: Artifacts) -> None:
    name = f"artifacts/ab/{KEY}/manifest.json"
    data = artifacts.blobs.get(name) or b""
    artifacts.blobs.put(name, data.replace(b"0.30000000000000004", b"0.90000000000000004"))
    told = Checked(KEY, "", 0, 0, ("manifest.json cannot be read",))
    assert check(artifacts, dry_run=True)[KEY] == told
    assert check(artifacts)[KEY].quarantined
    assert artifacts.keys() == [INPUT, OTHER]


def test_an_input_that_is_not_stored_is_told_and_is_no_damage(artifacts: Artifacts) -> None:
    artifacts.blobs.remove(f"artifacts/cd/{INPUT}/manifest.json")
    found = check(artifacts)
    assert found[KEY] == Checked(KEY, "target", 3, BYTES, missing_inputs=(f"pretrain {INPUT}",))
    assert found[OTHER].missing_inputs == (f"pretrain {INPUT}",)


def test_what_goes_away_meanwhile_is_left_out(artifacts: Artifacts) -> None:
    assert list(listing.verify(artifacts, [KEY, "00" * 32])) == [Checked(KEY, "target", 3, BYTES)]


@pytest.mark.parametrize(
    ("events", "status", "ended"),
    [
        ([("ended", {"trial": "a"}), ("ended", {"trial": "a"})], "running or killed", 1),
        ([("ended", {"trial": "a"}), ("finish", {"finished": 1})], "finished", 1),
        ([("finish", {"finished": 1, "failed": 2})], "2 failed", 0),
        ([("interrupted", {})], "interrupted", 0),
    ],
)
def test_a_sweep_is_told_from_its_journal(
    blobs: Blobs, events: list[tuple[str, dict[str, object]]], status: str, ended: int
) -> None:
    with Journal(blobs, "5eed") as journal:
        journal.append("start", study="tiny", points=4)
        for event, fields in events:
            journal.append(event, **fields)
    before = blobs.names("")
    (sweep,) = listing.sweeps(blobs)
    assert sweep == SweepSummary("5eed", "tiny", 4, ended, status, sweep.last_ms)
    assert sweep.last_ms > 1_700_000_000_000
    assert blobs.names("") == before
