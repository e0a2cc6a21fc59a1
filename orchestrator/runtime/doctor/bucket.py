"""Checks of a bucket: credentials, an answer, its clock, rights, and that it creates objects only once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from statistics import median
from typing import Any
from uuid import uuid4

import botocore.exceptions as boto

from orchestrator.runtime.doctor.findings import Finding, clock, fail, holding, ok, once, warn
from orchestrator.runtime.s3.blobs import S3Blobs, is_created, request
from orchestrator.runtime.s3.client import credentials_source, endpoint, open_client
from orchestrator.runtime.s3.errors import ABSENT, FAULTS, StoreError, diagnosis, is_forbidden, name_of

_FIRST, _SECOND = b"first", b"second"
_WRITERS = 8
_RACES = "harmless while results repeat (processors); on GPUs run one sweep at a time against this server"


def bucket(what: str, option: str, blobs: S3Blobs, *, writes: bool) -> Iterator[Finding]:
    """Check the bucket that `option` names; without `writes` it need only be readable."""
    try:
        source = credentials_source()
        if source is None:
            raise boto.NoCredentialsError
        client = _Client(open_client(), blobs.bucket)
    except (*FAULTS, ValueError) as error:  # also a profile or an endpoint that cannot be
        yield fail(what, *diagnosis(error, blobs.bucket, option))
        return
    yield ok(what, f"{blobs.uri} at {endpoint()}, {client.style}, credentials from {source}")
    root = blobs.root
    try:
        answer = client.request("list_objects_v2", Prefix=root, Delimiter="/")
    except FAULTS as error:
        yield from client.clock(f"{what} clock")
        yield fail(f"{what} bucket", *diagnosis(error, blobs.bucket, option))
        return
    yield ok(f"{what} bucket", f"listed in {1000 * client.seconds[-1]:.0f} ms")
    yield from client.clock(f"{what} clock")
    if writes:
        yield from _writes(what, option, client, f"{root}doctor-{uuid4().hex}")
    else:
        folders = [item["Prefix"].removeprefix(root).rstrip("/") for item in answer.get("CommonPrefixes", ())]
        yield holding(what, folders)


def _writes(what: str, option: str, client: "_Client", key: str) -> Iterator[Finding]:
    """Create a probe, try that again with other bytes, read it and remove it."""
    right, keys = "s3:PutObject", (key, f"{key}-race")
    try:
        put = partial(client.request, "put_object", Key=key)
        is_once = is_created(put, _FIRST) and not is_created(put, _SECOND)
        num_first = _race(client, keys[1])
        right = "s3:GetObject"
        data = client.request("get_object", Key=key)["Body"].read()
        right = "s3:DeleteObject"
        for name in keys:
            client.request("delete_object", Key=name)
    except FAULTS as error:
        with suppress(*FAULTS):  # a probe must not stay because another right is missing
            for name in keys:
                client.request("delete_object", Key=name)
        problem, way_out = diagnosis(error, client.bucket, option)
        grant = f"grant {right} on the prefix"
        yield fail(f"{what} writes", problem, grant if is_forbidden(error) else way_out)
        return
    if data != (_FIRST if is_once else _SECOND):
        yield fail(f"{what} writes", "an object has other bytes than were put", "keep no data on this server")
        return
    yield ok(
        f"{what} writes", f"created, read and removed probes, {1000 * median(client.seconds):.0f} ms each"
    )
    if is_once and num_first > 1:
        rule = "refuses to create an object again, but accepted"
        yield warn(
            f"{what} once", f"{rule} {num_first} of {_WRITERS} simultaneous writers as the first", _RACES
        )
    else:
        yield once(what, option, f"{endpoint()} ignores If-None-Match", is_once=is_once)


def read_soon(blobs: S3Blobs, name: str) -> bytes | None:
    """Return an object, or None if there is none; raise `StoreError` within two attempts."""
    try:
        answer = request(open_client(), blobs.bucket, "get_object", Key=blobs.root + name)
        data: bytes = answer["Body"].read()
    except FAULTS as error:
        if name_of(error) in ABSENT:
            return None
        raise StoreError(str(diagnosis(error, blobs.bucket, "--store"))) from None
    return data


def _race(client: "_Client", key: str) -> int:
    """Let writers create one object at once; return how many the server accepted as the first."""
    put = partial(client.request, "put_object", Key=key)
    with ThreadPoolExecutor(_WRITERS) as threads:
        return sum(threads.map(lambda number: is_created(put, b"%d" % number), range(_WRITERS)))


class _Client:
    """A client of one bucket that keeps the seconds of every request and the server's time of the last."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self.seconds: list[float] = []
        self._date = ""

    def request(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call the client's method of that name; raise what it raises."""
        started = time.monotonic()
        answer: dict[str, Any] = {}
        try:
            answer = request(self.client, self.bucket, operation, **arguments)
        except boto.ClientError as error:
            answer = error.response
            raise
        finally:
            self.seconds.append(time.monotonic() - started)
            self._date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", self._date)
        return answer

    @property
    def style(self) -> str:
        """The style of the bucket's addresses."""
        is_path = (self.client.meta.config.s3 or {}).get("addressing_style") == "path"
        return "path style" if is_path else "virtual-host style"

    def clock(self, name: str) -> Iterator[Finding]:
        """Yield a judgement of the server's clock at its last answer, if there was one."""
        if self._date:
            ahead = parsedate_to_datetime(self._date).timestamp() - time.time()
            yield clock(name, ahead, "the endpoint's clock")
