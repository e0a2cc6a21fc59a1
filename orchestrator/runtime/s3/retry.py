"""Retries of S3 calls: one table of what is repeated, how often and how long, and the loop that reads it.

Calls nest: the requests of a "read" or a "put" are repeated as "request". Objects whose SHA-256 is wrong are
read again by `store.artifacts`, for every kind of store.
"""

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeVar

from orchestrator.runtime.s3.errors import FAULTS, Reason, name_of, reason_of

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How one kind of call is repeated; it fails when both `attempts` and `seconds` are used up."""

    attempts: int  # at least, however long each takes
    seconds: float  # at least, from the first failure on
    repeats: tuple[Reason, ...]  # other reasons fail at once
    limit_seconds: float = math.inf  # at most, over all attempts and the calls within them


Kind = Literal["request", "read", "put", "check"]

RETRIES: dict[Kind, Retry] = {
    # One request and the reading of its answer; a listing is all its pages. A minute outlasts a restart of
    # the endpoint and the refusals of an overloaded one.
    "request": Retry(attempts=10, seconds=60.0, repeats=("away", "busy", "broken")),
    # One object with all its requests. The same wrong checksum again and again is damage at rest.
    "read": Retry(attempts=5, seconds=0.0, repeats=("damaged", "replaced"), limit_seconds=900.0),
    # One object from its first byte. The server refuses all but one of the writers that meet.
    "put": Retry(attempts=5, seconds=0.0, repeats=("raced",)),
    # One request while a person waits: before a sweep, and by the doctor.
    "check": Retry(attempts=2, seconds=0.0, repeats=("away", "busy", "broken")),
}

SLOW_SECONDS = 30.0
SLOW_BYTES_PER_SECOND = 16 * 1024
"""An answer that is slower than this after `SLOW_SECONDS` counts as broken."""


def repeat(call: Callable[[], T], what: str, kind: Kind = "request", deadline: float = math.inf) -> T:
    """Return what `call` returns, repeated as the table has it for `kind`.

    `what` is for the log, `deadline` on the monotonic clock. Raise what the last attempt raised.
    """
    retry = RETRIES[kind]
    started = time.monotonic()
    deadline = min(deadline, started + retry.limit_seconds)
    failing_since: float | None = None
    for attempt in count(1):
        try:
            return call()
        except FAULTS as error:
            now = time.monotonic()
            failing_since = now if failing_since is None else failing_since
            is_over = attempt >= retry.attempts and now - failing_since >= retry.seconds
            if reason_of(error) not in retry.repeats or is_over or now > deadline:
                raise
            if attempt & (attempt - 1) == 0:  # 1, 2, 4, 8: many threads may wait for a minute
                level = logging.DEBUG if kind == "check" else logging.WARNING  # its result is shown anyway
                event = f"event={kind}_repeated {what} attempt={attempt} error={name_of(error)}"
                logger.log(level, "%s", event)
        back_off(attempt)
    raise AssertionError("the last attempt returns or raises")


def deadline_of(kind: Kind) -> float:
    """Return when a call of this kind that begins now has used up its limit, on the monotonic clock."""
    return time.monotonic() + RETRIES[kind].limit_seconds


def back_off(attempt: int) -> None:
    """Wait before the next attempt: a random time up to 0.1 s, doubled with each attempt, at most 5 s."""
    # boto3's own pauses start at 50 ms and are rationed for all threads of a client: too short for an outage.
    time.sleep(random.uniform(0.0, min(5.0, 0.05 * 2**attempt)))
