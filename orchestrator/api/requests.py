"""Requests to a running sweep: made through its store, answered by its process."""

import time
from dataclasses import dataclass

from orchestrator.api.runs import StoredSweep
from orchestrator.config.base import Refused
from orchestrator.config.installation import to_call
from orchestrator.store.listing import KILLED
from orchestrator.store.requests import RequestFolder, Start, State, Subject

MOST_GROUPS = 4096
AGAIN = "run its command again: what is stored is not computed again"
LOOK_SECONDS = 0.5  # between two looks for the answer


@dataclass(frozen=True)
class Answer:
    """What a sweep made of a request within the time that it was given."""

    start: Start
    state: State
    is_taken: bool  # its process has read the request
    is_done: bool  # it is paused, runs (or ran to its end), or knows how many groups fit


def request(sweep: StoredSweep, subject: Subject, value: int, *, seconds: float) -> Answer:
    """Make a request and wait up to `seconds` until it is done: `subject` pause with 1, or 0 to resume, or
    groups with the most that may run, 1..4096.

    Raise `Refused` for a sweep that does not run, ends meanwhile, or cannot do what is asked.
    """
    start = _running(sweep)
    if subject == "groups" and not 1 <= value <= MOST_GROUPS:
        rule = f"must lie in 1..{MOST_GROUPS}"
        raise Refused("groups", value, rule, f"{to_call('runs', 'pause', sweep.key[:8])} stops all of them")
    if subject == "groups" and start.is_local:
        rule = "runs in one process (--local), which has no worker groups"
        raise Refused("sweep", sweep.label, rule, "pause it, or run it on Ray")
    assert sweep.store is not None
    folder = RequestFolder(sweep.store.blobs, sweep.key, start.name)
    asked, end = folder.ask(subject, value), time.monotonic() + seconds
    while True:
        state = folder.read_state()
        is_taken = asked.id in state.answered
        is_done = is_taken and (subject == "groups" or not value or state.phase == "paused")
        if state.phase == "ending" and (value or not is_taken):  # what was resumed may have ended
            raise Refused("sweep", sweep.label, "has built everything and ends now", AGAIN)
        if is_done or time.monotonic() >= end:
            return Answer(start, state, is_taken, is_done)
        time.sleep(LOOK_SECONDS)


def _running(sweep: StoredSweep) -> Start:
    """Return the start that requests are made to; raise `Refused` if the sweep has ended."""
    about = sweep.about
    if about.state is None:
        rule = "was killed" if about.status == KILLED else f"has ended ({about.status})"
        raise Refused("sweep", sweep.label, rule, AGAIN)
    if about.start is None or not about.start.name:
        raise Refused("sweep", sweep.label, "was started by a version that takes no requests", AGAIN)
    return about.start
