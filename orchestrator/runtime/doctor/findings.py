"""Findings: what a check reports, judgements that several checks share, and the time limit of a check."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from typing import Literal

from orchestrator.config.base import Refused
from orchestrator.config.installation import to_call
from orchestrator.runtime.words import sentences

LIMIT_SECONDS = 15.0
GIB = 1 << 30
WARN_ROOM, FAIL_ROOM = 10 * GIB, 1 * GIB  # bytes free
WARN_CLOCK_SECONDS, FAIL_CLOCK_SECONDS = 60.0, 300.0  # S3 refuses requests that are 15 minutes off
STAGE_SOME = f"stage some: {to_call('stage_data', 'SOURCE', 'DEST')}"

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor, and the way out of a fault."""

    status: Status
    name: str
    found: str
    fix: str = ""
    is_late: bool = False  # the check did not end: its thread may still be waiting


def ok(name: str, found: str) -> Finding:
    """Return a finding without a fault."""
    return Finding("ok", name, found)


def warn(name: str, found: str, fix: str) -> Finding:
    """Return a fault that does not stop sweeps."""
    return Finding("warn", name, found, fix)


def fail(name: str, found: str, fix: str) -> Finding:
    """Return a fault that stops sweeps, or opens the cluster to strangers."""
    return Finding("FAIL", name, found, fix)


def refused(name: str, refusal: Refused) -> Finding:
    """Return the failure that a refusal describes."""
    return fail(name, refusal.problem, refusal.way_out)


def run(
    name: str, check: Callable[[], Iterable[Finding]], late_fix: str, *, seconds: float = LIMIT_SECONDS
) -> Iterator[Finding]:
    """Yield the findings of a check; a failure with `late_fix` if it raises or has not ended in time."""
    findings: queue.Queue[Finding | None] = queue.Queue()

    def work() -> None:
        try:
            for finding in check():
                findings.put(finding)
        except Exception as error:  # of any library: the other checks go on
            words = sentences(str(error))
            findings.put(fail(name, f"{type(error).__name__}: {words}", late_fix))
        findings.put(None)

    threading.Thread(target=work, name=f"doctor-{name}", daemon=True).start()
    end = monotonic() + seconds
    while True:
        try:
            finding = findings.get(timeout=max(0.0, end - monotonic()))
        except queue.Empty:
            yield Finding("FAIL", name, f"no answer within {seconds:g} s", late_fix, is_late=True)
            return
        if finding is None:
            return
        yield finding


def room(name: str, folder: str, free: int) -> Finding:
    """Judge the free bytes of the disk that a folder is on."""
    words = f"{folder} has {free / GIB:.1f} GiB free"
    if free < FAIL_ROOM:
        return fail(name, words, f"free at least {FAIL_ROOM // GIB} GiB there, or name another place")
    if free < WARN_ROOM:
        return warn(name, words, f"free {WARN_ROOM // GIB} GiB there before large data sets or sweeps")
    return ok(name, words)


def clock(name: str, ahead_seconds: float, whose: str) -> Finding:
    """Judge the seconds by which another clock is ahead of this machine's."""
    words = (
        f"{whose} is {abs(ahead_seconds):.0f} s {'ahead of' if ahead_seconds > 0 else 'behind'} this clock"
    )
    fix = "set both clocks by NTP (chrony or systemd-timesyncd)"
    if abs(ahead_seconds) > FAIL_CLOCK_SECONDS:
        return fail(name, words, fix)
    if abs(ahead_seconds) > WARN_CLOCK_SECONDS:
        return warn(name, words, fix)
    return ok(name, f"{whose} agrees within {abs(ahead_seconds) + 1:.0f} s")


def once(what: str, option: str, fault: str, *, is_once: bool) -> Finding:
    """Judge whether a store refuses to create an object twice; `fault` names what does not."""
    if is_once:
        return ok(f"{what} once", "refuses to create an object again")
    fix = f"use a server that honours it, or another directory, with {option}"
    return fail(f"{what} once", f"{fault}, so writers could overwrite each other", fix)


def holding(what: str, folders: Sequence[str]) -> Finding:
    """Return the names of the data sets that a store's folders hold; a warning if there are none."""
    names = sorted(folders)
    if not names:
        return warn(f"{what} sets", "there are none", STAGE_SOME)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ok(f"{what} sets", f"{', '.join(names[:8])}{more}")


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
