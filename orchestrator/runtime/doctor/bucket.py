"""A bucket: credentials, an answer, its clock, what may be done in it, and that it creates objects once."""

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

from orchestrator.runtime.doctor.findings import Finding, clock, fail, holding, ok, once, told, warn
from orchestrator.runtime.s3.blobs import S3Blobs, is_created, open_client
from orchestrator.runtime.s3.multipart import credentials_source
from orchestrator.runtime.s3.retry import ABSENT, diagnosis, endpoint, name_of

_FAULTS = (boto.ClientError, boto.BotoCoreError)
_FIRST, _SECOND = b"first", b"second"
_WRITERS = 8
_RACES = "harmless while results repeat (processors); on GPUs run one sweep at a time against this server"


def bucket(what: str, option: str, blobs: S3Blobs, *, writes: bool) -> Iterator[Finding]:
    """Check the bucket that `option` names; without `writes` it need only be readable."""
    try:
        source = credentials_source()
        if source is None:
            raise boto.NoCredentialsError
        asker = _Asker(open_client(), blobs.bucket)
    except (*_FAULTS, ValueError) as error:  # also a profile or an endpoint that cannot be
        yield told(what, diagnosis(error, blobs.bucket, option))
        return
    yield ok(what, f"{blobs.uri} at {endpoint()}, {asker.style}, credentials from {source}")
    root = f"{blobs.prefix}/" if blobs.prefix else ""
    try:
        answer = asker.ask("list_objects_v2", Prefix=root, Delimiter="/")
    except _FAULTS as error:
        yield from asker.clock(f"{what} clock")
        yield told(f"{what} bucket", diagnosis(error, blobs.bucket, option))
        return
    yield ok(f"{what} bucket", f"listed in {1000 * asker.seconds[-1]:.0f} ms")
    yield from asker.clock(f"{what} clock")
    if writes:
        yield from _writes(what, option, asker, f"{root}doctor-{uuid4().hex}")
    else:
        folders = [item["Prefix"].removeprefix(root).rstrip("/") for item in answer.get("CommonPrefixes", ())]
        yield holding(what, folders)


def _writes(what: str, option: str, asker: "_Asker", key: str) -> Iterator[Finding]:
    """Create a probe, try that again with other bytes, read it and remove it."""
    right, keys = "s3:PutObject", (key, f"{key}-race")
    try:
        put = partial(asker.ask, "put_object", Key=key)
        is_once = is_created(put, _FIRST) and not is_created(put, _SECOND)
        num_first = _race(asker, keys[1])
        right = "s3:GetObject"
        got = asker.ask("get_object", Key=key)["Body"].read()
        right = "s3:DeleteObject"
        for name in keys:
            asker.ask("delete_object", Key=name)
    except _FAULTS as error:
        with suppress(*_FAULTS):  # what was put shall not stay because another right is missing
            for name in keys:
                asker.ask("delete_object", Key=name)
        found, _, fix = diagnosis(error, asker.bucket, option).partition("; ")
        yield fail(f"{what} writes", found, f"grant {right} on the prefix" if "forbids" in found else fix)
        return
    if got != (_FIRST if is_once else _SECOND):
        yield fail(f"{what} writes", "an object has other bytes than were put", "keep no data on this server")
        return
    yield ok(
        f"{what} writes", f"created, read and removed probes, {1000 * median(asker.seconds):.0f} ms each"
    )
    if is_once and num_first > 1:
        words = f"refuses to create an object again, but told {num_first} of {_WRITERS} writers at once"
        yield warn(f"{what} once", f"{words} that they were first", _RACES)
    else:
        yield once(what, option, f"{endpoint()} ignores If-None-Match", is_once=is_once)


def read_soon(blobs: S3Blobs, name: str) -> bytes | None:
    """Return an object, or raise `ValueError` soon; `S3Blobs` would be patient for a minute."""
    key = f"{blobs.prefix}/{name}" if blobs.prefix else name
    try:
        data: bytes = open_client().get_object(Bucket=blobs.bucket, Key=key)["Body"].read()
    except _FAULTS as error:
        if name_of(error) in ABSENT:
            return None
        raise ValueError(diagnosis(error, blobs.bucket, "--store")) from None
    return data


def _race(asker: "_Asker", key: str) -> int:
    """Let writers create one object at once; return how many were told that they did."""
    put = partial(asker.ask, "put_object", Key=key)
    with ThreadPoolExecutor(_WRITERS) as threads:
        return sum(threads.map(lambda number: is_created(put, b"%d" % number), range(_WRITERS)))


class _Asker:
    """Asks a bucket, and keeps how long answers took and the time on the last one."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self.seconds: list[float] = []
        self._date = ""

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Call the client's method of that name; raise what it raises."""
        started = time.monotonic()
        try:
            answer: dict[str, Any] = getattr(self.client, operation)(Bucket=self.bucket, **request)
        except boto.ClientError as error:
            answer = error.response
            raise
        finally:
            self.seconds.append(time.monotonic() - started)
            with suppress(UnboundLocalError):  # no answer at all
                self._date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        return answer

    @property
    def style(self) -> str:
        """How addresses name the bucket."""
        is_path = (self.client.meta.config.s3 or {}).get("addressing_style") == "path"
        return "path style" if is_path else "virtual-host style"

    def clock(self, name: str) -> Iterator[Finding]:
        """Yield how far off the clock of the last answer was, if there was one."""
        if self._date:
            ahead = parsedate_to_datetime(self._date).timestamp() - time.time()
            yield clock(name, ahead, "the endpoint's clock")
