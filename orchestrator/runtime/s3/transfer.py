"""The bytes of one object. A read is one stream, and ranged requests beside it where that stream is slow; a
large write goes in parts. Threads end with the call that started them.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import botocore.exceptions as boto

from orchestrator.runtime.s3.retry import ABSENT, ATTEMPTS, BROKEN, FAULTS, TAKEN, name_of, patiently
from orchestrator.runtime.s3.stream import Stream
from orchestrator.store.blobs import blank

_LOG = logging.getLogger(__name__)

LARGE_BYTES = 16 << 20  # up to this size an object is one request
PART_BYTES = 8 << 20
HELPERS = 3  # ranged requests beside the first stream
UPLOADERS = 4
_GET_SECONDS = 900.0  # one object, all attempts together

Buffers = Sequence[memoryview]


@dataclass(frozen=True)
class Place:
    """One object and the client that reaches it."""

    client: Any
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"bucket={self.bucket} key={self.key}"

    def ask(self, operation: str, **more: Any) -> dict[str, Any]:
        """Call the client's method of that name for this object."""
        return getattr(self.client, operation)(Bucket=self.bucket, Key=self.key, **more)


class _Replaced(Exception):
    """The object is another one than when its reading began."""


def read(place: Place) -> bytes:
    """Return the object's bytes, as they were at one moment; the last error if they cannot be had."""
    held = [blank(0)]

    def room(size: int) -> Buffers:
        held[0] = blank(size)
        return [held[0].getbuffer()]

    size = download(place, room)
    data = held[0].getvalue()
    assert len(data) == size, "a view is still about"
    return data


def download(place: Place, room: Callable[[int], Buffers | None]) -> int:
    """Read the object into what `room` returns for its size; return the size.

    Where `room` returns None nothing is read. The buffers hold what the object was at one moment.
    """
    deadline = time.monotonic() + _GET_SECONDS

    def first() -> _Reading | int:
        answer = place.ask("get_object")
        size = answer["ContentLength"]
        buffers = room(size)
        with ExitStack() as unless_needed:
            unless_needed.callback(answer["Body"].close)
            if buffers is None:
                return size
            reading = _Reading(place, answer, buffers, deadline)
            if size <= LARGE_BYTES:
                reading.all_at_once()
                return size
            unless_needed.pop_all()
            return reading

    for attempt in range(1, ATTEMPTS + 1):
        got = patiently(first, f"operation=get {place}", deadline)
        if isinstance(got, int):
            return got
        try:
            got.in_parts()
            return got.size
        except (_Replaced, boto.FlexibleChecksumError) as error:
            _LOG.warning("event=read_anew %s attempt=%d reason=%s", place, attempt, type(error).__name__)
    raise TimeoutError(f"the object changed in {ATTEMPTS} readings")


def upload(place: Place, data: bytes, **condition: str) -> None:
    """Store the object, whole or not at all; an upload in parts that fails leaves none of them.

    What the condition refuses raises `ClientError`; so does a second look at an upload whose answer was lost.
    """
    if len(data) <= LARGE_BYTES:
        patiently(lambda: place.ask("put_object", Body=data, **condition), f"operation=put {place}")
        return
    begun = patiently(
        lambda: place.ask("create_multipart_upload", ChecksumAlgorithm="CRC32"), f"operation=begin {place}"
    )
    upload_id = begun["UploadId"]

    def send(start: int) -> dict[str, Any]:
        return _send(place, upload_id, start // PART_BYTES + 1, data[start : start + PART_BYTES])

    try:
        with ThreadPoolExecutor(UPLOADERS) as pool:
            parts = list(pool.map(send, range(0, len(data), PART_BYTES)))
        what = {"UploadId": upload_id, "MultipartUpload": {"Parts": parts}, **condition}
        patiently(lambda: place.ask("complete_multipart_upload", **what), f"operation=complete {place}")
    except BaseException:
        _abort(place, upload_id)
        raise


def _send(place: Place, upload_id: str, number: int, data: bytes) -> dict[str, Any]:
    """Send one part; return what completing wants to know of it."""
    what = {"UploadId": upload_id, "PartNumber": number, "ChecksumAlgorithm": "CRC32"}
    answer = patiently(
        lambda: place.ask("upload_part", Body=data, **what), f"operation=put_part part={number} {place}"
    )
    return {"PartNumber": number} | {
        name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer
    }


def _abort(place: Place, upload_id: str) -> None:
    try:
        place.ask("abort_multipart_upload", UploadId=upload_id)
    except FAULTS as error:
        if name_of(error) != "NoSuchUpload":  # completed after all, its answer was lost
            _LOG.warning("event=upload_left %s upload=%s error=%s", place, upload_id, name_of(error))


class _Reading:
    """An object on its way into buffers, from its first answer on."""

    def __init__(self, place: Place, answer: dict[str, Any], buffers: Buffers, deadline: float) -> None:
        self.size: int = answer["ContentLength"]
        self._place, self._answer, self._buffers, self._deadline = place, answer, buffers, deadline
        self._left = deque(range(0, self.size, PART_BYTES))  # beginnings of parts that nobody has taken

    def all_at_once(self) -> None:
        """Read the first answer."""
        stream = Stream(self._answer["Body"], self._deadline)
        stream.fill(self._buffers)
        stream.end()

    def in_parts(self) -> None:
        """Read the first answer from the front and, if it is slow, ranges from the end.

        A part that fails for good, or another object in this one's place, raises.
        """
        helpers: list[Future[None]] = []
        with ThreadPoolExecutor(HELPERS) as pool:

            def get_help() -> None:
                if not helpers:
                    helpers.extend(pool.submit(self._by_ranges) for _ in range(HELPERS))

            try:
                self._from_the_front(get_help)
                self._by_ranges()
                for helper in helpers:
                    helper.result()
            finally:
                self._left.clear()  # after an error nobody takes another part

    def _from_the_front(self, get_help: Callable[[], None]) -> None:
        """Read part after part from the first answer, until none is left or the answer breaks."""
        with closing(self._answer["Body"]) as body:
            stream = Stream(body, self._deadline)
            while (start := self._take(self._left.popleft)) is not None:
                try:
                    stream.fill(self._part(start), get_help)
                except BROKEN as error:
                    _LOG.warning("event=stream_broken %s error=%s", self._place, name_of(error))
                    self._left.append(start)
                    get_help()
                    return
            if stream.received == self.size:
                stream.end()

    def _by_ranges(self) -> None:
        while (start := self._take(self._left.pop)) is not None:
            what = f"operation=get_part start={start} {self._place}"
            patiently(partial(self._fetch, start), what, self._deadline)

    def _fetch(self, start: int) -> None:
        length = min(PART_BYTES, self.size - start)
        what = {"Range": f"bytes={start}-{start + length - 1}", "IfMatch": self._answer["ETag"]}
        try:
            answer = self._place.ask("get_object", **what)
        except boto.ClientError as error:
            if name_of(error) in TAKEN + ABSENT:
                raise _Replaced from None
            raise
        with closing(answer["Body"]) as body:
            if answer["ContentLength"] != length:
                raise boto.IncompleteReadError(actual_bytes=answer["ContentLength"], expected_bytes=length)
            Stream(body, self._deadline).fill(self._part(start))

    def _part(self, start: int) -> Iterator[memoryview]:
        """Yield the pieces of the buffers that a part fills."""
        stop = start + PART_BYTES
        for buffer in self._buffers:
            if start < len(buffer) and stop > 0:
                yield buffer[max(start, 0) : stop]
            start, stop = start - len(buffer), stop - len(buffer)

    @staticmethod
    def _take(pop: Callable[[], int]) -> int | None:
        try:
            return pop()
        except IndexError:
            return None
