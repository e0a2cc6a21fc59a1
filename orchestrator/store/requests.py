"""Requests to a running sweep - pause, resume, resize - and its answer, as objects of the store.

`sweeps/<key>/requests/<start>/pause.json` and `groups.json` hold what was asked last, `state.json` what the
sweep made of it. Every start of a sweep has a folder of its own, so that no request outlives the start that
it was made to. Both processes need nothing but the store, and no clock that both have.
"""

import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import HOST, is_alive
from orchestrator.store.journal import Journal, now_ms

Subject = Literal["pause", "groups"]
SUBJECTS: tuple[Subject, ...] = ("pause", "groups")
SHOWN = 4  # stages that are being built


@dataclass(frozen=True)
class Start:
    """One start of a sweep's command: the process that requests are made to."""

    name: str  # of its journal's segments and of its folder of requests; empty: of an earlier version
    node: str  # name of its host
    pid: int
    host: str  # as `directory.HOST`
    is_local: bool  # it runs stages itself and has no worker groups
    started_ms: int  # Unix milliseconds

    @property
    def is_alive(self) -> bool | None:
        """Whether its process runs; None where that cannot be told from this host."""
        return is_alive(self.pid) if self.host == HOST else None


@dataclass(frozen=True)
class Request:
    """What somebody asked: `value` is whether to pause, or the largest number of groups."""

    subject: Subject
    value: int
    id: str
    by: str  # user's process, for the journal


@dataclass(frozen=True)
class State:
    """What a start makes of the requests to it."""

    phase: str = "running"  # running, pausing (stages are being saved), paused, ending
    groups: int = 0  # worker groups now, those that end after their stage included
    asked: int | None = None  # worker groups at most; None: as many as fit the nodes
    room: int | None = None  # worker groups that the nodes take; None before they are known
    answered: tuple[str, ...] = ()  # ids of the last request of each subject that was taken
    building: tuple[str, ...] = ()  # stages that are being built and how far, in words

    @property
    def size(self) -> str:
        """Worker groups now and asked, in words; empty where there are none and none were asked."""
        if not self.groups and self.asked is None:
            return ""
        most = "as many as fit" if self.asked is None else f"{self.asked} asked"
        lacks = self.asked is not None and self.room is not None and self.asked > self.room
        room = f", room for {self.room}" if lacks else ""
        return f"{counted(self.groups)}, {most}{room}"

    @property
    def words(self) -> str:
        """Phase, size and what is built; empty where there is nothing beyond that it runs."""
        phase = "" if self.phase == "running" else self.phase
        return ", ".join(filter(None, (phase, self.size, self.work)))

    @property
    def work(self) -> str:
        """What is being built, in words; empty where nothing is."""
        shown, num_left = ", ".join(self.building[:SHOWN]), len(self.building) - SHOWN
        left = f" and {num_left} more" if num_left > 0 else ""
        return f"building {shown}{left}" if shown else ""


def progress_words(stage: str, progress: Mapping[str, float]) -> str:
    """Return a stage that is being built: what it has reached and of how many are the first two of its
    progress; its name alone before the first."""
    match list(progress.items())[:2]:
        case [(unit, done), (_, of)]:
            return f"{stage} ({unit} {done:g} of {of:g})"
    return stage


def counted(groups: int) -> str:
    """Return a number of groups in words."""
    return f"{groups} group" if groups == 1 else f"{groups} groups"


def start_fields(journal: Journal, *, is_local: bool) -> dict[str, Any]:
    """Return what the event of a start says of its process."""
    return {
        "start": journal.attempt,
        "node": socket.gethostname(),
        "pid": os.getpid(),
        "host": HOST,
        "local": is_local,
    }


def latest_start(events: Sequence[dict[str, Any]]) -> Start | None:
    """Return the latest start in a sweep's journal; None if it was never started."""
    event = max(
        (one for one in events if one["event"] == "start"),
        key=lambda one: int(one.get("time_ms", 0)),
        default=None,
    )
    if event is None:
        return None
    return Start(
        name=str(event.get("start", "")),
        node=str(event.get("node", "")),
        pid=int(event.get("pid", 0)),
        host=str(event.get("host", "")),
        is_local=bool(event.get("local")),
        started_ms=int(event.get("time_ms", 0)),
    )


class RequestFolder:
    """The requests to one start and its state; every write replaces a whole object."""

    def __init__(self, blobs: Blobs, sweep_key: str, start: str) -> None:
        self._blobs, self._folder = blobs, f"sweeps/{sweep_key}/requests/{start}"

    def ask(self, subject: Subject, value: int) -> Request:
        """Make a request, which replaces an earlier one of that subject; raise what the store raises."""
        request = Request(subject, value, secrets.token_hex(8), f"{socket.gethostname()}-{os.getpid()}")
        document = {**asdict(request), "time_ms": now_ms()}
        self._blobs.put(f"{self._folder}/{subject}.json", json.dumps(document).encode())
        return request

    def read(self) -> list[Request]:
        """Return the last request of each subject; those that cannot be read are left out."""
        found = (_parsed(self._blobs.get(f"{self._folder}/{subject}.json")) for subject in SUBJECTS)
        requests = []
        for subject, plain in zip(SUBJECTS, found, strict=True):
            value, id_ = plain.get("value"), plain.get("id")
            if isinstance(value, int) and isinstance(id_, str):
                requests.append(Request(subject, value, id_, str(plain.get("by", ""))))
        return requests

    def write_state(self, state: State) -> None:
        """Replace the state."""
        self._blobs.put(f"{self._folder}/state.json", json.dumps(asdict(state)).encode())

    def read_state(self) -> State:
        """Return the state; that of a sweep that runs if none was written."""
        plain = _parsed(self._blobs.get(f"{self._folder}/state.json"))
        known = {name.name: plain[name.name] for name in fields(State) if name.name in plain}
        lists = {name: tuple(known.get(name, ())) for name in ("answered", "building")}
        return State(**{**known, **lists})


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        plain = json.loads(data) if data else {}
    except ValueError:
        plain = {}
    return plain if isinstance(plain, dict) else {}
