"""Errors of S3 in the user's words: what is wrong, what to do, and no secret."""

import pickle

import botocore.exceptions as boto
import pytest

from orchestrator.runtime.s3.errors import Diagnosis, Replaced, StoreError, diagnosis, is_forbidden, name_of

ENDPOINT = "http://127.0.0.1:9"
WHERE = f"at {ENDPOINT}"


def refusal(code: str) -> boto.ClientError:
    """Return an answer of the service with an error code."""
    return boto.ClientError({"Error": {"Code": code}}, "PutObject")


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
    ],
    ids=lambda value: name_of(value) if isinstance(value, Exception) else "",
)
def test_an_error_has_a_problem_and_a_way_out(error: Exception, problem: str, way_out: str) -> None:
    assert diagnosis(error, "b", "--data") == Diagnosis(problem, way_out)
    assert str(diagnosis(error, "b", "--data")) == f"{problem}; {way_out}"


def test_only_missing_rights_are_forbidden() -> None:
    assert is_forbidden(refusal("AccessDenied"))
    assert not is_forbidden(refusal("InvalidAccessKeyId"))


def test_a_store_error_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(StoreError("s3://b/x: gone; do that.")))
    assert str(error) == "s3://b/x: gone; do that."
