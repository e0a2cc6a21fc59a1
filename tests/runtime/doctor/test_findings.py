"""Findings: a check's time limit, and judgements of clocks, rooms and stores."""

import time
from collections.abc import Iterator

import pytest

from orchestrator.runtime.doctor import findings
from orchestrator.runtime.doctor.findings import GIB, Finding, fail, ok, run


def test_a_check_that_breaks_is_a_failure_without_secrets() -> None:
    def check() -> Iterator[Finding]:
        yield ok("one", "fine")
        raise RuntimeError("cannot reach\nhttp://me:hunter2@host")

    assert list(run("two", check, "mend it")) == [
        ok("one", "fine"),
        fail("two", "RuntimeError: cannot reach http://***@host", "mend it"),
    ]


def test_a_check_that_hangs_is_given_up() -> None:
    started = time.monotonic()

    def hang() -> Iterator[Finding]:
        time.sleep(60)
        yield ok("slow", "at last")

    (finding,) = run("slow", hang, "look there", seconds=0.3)
    assert time.monotonic() - started < 5
    assert finding == Finding("FAIL", "slow", "no answer within 0.3 s", "look there", is_late=True)


def test_no_check_may_take_more_than_15_seconds() -> None:
    assert findings.LIMIT_SECONDS == 15.0


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [
        (0.4, "ok", "its clock agrees within 1 s"),
        (-59.0, "ok", "its clock agrees within 60 s"),
        (61.0, "warn", "its clock is 61 s ahead of this clock"),
        (-301.0, "FAIL", "its clock is 301 s behind this clock"),
    ],
)
def test_clocks(ahead: float, status: str, words: str) -> None:
    finding = findings.clock("clock", ahead, "its clock")
    assert (finding.status, finding.found) == (status, words)
    assert finding.fix == ("" if status == "ok" else "set both clocks by NTP (chrony or systemd-timesyncd)")


@pytest.mark.parametrize(("free", "status"), [(11 * GIB, "ok"), (9 * GIB, "warn"), (GIB // 2, "FAIL")])
def test_room(free: int, status: str) -> None:
    finding = findings.room("room", "/data", free)
    assert (finding.status, bool(finding.fix)) == (status, status != "ok")
    assert finding.found == f"/data has {free / GIB:.1f} GiB free"
