"""Interruption: how long a stopped job has. test_sweep.py interrupts a whole sweep."""

import pytest

from jobs.interruption import close_seconds


@pytest.mark.parametrize(("allowed", "seconds"), [("", 1.8), ("30", 28.8), ("1", 1.0), ("soon", 1.8)])
def test_a_job_ends_before_it_is_killed(
    allowed: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", allowed)
    assert close_seconds() == pytest.approx(seconds)
