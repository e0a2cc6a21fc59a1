"""Byte objects in an S3 bucket, through boto3; any endpoint that knows conditional PUT (AWS_ENDPOINT_URL).

Credentials come from boto3's own chain and are never kept here, so that an `S3Blobs` may be pickled to other
processes. `transfer` moves the bytes, `retry` knows what to repeat.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import boto3
import botocore.exceptions as boto
import botocore.loaders
import botocore.session
from botocore.config import Config

from orchestrator.runtime.s3.retry import (
    ABSENT,
    ATTEMPTS,
    FAULTS,
    RACED,
    TAKEN,
    StoreError,
    back_off,
    diagnosis,
    endpoint,
    name_of,
    named_endpoint,
    patiently,
)
from orchestrator.runtime.s3.transfer import Place, download, read, upload
from orchestrator.store.blobs import Entry, checked_name, checked_prefix

_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 3},  # at once; `patiently` is for what lasts
    connect_timeout=5,
    read_timeout=20,
    request_checksum_calculation="when_supported",
    response_checksum_validation="when_supported",
    max_pool_connections=32,
)
# People wait for the answer.
PREFLIGHT = _CONFIG.merge(Config(retries={"mode": "standard", "total_max_attempts": 2}, read_timeout=10))
_OPENING = threading.Lock()  # boto3's session is not thread-safe, its clients are
_LOADER = botocore.loaders.create_loader()  # keeps the service model: 0.02 CPU seconds a client, not 0.1


class S3Blobs:
    """Implements `Blobs` under a prefix of a bucket; what the bucket refuses for good raises `StoreError`."""

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
        place = self._place(name)
        with self._told(name), self._none_if_absent():
            return read(place)
        return None

    def fill(self, name: str, buffers: Sequence[memoryview]) -> int | None:
        """Read the object into the buffers if it is as long as they are; return its size, or None."""
        place, length = self._place(name), sum(map(len, buffers))
        with self._told(name), self._none_if_absent():
            return download(place, lambda size: buffers if size == length else None)
        return None

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store the object; without `overwrite` return False if the name is taken by other bytes."""
        place = self._place(name)
        condition = {} if overwrite else {"IfNoneMatch": "*"}
        with self._told(name):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    upload(place, data, **condition)
                    return True
                except boto.ClientError as error:
                    what = name_of(error)
                    # It may have been sent twice because the first answer was lost: then the bytes are ours.
                    if what in TAKEN:
                        return self.get(name) == data
                    if what == "NoSuchUpload" and self.get(name) == data:
                        return True
                    if what not in RACED or attempt == ATTEMPTS:
                        raise
                back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""
        return [entry.name for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        """Return what `names` returns, with sizes and times of the server's clock."""
        root = f"{self.prefix}/" if self.prefix else ""
        where = {"Bucket": self.bucket, "Prefix": root + checked_prefix(prefix)}
        pager = self._client().get_paginator("list_objects_v2")
        with self._told(prefix):
            pages = patiently(
                lambda: list(pager.paginate(**where)), f"operation=list uri={self.uri} prefix={prefix}"
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
        place = self._place(name)
        with self._told(name):
            patiently(lambda: place.ask("delete_object"), f"operation=delete {place}")

    def check(self, option: str = "--store", *, writes: bool = True) -> None:
        """Raise ValueError if the bucket cannot be written, or does not create objects once."""
        what = f"{option.lstrip('-')}={self.uri}"
        try:
            client = open_client()
            if not writes:
                client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
                return
            # The probe stays: where it lies already, the first answer proves what the second one would.
            put = partial(client.put_object, Bucket=self.bucket, Key=self._key("probe"))
            created = [is_created(put, b"") for _ in range(2)]
        except (boto.BotoCoreError, boto.ClientError, ValueError) as error:
            raise ValueError(f"{what}: {diagnosis(error, self.bucket, option)}") from None
        if created[1]:
            raise ValueError(
                f"{what}: {endpoint()} ignores If-None-Match, so writers could overwrite each other; use a "
                f"server that honours it, or a directory with {option}"
            )

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{checked_name(name)}" if self.prefix else checked_name(name)

    def _place(self, name: str) -> Place:
        key = self._key(name)  # a wrong name is refused before a client is opened
        return Place(self._client(), self.bucket, key)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what boto3 raises into one line that crosses process borders."""
        try:
            yield
        except FAULTS as error:
            reason = diagnosis(error, self.bucket, "--store or --data")
            raise StoreError(f"{self.uri}/{name}: {reason}; then run the same command again.") from error

    @staticmethod
    @contextmanager
    def _none_if_absent() -> Iterator[None]:
        try:
            yield
        except boto.ClientError as error:
            if name_of(error) not in ABSENT:
                raise

    def _client(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_client(_CONFIG))
        return self._opened[1]


def open_client(config: Config = PREFLIGHT) -> Any:
    """Return a boto3 client that addresses buckets as the endpoint wants it."""
    if named_endpoint():  # often a plain host, where bucket.host does not resolve
        config = config.merge(Config(s3={"addressing_style": "path"}))
    with _OPENING:
        session = botocore.session.get_session()
        session.register_component("data_loader", _LOADER)
        return boto3.session.Session(botocore_session=session).client("s3", config=config)


def is_created(put: Callable[..., Any], data: bytes) -> bool:
    """Have `put` create one object; False if the server says that there is one."""
    try:
        put(Body=data, IfNoneMatch="*")
    except boto.ClientError as error:
        if name_of(error) in TAKEN + RACED:
            return False
        raise
    return True
