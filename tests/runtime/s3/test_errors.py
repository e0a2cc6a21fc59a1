"""Errors of S3 in the user's words: what is wrong, what to do, and no secret."""

import pickle

import botocore.exceptions as boto
import pytest

from orchestrator.runtime.s3.errors import Diagnosis, Replaced, StoreError, diagnosis, is_forbidden, name_of

ENDPOINT = "http://127.0.0.1:9"
WHERE = f"at {ENDPOINT}"


def refusal(code: str, message: str = "", status: int = 400) -> boto.ClientError:
    """Return an answer of the service with an error code."""
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, "PutObject")


CHECKSUMS = (
    "if this server takes no checksums, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")


@pytest.mark.parametrize(
    ("error", "problem", "way_out"),
    [
        (
            refusal("NoSuchBucket"),
            f"bucket b does not exist {WHERE}",
            "create it or name another with --data",
        ),
        (
            refusal("AccessDenied"),
            f"{ENDPOINT} forbids it (AccessDenied)",
            "grant s3:ListBucket, s3:GetObject and s3:PutObject",
        ),
        (
            refusal("SignatureDoesNotMatch"),
            f"{ENDPOINT} refuses the credentials (SignatureDoesNotMatch)",
            "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        (
            boto.NoCredentialsError(),
            "no usable credentials (NoCredentialsError)",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
        ),
        (
            boto.ConnectTimeoutError(endpoint_url=ENDPOINT),
            f"no answer from {ENDPOINT} (ConnectTimeoutError)",
            "start the server or correct AWS_ENDPOINT_URL",
        ),
        (
            refusal("RequestTimeTooSkewed"),
            f"{ENDPOINT} finds this machine's clock wrong (RequestTimeTooSkewed)",
            "set the clock",
        ),
        (
            refusal("SlowDown"),
            f"{ENDPOINT} is overloaded or breaks its answers (SlowDown)",
            "try again later",
        ),
        (Replaced(), f"{ENDPOINT} is overloaded or breaks its answers (Replaced)", "try again later"),
        (
            refusal("MethodNotAllowed"),
            f"{ENDPOINT} cannot be used (MethodNotAllowed)",
            "see the settings that start with AWS_",
        ),
        (
            refusal("AccessDenied", "User u may not\n perform s3:PutObject."),
            f"{ENDPOINT} forbids it (AccessDenied: User u may not perform s3:PutObject)",
            "grant s3:ListBucket, s3:GetObject and s3:PutObject",
        ),
        (
            refusal("InvalidArgument", "Unsupported header 'x-amz-checksum-crc32'."),
            f"{ENDPOINT} cannot be used (InvalidArgument: Unsupported header 'x-amz-checksum-crc32')",
            CHECKSUMS,
        ),
        (
            refusal("NotImplemented", "A header you provided implies what is not here.", 501),
            f"{ENDPOINT} cannot be used (NotImplemented: A header you provided implies what is not here)",
            CHECKSUMS,
        ),
        (
            refusal("InternalError", "Try again.", 500),
            f"{ENDPOINT} is overloaded or breaks its answers (InternalError: Try again)",
            "try again later",
        ),
    ],
    ids=lambda value: name_of(value) if isinstance(value, Exception) else "",
)
def test_an_error_has_a_problem_and_a_way_out(error: Exception, problem: str, way_out: str) -> None:
    assert diagnosis(error, "b", "--data") == Diagnosis(problem, way_out)
    assert str(diagnosis(error, "b", "--data")) == f"{problem}; {way_out}"


def test_who_has_switched_checksums_off_is_not_advised_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    error = refusal("InvalidRequest", "Checksum missing")
    assert diagnosis(error, "b", "--data").way_out == "see the settings that start with AWS_"


def test_only_missing_rights_are_forbidden() -> None:
    assert is_forbidden(refusal("AccessDenied"))
    assert not is_forbidden(refusal("InvalidAccessKeyId"))


def test_a_store_error_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(StoreError("s3://b/x: gone; do that.")))
    assert str(error) == "s3://b/x: gone; do that."
