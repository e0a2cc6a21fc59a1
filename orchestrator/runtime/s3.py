"""Byte objects in an S3 bucket, through boto3; any endpoint that knows conditional PUT (AWS_ENDPOINT_URL).

Credentials come from boto3's own chain and are never kept here, so that an `S3Blobs` may be pickled to other
processes.
"""

import logging
import os
import random
import threading
import time
from typing import Any

import boto3
import botocore.exceptions
import urllib3
from botocore.config import Config

from orchestrator.blobs import checked_name

_LOG = logging.getLogger(__name__)
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 10},  # the default of 3 dies at a short 503 burst
    connect_timeout=5,
    read_timeout=20,
    request_checksum_calculation="when_supported",
    response_checksum_validation="when_supported",
    max_pool_connections=32,
)
_GET_SECONDS = 600.0  # one object, all attempts together
_GET_ATTEMPTS = 5
_CONFLICT_ATTEMPTS = 10
_OPENING = threading.Lock()  # boto3's session is not thread-safe, its clients are

# What a broken body raises: boto3 retries requests, not the reading of an answer.
_BROKEN = (
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ResponseStreamingError,
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.FlexibleChecksumError,
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
        for attempt in range(1, _GET_ATTEMPTS + 1):
            try:
                answer = self._client().get_object(Bucket=self.bucket, Key=key)
                return _body(answer, deadline)
            except botocore.exceptions.ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise
            except _BROKEN as error:
                kind = type(error).__name__
                if attempt == _GET_ATTEMPTS or time.monotonic() > deadline:
                    raise
                _LOG.warning(
                    "event=get_again uri=%s name=%s attempt=%d error=%s", self.uri, name, attempt, kind
                )
                _sleep(attempt)
        raise AssertionError("the last attempt returns or raises")

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store the object; without `overwrite` return False if the name is taken by other bytes."""
        key = self._key(name)
        if overwrite:
            self._client().put_object(Bucket=self.bucket, Key=key, Body=data)
            return True
        for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
            try:
                self._client().put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
                return True
            except botocore.exceptions.ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    # boto3 may have sent twice because the first answer was lost: then the bytes are ours.
                    return self.get(name) == data
                if _code(error) not in ("ConditionalRequestConflict", "409") or attempt == _CONFLICT_ATTEMPTS:
                    raise
                _sleep(attempt)
        raise AssertionError("the last attempt returns or raises")

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""
        root = f"{self.prefix}/" if self.prefix else ""
        pages = (
            self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=root + prefix)
        )
        return sorted(item["Key"].removeprefix(root) for page in pages for item in page.get("Contents", ()))

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""
        self._client().delete_object(Bucket=self.bucket, Key=self._key(name))

    def check(self) -> None:
        """Raise ValueError if the bucket cannot be listed with the credentials at hand."""
        self.names("probe")

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{checked_name(name)}" if self.prefix else checked_name(name)

    def _client(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            with _OPENING:
                self._opened = (os.getpid(), boto3.session.Session().client("s3", config=_CONFIG))
        return self._opened[1]


def _body(answer: dict[str, Any], deadline: float) -> bytes:
    """Read an answer's body, all of it or an error; `deadline` is on the monotonic clock."""
    with answer["Body"] as body:
        return body.read()


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _sleep(attempt: int) -> None:
    time.sleep(random.uniform(0.0, min(5.0, 0.05 * 2**attempt)))  # full jitter
