"""Requests to a sweep as objects of a store: the last of each subject counts, each start has its own."""

import os
from dataclasses import replace

import pytest

from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import HOST
from orchestrator.store.journal import Journal
from orchestrator.store.requests import (
    RequestFolder,
    Start,
    State,
    latest_start,
    progress_words,
    start_fields,
)

ONE = Start("b", "node", os.getpid(), HOST, False, 2)


def test_the_last_request_of_each_subject_is_read_by_the_start_that_it_was_made_to(blobs: Blobs) -> None:
    folder = RequestFolder(blobs, "key", "start-1")
    assert folder.read() == []
    folder.ask("pause", 1)
    resumed, resized = folder.ask("pause", 0), folder.ask("groups", 3)
    assert folder.read() == [resumed, resized]
    assert RequestFolder(blobs, "key", "start-2").read() == []
    blobs.put("sweeps/key/requests/start-1/pause.json", b"{")
    assert folder.read() == [resized]


def test_the_state_comes_back_whole(blobs: Blobs) -> None:
    folder = RequestFolder(blobs, "key", "start-1")
    assert folder.read_state() == State()
    state = State("paused", 0, 4, 2, ("a", "b"), ("target (epoch 3 of 20)",))
    folder.write_state(state)
    assert folder.read_state() == state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(), ""),
        (State(groups=1), "1 group, as many as fit"),
        (State(groups=2, asked=2, room=9), "2 groups, 2 asked"),
        (State(groups=1, asked=4, room=2), "1 group, 4 asked, room for 2"),
        (State("paused"), "paused"),
        (State("pausing", groups=1, asked=1), "pausing, 1 group, 1 asked"),
        (State(groups=1, building=("judge",)), "1 group, as many as fit, building judge"),
        (State(building=tuple("abcdefg")), "building a, b, c, d and 3 more"),
    ],
)
def test_a_state_is_said_in_words(state: State, words: str) -> None:
    assert state.words == words


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        ({}, "prior"),
        ({"epoch": 3, "epochs": 20, "train_loss": 0.5}, "prior (epoch 3 of 20)"),
        ({"images": 34, "of": 102}, "prior (images 34 of 102)"),
    ],
)
def test_a_stage_says_how_far_it_is(progress: dict[str, float], words: str) -> None:
    assert progress_words("prior", progress) == words


def test_the_latest_start_is_the_one_that_is_asked(blobs: Blobs) -> None:
    with Journal(blobs, "key") as journal:
        journal.append("start", study="tiny", **start_fields(journal, is_local=True))
        start = latest_start(journal.events())
    assert start is not None
    assert (start.name, start.pid, start.is_local, start.is_alive) == (
        journal.attempt,
        os.getpid(),
        True,
        True,
    )
    events = [{"event": "start", "time_ms": 2, "start": "b"}, {"event": "start", "time_ms": 1, "start": "a"}]
    later = latest_start(events)
    assert later is not None
    assert later.name == "b"
    assert latest_start([{"event": "planned", "time_ms": 3}]) is None


def test_a_process_of_another_host_may_live_or_not() -> None:
    assert ONE.is_alive is True
    assert replace(ONE, pid=2**22 + 1).is_alive is False  # above any process id of Linux
    assert replace(ONE, host="ffffffff").is_alive is None
