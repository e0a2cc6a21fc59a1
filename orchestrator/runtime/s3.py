"""Byte objects in an S3 bucket, through boto3; any endpoint that knows conditional PUT (AWS_ENDPOINT_URL).

Credentials come from boto3's own chain and are never kept here, so that an `S3Blobs` may be pickled to other
processes.
"""

import logging
import os
import random
import threading
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as boto
import botocore.loaders
import botocore.session
import urllib3
from botocore.config import Config

from orchestrator.blobs import Entry, checked_name

_LOG = logging.getLogger(__name__)
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 10},  # the default of 3 dies at a short 503 burst
    connect_timeout=5,
    read_timeout=20,
    request_checksum_calculation="when_supported",
    response_checksum_validation="when_supported",
    max_pool_connections=32,
)
_PREFLIGHT = _CONFIG.merge(Config(retries={"mode": "standard", "total_max_attempts": 2}, read_timeout=10))
_ATTEMPTS = 5  # to read one answer whole, and to get past a 409
_GET_SECONDS = 900.0  # one object, all attempts together
_SLOW_SECONDS = 30.0  # an answer slower than the next line after this time is given up
_SLOW_BYTES_PER_SECOND = 16 * 1024
_FIRST_BYTES, _CHUNK_BYTES = 16, 1 << 18
_OPENING = threading.Lock()  # boto3's session is not thread-safe, its clients are
_LOADER = botocore.loaders.create_loader()  # keeps the service model: 0.02 CPU seconds a client, not 0.1

_TAKEN = ("PreconditionFailed", "412")
_RACED = ("ConditionalRequestConflict", "OperationAborted", "409")
# What a broken body raises: boto3 repeats requests, but not the reading of an answer.
_BROKEN = (
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    boto.ReadTimeoutError,
    boto.FlexibleChecksumError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)


class S3Blobs:
    """Implements `Blobs` under a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        if self.prefix:
            checked_name(self.prefix)
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._opened: tuple[int, Any] | None = None  # (pid, client): a client does not survive a fork

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def get(self, name: str) -> bytes | None:
        """Return the object, or None if there is none; an answer cut short is asked for again."""
        key = self._key(name)
        deadline = time.monotonic() + _GET_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._client().get_object(Bucket=self.bucket, Key=key)
                return _body(answer, deadline)
            except boto.ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise
            except _BROKEN as error:
                if attempt == _ATTEMPTS or time.monotonic() > deadline:
                    raise
                kind = type(error).__name__
                _LOG.warning(
                    "event=get_again uri=%s name=%s attempt=%d error=%s", self.uri, name, attempt, kind
                )
                _back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store the object; without `overwrite` return False if the name is taken by other bytes."""
        key = self._key(name)
        condition = {} if overwrite else {"IfNoneMatch": "*"}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._client().put_object(Bucket=self.bucket, Key=key, Body=data, **condition)
                return True
            except boto.ClientError as error:
                if _code(error) in _TAKEN:
                    # boto3 may have sent twice because the first answer was lost: then the bytes are ours.
                    return self.get(name) == data
                if _code(error) not in _RACED or attempt == _ATTEMPTS:
                    raise
                _back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""
        return [entry.name for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        """Return what `names` returns, with sizes and times of the server's clock."""
        root = f"{self.prefix}/" if self.prefix else ""
        pages = (
            self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=root + prefix)
        )
        return sorted(
            Entry(
                name=item["Key"].removeprefix(root),
                size=item["Size"],
                modified_ms=round(item["LastModified"].timestamp() * 1000),
            )
            for page in pages
            for item in page.get("Contents", ())
        )

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""
        self._client().delete_object(Bucket=self.bucket, Key=self._key(name))

    def check(self, option: str = "--store", *, writes: bool = True) -> None:
        """Raise ValueError if the bucket cannot be written, or does not create objects once."""
        what = f"{option.lstrip('-')}={self.uri}"
        try:
            client = _open(_PREFLIGHT)
            if not writes:
                client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
                return
            # The probe stays: where it lies already, the first answer proves what the second one would.
            created = [_creates(client, self.bucket, self._key("probe")) for _ in range(2)]
        except (boto.BotoCoreError, boto.ClientError, ValueError) as error:
            raise ValueError(f"{what}: {_diagnosis(error, self.bucket, option)}") from None
        if created[1]:
            raise ValueError(
                f"{what}: {_endpoint()} ignores If-None-Match, so writers could overwrite each other; use a "
                f"server that honours it, or a directory with {option}"
            )

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{checked_name(name)}" if self.prefix else checked_name(name)

    def _client(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), _open(_CONFIG))
        return self._opened[1]


def _body(answer: dict[str, Any], deadline: float) -> bytes:
    """Read an answer's body, all of it or an error; `deadline` is on the monotonic clock."""
    started = time.monotonic()
    data = bytearray()
    size = _FIRST_BYTES  # read(n) blocks until n bytes are there, so n follows the speed
    with closing(
        answer["Body"]
    ) as body:  # as a context manager it would yield the stream that verifies nothing
        while chunk := body.read(size):
            data += chunk
            now = time.monotonic()
            seconds = now - started
            too_slow = seconds > _SLOW_SECONDS and len(data) < seconds * _SLOW_BYTES_PER_SECOND
            if too_slow or now > deadline:
                raise TimeoutError(f"{len(data)} bytes in {seconds:.0f} s")
            size = min(2 * size, _CHUNK_BYTES) if seconds < 1 or len(data) > seconds * size else _FIRST_BYTES
    return bytes(data)


def _back_off(attempt: int) -> None:
    time.sleep(random.uniform(0.0, min(5.0, 0.05 * 2**attempt)))  # full jitter


def _open(config: Config) -> Any:
    if _named_endpoint():  # often a plain host, where bucket.host does not resolve
        config = config.merge(Config(s3={"addressing_style": "path"}))
    with _OPENING:
        session = botocore.session.get_session()
        session.register_component("data_loader", _LOADER)
        return boto3.session.Session(botocore_session=session).client("s3", config=config)


def _creates(client: Any, bucket: str, key: str) -> bool:
    """Put an empty object conditionally; False if the server says that the name is taken."""
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*")
    except boto.ClientError as error:
        if _code(error) in _TAKEN + _RACED:
            return False
        raise
    return True


def _code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _diagnosis(error: Exception, bucket: str, option: str) -> str:
    """Say in one line, without secrets, what is wrong with the store and what to do."""
    what = _code(error) if isinstance(error, boto.ClientError) else type(error).__name__
    where = _endpoint()
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
    return f"{where} cannot be used ({what}); see the settings that start with AWS_"


def _named_endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _endpoint() -> str:
    """Return the endpoint for people: without a user name or password."""
    named = _named_endpoint()
    return f"{urlsplit(named).scheme}://{named.rpartition('@')[2].rpartition('//')[2]}" if named else "AWS"
