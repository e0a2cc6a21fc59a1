"""Byte objects in an S3 bucket, through boto3; any endpoint with conditional PUT (AWS_ENDPOINT_URL).

Credentials come from boto3's own chain and are never kept here, so that an `S3Blobs` may be pickled to other
processes. `transfer` moves the bytes, `retry` repeats.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import botocore.exceptions as boto

from orchestrator.config.base import Refused
from orchestrator.runtime.s3 import multipart
from orchestrator.runtime.s3.client import CONFIG, endpoint, open_client
from orchestrator.runtime.s3.errors import ABSENT, FAULTS, TAKEN, StoreError, diagnosis, name_of, reason_of
from orchestrator.runtime.s3.retry import repeat
from orchestrator.runtime.s3.transfer import Place, download, read, upload
from orchestrator.store.blobs import Entry, Unfinished, checked_name, checked_prefix


class S3Blobs:
    """Implements `Blobs` and `Maintenance` under a prefix of a bucket.

    Every method but `check` raises `StoreError` for what the bucket refuses, or still refuses after retries.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        if self.prefix:
            checked_name(self.prefix)
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._opened: tuple[int, Any] | None = None  # (pid, client): a client does not survive a fork

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def root(self) -> str:
        """What the keys of all objects start with."""
        return f"{self.prefix}/" if self.prefix else ""

    def get(self, name: str) -> bytes | None:
        """Return the object, or None if there is none; an answer cut short is requested again."""
        place = self._place(name)
        with self._explained(name), self._none_if_absent():
            return read(place)
        return None

    def fill(self, name: str, buffers: Sequence[memoryview]) -> int | None:
        """Read the object into the buffers if it is as long as they are; return its size, or None."""
        place, length = self._place(name), sum(map(len, buffers))
        with self._explained(name), self._none_if_absent():
            return download(place, lambda size: buffers if size == length else None)
        return None

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store the object; without `overwrite` return False if the name is taken by other bytes."""
        place = self._place(name)
        condition = {} if overwrite else {"IfNoneMatch": "*"}

        def once() -> bool:
            try:
                upload(place, data, **condition)
            except boto.ClientError as error:
                # It may have been sent twice because the first answer was lost: then the bytes are ours.
                if name_of(error) in TAKEN:
                    return self.get(name) == data
                if name_of(error) != "NoSuchUpload" or self.get(name) != data:
                    raise
            return True

        with self._explained(name):
            return repeat(once, f"operation=put {place}", "put")

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""
        return [entry.name for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        """Return what `names` returns, with sizes and times of the server's clock."""
        where = {"Bucket": self.bucket, "Prefix": self.root + checked_prefix(prefix)}
        pager = self._client().get_paginator("list_objects_v2")
        with self._explained(prefix):
            pages = repeat(
                lambda: list(pager.paginate(**where)), f"operation=list uri={self.uri} prefix={prefix}"
            )
        return sorted(
            Entry(
                name=item["Key"].removeprefix(self.root),
                size=item["Size"],
                modified_ms=round(item["LastModified"].timestamp() * 1000),
            )
            for page in pages
            for item in page.get("Contents", ())
        )

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""
        place = self._place(name)
        with self._explained(name):
            repeat(lambda: place.ask("delete_object"), f"operation=delete {place}")

    def check(self, option: str = "--store", *, writes: bool = True) -> None:
        """Raise `Refused` if the bucket is unreadable or, with `writes`, does not create objects once."""
        field = option.lstrip("-")
        try:
            ask = partial(request, open_client(), self.bucket)
            if not writes:
                ask("list_objects_v2", Prefix=self.prefix, MaxKeys=1)
                return
            # The probe stays: where it lies already, the first answer proves what the second one would.
            put = partial(ask, "put_object", Key=self._key("probe"))
            created = [is_created(put, b"") for _ in range(2)]
        except (*FAULTS, ValueError) as error:
            problem, way_out = diagnosis(error, self.bucket, option)
            raise Refused(field, self.uri, f"cannot be used: {problem}", way_out) from None
        if created[1]:
            raise Refused(
                field,
                self.uri,
                f"cannot be used: {endpoint()} ignores If-None-Match, so writers could overwrite each other",
                f"use a server that honours it, or a directory with {option}",
            )

    def unfinished(self) -> list[Unfinished]:
        """Return the uploads in parts that no writer has completed, those that go on now included."""
        with self._explained(""):
            return multipart.pending(self._client(), self.bucket, self.root)

    def discard(self, write: Unfinished) -> None:
        """Abort an upload; its writer fails, if there is one still."""
        with self._explained(write.name):
            multipart.abort(self._client(), self.bucket, self.root, write)

    def _key(self, name: str) -> str:
        return self.root + checked_name(name)

    def _place(self, name: str) -> Place:
        key = self._key(name)  # a wrong name is refused before a client is opened
        return Place(self._client(), self.bucket, key)

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
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
            self._opened = (os.getpid(), open_client(CONFIG))
        return self._opened[1]


def request(client: Any, bucket: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """Call the client's method of that name for a bucket while a person waits; raise what boto3 raises."""
    return repeat(
        lambda: getattr(client, operation)(Bucket=bucket, **arguments),
        f"operation={operation} bucket={bucket}",
        "check",
    )


def is_created(put: Callable[..., Any], data: bytes) -> bool:
    """Have `put` create one object; return False if the server answers that there is one already."""
    try:
        put(Body=data, IfNoneMatch="*")
    except boto.ClientError as error:
        if name_of(error) in TAKEN or reason_of(error) == "raced":
            return False
        raise
    return True
