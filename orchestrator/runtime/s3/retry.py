"""What goes wrong on the way to an S3 endpoint: what passes by itself, and how the rest is told."""

import logging
import math
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import botocore.exceptions as boto
import urllib3
from botocore.parsers import ResponseParserError

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS = 5  # at least, however long each of them takes
# Of failures in a row. boto3's own attempts are no measure: after a reset they wait 50 ms, doubled each time,
# with full jitter (13 s in all for ten attempts), and they are rationed for all threads of a client.
PATIENCE_SECONDS = 60.0

TAKEN = ("PreconditionFailed", "412")
RACED = ("ConditionalRequestConflict", "OperationAborted", "409")
ABSENT = ("NoSuchKey", "404")
_BUSY = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded")
# What a broken answer raises: boto3 repeats requests, but not the reading of an answer.
BROKEN = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
    urllib3.exceptions.HTTPError,
    ResponseParserError,
    ConnectionError,
    TimeoutError,
)
FAULTS = (boto.ClientError, boto.BotoCoreError, *BROKEN)


class StoreError(OSError):
    """A bucket that cannot be read or written: which object, why and what to do, in one line."""


def patiently(call: Callable[[], T], what: str, deadline: float = math.inf) -> T:
    """Return what `call` returns; repeat it while the endpoint is away, busy or breaks its answers.

    `what` is for the log, `deadline` on the monotonic clock. Raises what the last attempt raised: at once if
    repeating cannot help, else after ATTEMPTS attempts and PATIENCE_SECONDS or at the deadline.
    """
    attempt, failing_since = 0, None
    while True:
        attempt += 1
        try:
            return call()
        except FAULTS as error:
            now = time.monotonic()
            failing_since = failing_since or now
            # The same wrong checksum again and again is damage at rest.
            is_over = now - failing_since >= PATIENCE_SECONDS or isinstance(error, boto.FlexibleChecksumError)
            if not _passes(error) or (attempt >= ATTEMPTS and is_over) or now > deadline:
                raise
            if attempt & (attempt - 1) == 0:  # 1, 2, 4, 8: many threads may wait for a minute
                _LOG.warning("event=s3_again %s attempt=%d error=%s", what, attempt, name_of(error))
        back_off(attempt)


def back_off(attempt: int) -> None:
    """Wait before the next attempt, at most 5 s."""
    time.sleep(random.uniform(0.0, min(5.0, 0.05 * 2**attempt)))  # full jitter


def name_of(error: Exception) -> str:
    """Return the service's code of an error, else its class."""
    if isinstance(error, boto.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _passes(error: Exception) -> bool:
    if not isinstance(error, boto.ClientError):
        return isinstance(error, BROKEN)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status == 429 or status >= 500 or name_of(error) in _BUSY


def diagnosis(error: Exception, bucket: str, option: str) -> str:
    """Say in one line, without secrets, what is wrong with the bucket named by `option` and what to do."""
    what, where = name_of(error), endpoint()
    if what == "NoSuchBucket":
        return f"bucket {bucket} does not exist at {where}; create it or name another with {option}"
    if what == "RequestTimeTooSkewed":
        return f"{where} says that this machine's clock is wrong ({what}); set the clock"
    if what in ("AccessDenied", "AllAccessDisabled", "403"):
        return f"{where} forbids it ({what}); grant s3:ListBucket, s3:GetObject and s3:PutObject"
    if what in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthFailure"):
        return (
            f"{where} refuses the credentials ({what}); correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if what in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "CredentialRetrievalError",
    ):
        return (
            f"no usable credentials ({what}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
        )
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return f"no answer from {where} ({what}); start the server or correct AWS_ENDPOINT_URL"
    if _passes(error) or what in RACED:
        return f"{where} is overloaded or breaks its answers ({what}); try again later"
    return f"{where} cannot be used ({what}); see the settings that start with AWS_"


def named_endpoint() -> str:
    """Return the endpoint that the environment names, or an empty string."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def endpoint() -> str:
    """Return the endpoint for people: without a user name or password."""
    named = named_endpoint()
    return f"{urlsplit(named).scheme}://{named.rpartition('@')[2].rpartition('//')[2]}" if named else "AWS"
