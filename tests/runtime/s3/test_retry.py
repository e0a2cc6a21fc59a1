"""The table of retries and its loop: which errors are repeated, how often, how long."""

import logging
from collections.abc import Callable
from dataclasses import replace

import botocore.exceptions as boto
import pytest

from orchestrator.runtime.s3 import retry
from orchestrator.runtime.s3.client import CHECKING, CONFIG, open_client
from orchestrator.runtime.s3.errors import Reason, Replaced, reason_of
from orchestrator.runtime.s3.retry import RETRIES, Kind, Retry, repeat


def refusal(code: str, status: int) -> boto.ClientError:
    """Return an answer of the service with an error code and an HTTP status."""
    return boto.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "GetObject",
    )


ERRORS: dict[Reason, Exception] = {
    "away": boto.EndpointConnectionError(endpoint_url="http://x"),
    "busy": refusal("SlowDown", 503),
    "broken": boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    "damaged": boto.FlexibleChecksumError(error_msg="crc"),
    "raced": refusal("ConditionalRequestConflict", 409),
    "replaced": Replaced(),
    "final": refusal("AccessDenied", 403),
}


class Failing:
    """A call that raises an error a number of times and then returns its number."""

    def __init__(self, error: Exception, times: int, between: Callable[[], None] = lambda: None) -> None:
        self.error, self.times, self.between, self.num_calls = error, times, between, 0

    def __call__(self) -> int:
        self.num_calls += 1
        self.between()
        if self.num_calls <= self.times:
            raise self.error
        return self.num_calls


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "back_off", lambda attempt: None)


def test_the_table() -> None:
    transient: tuple[Reason, ...] = ("away", "busy", "broken")
    assert {
        "request": Retry(10, 60.0, transient),
        "read": Retry(5, 0.0, ("damaged", "replaced"), limit_seconds=900.0),
        "put": Retry(5, 0.0, ("raced",)),
        "check": Retry(2, 0.0, transient),
    } == RETRIES


@pytest.mark.parametrize("reason", list(ERRORS))
def test_an_error_has_one_reason(reason: Reason) -> None:
    assert reason_of(ERRORS[reason]) == reason


@pytest.mark.parametrize("kind", list(RETRIES))
@pytest.mark.parametrize("reason", list(ERRORS))
def test_a_kind_repeats_its_reasons_as_often_as_the_table_has_it(
    kind: Kind, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RETRIES, kind, replace(RETRIES[kind], seconds=0.0))
    attempts = RETRIES[kind].attempts if reason in RETRIES[kind].repeats else 1
    assert repeat(Failing(ERRORS[reason], attempts - 1), "x", kind) == attempts
    call = Failing(ERRORS[reason], attempts)
    with pytest.raises(type(ERRORS[reason])) as caught:
        repeat(call, "x", kind)
    assert caught.value is ERRORS[reason]
    assert call.num_calls == attempts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Put the monotonic clock into the test's hands."""
    now = [1000.0]
    monkeypatch.setattr("orchestrator.runtime.s3.retry.time.monotonic", lambda: now[0])
    return now


def test_requests_are_repeated_for_a_minute_after_the_first_failure(clock: list[float]) -> None:
    def pass_seconds() -> None:
        clock[0] += 4.0

    call = Failing(ERRORS["busy"], 1000, pass_seconds)
    with pytest.raises(boto.ClientError):
        repeat(call, "x")
    assert call.num_calls == 16  # at 0, 4, ..., 60 s
    call = Failing(ERRORS["busy"], 15, pass_seconds)
    assert repeat(call, "x") == 16


def test_nothing_is_repeated_after_the_deadline(clock: list[float]) -> None:
    def pass_seconds() -> None:
        clock[0] += 300.0

    call = Failing(ERRORS["damaged"], 1000, pass_seconds)
    with pytest.raises(boto.FlexibleChecksumError):
        repeat(call, "x", "read")
    assert call.num_calls == 4  # of five: the fourth ends after 900 s
    call = Failing(ERRORS["away"], 1000, pass_seconds)
    with pytest.raises(boto.EndpointConnectionError):
        repeat(call, "x", "request", deadline=clock[0] + 500.0)
    assert call.num_calls == 2


def test_the_log_has_attempts_1_2_4_and_8(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        repeat(Failing(ERRORS["busy"], 9), "operation=get key=a")
        repeat(Failing(ERRORS["busy"], 1), "operation=list", "check")  # a person sees its result
    assert caplog.messages == [
        f"event=request_repeated operation=get key=a attempt={number} error=SlowDown"
        for number in (1, 2, 4, 8)
    ]


def test_boto3_itself_repeats_nothing(s3_endpoint: str) -> None:
    for config in (CONFIG, CHECKING):
        assert open_client(config).meta.config.retries == {"mode": "standard", "total_max_attempts": 1}
