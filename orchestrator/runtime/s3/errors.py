"""S3 errors: the reason why a call failed, which `retry` repeats by, and the cause and way out for people."""

import os
import re
from typing import Literal, NamedTuple

import botocore.exceptions as boto
import urllib3
from botocore.parsers import ResponseParserError

from orchestrator.runtime.s3.client import endpoint, endpoint_setting
from orchestrator.runtime.words import sentences

# away: no connection or no answer. busy: 5xx, 429 or the service's own word for it. broken: an answer cut
# short, too slow or unreadable. damaged: an answer with another checksum than the server's. raced: another
# writer was at work on the name. replaced: the object changed while it was read. final: no retry can help.
Reason = Literal["away", "busy", "broken", "damaged", "raced", "replaced", "final"]

TAKEN = ("PreconditionFailed", "412")
ABSENT = ("NoSuchKey", "404")
_RACED = ("ConditionalRequestConflict", "OperationAborted", "409")
_BUSY = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded")
_AWAY = (boto.HTTPClientError, boto.ConnectionError, ConnectionError)
_BROKEN = (boto.IncompleteReadError, urllib3.exceptions.HTTPError, ResponseParserError, TimeoutError)
_CREDENTIALS_REFUSED = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthFailure",
)
_CREDENTIALS_UNUSABLE = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "CredentialRetrievalError",
)


_NOT_IMPLEMENTED = 501
# Answers of servers that refuse the checksums that boto3 adds by default: in a header, or behind the body.
_ABOUT_CHECKSUMS = re.compile(
    r"checksum|trailer|chunked|content-sha256|NotImplemented|MissingContentLength", re.I
)
_CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


class Replaced(Exception):
    """The object is another one than when its reading began."""


class StoreError(OSError):
    """A bucket that cannot be read or written: the object, the cause and the way out in one line."""


STREAM_FAULTS = (*_AWAY, *_BROKEN, boto.FlexibleChecksumError)
"""What reading an answer's body raises where another request may succeed."""
FAULTS = (boto.ClientError, boto.BotoCoreError, *STREAM_FAULTS, Replaced)
"""All that a call through this room raises, besides errors of the caller."""


class Diagnosis(NamedTuple):
    """An error in the user's words: `problem` is a clause, `way_out` an imperative without its full stop."""

    problem: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.way_out}"


def name_of(error: Exception) -> str:
    """Return the service's code of an error, else its class."""
    if isinstance(error, boto.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def reason_of(error: Exception) -> Reason:
    """Classify an error by what may help against it."""
    if isinstance(error, boto.ClientError):
        return _reason_of_refusal(error)
    kinds: tuple[tuple[Reason, type[Exception] | tuple[type[Exception], ...]], ...] = (
        ("damaged", boto.FlexibleChecksumError),
        ("replaced", Replaced),
        ("broken", _BROKEN),
        ("away", _AWAY),
    )
    return next((reason for reason, kind in kinds if isinstance(error, kind)), "final")


def _reason_of_refusal(error: boto.ClientError) -> Reason:
    if name_of(error) in _RACED:
        return "raced"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == _NOT_IMPLEMENTED:
        return "final"
    return "busy" if status == 429 or status >= 500 or name_of(error) in _BUSY else "final"


def diagnosis(error: Exception, bucket: str, option: str) -> Diagnosis:
    """Return, without secrets, what is wrong with the bucket that `option` names and what to do about it."""
    code, where = name_of(error), endpoint()
    said = f"{code}: {words}" if (words := message_of(error)) else code
    if code == "NoSuchBucket":
        return Diagnosis(
            f"bucket {bucket} does not exist at {where}", f"create it or name another with {option}"
        )
    if code == "RequestTimeTooSkewed":
        return Diagnosis(f"{where} finds this machine's clock wrong ({code})", "set the clock")
    if code in ("AccessDenied", "AllAccessDisabled", "403"):
        return Diagnosis(f"{where} forbids it ({said})", "grant s3:ListBucket, s3:GetObject and s3:PutObject")
    if code in _CREDENTIALS_REFUSED:
        return Diagnosis(
            f"{where} refuses the credentials ({code})", "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if code in _CREDENTIALS_UNUSABLE:
        return Diagnosis(
            f"no usable credentials ({code})",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
        )
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return Diagnosis(
            f"no answer from {where} ({code})", f"start the server or correct {endpoint_setting()}"
        )
    if reason_of(error) == "final":
        return Diagnosis(f"{where} cannot be used ({said})", _settings_to_try(f"{code} {words}"))
    return Diagnosis(f"{where} is overloaded or breaks its answers ({said})", "try again later")


def message_of(error: Exception) -> str:
    """Return the server's own words for an error, empty if it gave none."""
    if not isinstance(error, boto.ClientError):
        return ""
    words = str(error.response.get("Error", {}).get("Message") or "")
    return sentences(words) if words not in ("Unknown", "None") else ""


def _settings_to_try(words: str) -> str:
    """Return the settings that may help against a refused request."""
    if _ABOUT_CHECKSUMS.search(words) and os.environ.get(_CHECKSUMS[0]) != "when_required":
        wanted = " and ".join(f"{name}=when_required" for name in _CHECKSUMS)
        return f"if this server takes no checksums, set {wanted}"
    return "see the settings that start with AWS_"


def is_forbidden(error: Exception) -> bool:
    """Return whether the endpoint refused the credentials' rights, not the credentials."""
    return name_of(error) in ("AccessDenied", "AllAccessDisabled", "403")
