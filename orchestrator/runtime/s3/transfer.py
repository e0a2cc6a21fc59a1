"""Transfer of one object: a single stream, ranged requests beside it where it is slow; large writes in parts.

Threads end with the call that started them. boto3's transfer manager does not decide by speed: its single
stream is as fast as ours from a near server and gets no help from a far one, its ranges are several times
slower from a near one (`benchmarks.reading` has the figures). It neither gives up a slow answer nor notices a
server that ignores ranges, and cannot create an object only once.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import botocore.exceptions as boto

from orchestrator.runtime.s3 import retry
from orchestrator.runtime.s3.errors import ABSENT, FAULTS, STREAM_FAULTS, TAKEN, Replaced, name_of
from orchestrator.runtime.s3.retry import deadline_of, repeat
from orchestrator.store.blobs import blank

logger = logging.getLogger(__name__)

LARGE_BYTES = 16 << 20  # up to this size an object is one request
PART_BYTES = 8 << 20
HELPERS = 3  # ranged requests beside the first stream
UPLOADERS = 4
# Helpers are worth having where all streams of this process together are slower than this after a moment.
# Faster ones are bound by the process, whose one interpreter reads no faster with more (loopback: one stream
# 890 MB/s, four ranged 230 to 480).
MOMENT_SECONDS, FAST_BYTES_PER_SECOND = 0.1, 200e6
FIRST_BYTES, CHUNK_BYTES = 16, 1 << 20

Buffers = Sequence[memoryview]


@dataclass(frozen=True)
class Place:
    """One object of a bucket, and a client for it."""

    client: Any
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"bucket={self.bucket} key={self.key}"

    def ask(self, operation: str, **more: Any) -> dict[str, Any]:
        """Call the client's method of that name for this object, once."""
        return getattr(self.client, operation)(Bucket=self.bucket, Key=self.key, **more)


def read(place: Place) -> bytes:
    """Return the object's bytes, as they were at one moment; raise the last error if they cannot be read."""
    held = [blank(0)]

    def room(size: int) -> Buffers:
        held[0] = blank(size)
        return [held[0].getbuffer()]

    size = download(place, room)
    data = held[0].getvalue()
    assert len(data) == size, "a view of the buffer is still in use"
    return data


def download(place: Place, room: Callable[[int], Buffers | None]) -> int:
    """Read the object into the buffers that `room` returns for its size in bytes; return the size.

    Where `room` returns None nothing is read. The buffers hold what the object was at one moment.
    """
    deadline = deadline_of("read")

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

    def once() -> int:
        reading = repeat(first, f"operation=get {place}", "request", deadline)
        if isinstance(reading, int):
            return reading
        reading.in_parts()
        return reading.size

    return repeat(once, f"operation=get {place}", "read", deadline)


def upload(place: Place, data: bytes, **condition: str) -> None:
    """Store the object, whole or not at all; an upload in parts that fails leaves none of them.

    Raise `ClientError` if the condition is not met, also for a repeated upload whose first answer was lost.
    """
    if len(data) <= LARGE_BYTES:
        repeat(lambda: place.ask("put_object", Body=data, **condition), f"operation=put {place}")
        return
    begun = repeat(
        lambda: place.ask("create_multipart_upload", **_checksum(place)), f"operation=begin {place}"
    )
    upload_id = begun["UploadId"]

    def send(start: int) -> dict[str, Any]:
        return _send(place, upload_id, start // PART_BYTES + 1, data[start : start + PART_BYTES])

    try:
        with ThreadPoolExecutor(UPLOADERS) as pool:
            parts = list(pool.map(send, range(0, len(data), PART_BYTES)))
        what = {"UploadId": upload_id, "MultipartUpload": {"Parts": parts}, **condition}
        repeat(lambda: place.ask("complete_multipart_upload", **what), f"operation=complete {place}")
    except BaseException:
        _abort(place, upload_id)
        raise


def _send(place: Place, upload_id: str, number: int, data: bytes) -> dict[str, Any]:
    """Send one part; return its entry in the request that completes the upload."""
    what = {"UploadId": upload_id, "PartNumber": number, **_checksum(place)}
    answer = repeat(
        lambda: place.ask("upload_part", Body=data, **what), f"operation=put_part part={number} {place}"
    )
    return {"PartNumber": number} | {
        name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer
    }


def _checksum(place: Place) -> dict[str, str]:
    """Return the checksum of an upload in parts, which boto3 adds to whole objects only, if it is wanted."""
    is_wanted = place.client.meta.config.request_checksum_calculation != "when_required"
    return {"ChecksumAlgorithm": "CRC32"} if is_wanted else {}


def _abort(place: Place, upload_id: str) -> None:
    try:
        place.ask("abort_multipart_upload", UploadId=upload_id)
    except FAULTS as error:
        if name_of(error) != "NoSuchUpload":  # completed after all, its answer was lost
            logger.warning("event=upload_left %s upload=%s error=%s", place, upload_id, name_of(error))


class _Reading:
    """An object on its way into buffers, from its first answer on."""

    def __init__(self, place: Place, answer: dict[str, Any], buffers: Buffers, deadline: float) -> None:
        self.size: int = answer["ContentLength"]
        self._place, self._answer, self._buffers, self._deadline = place, answer, buffers, deadline
        self._left = deque(range(0, self.size, PART_BYTES))  # starts of parts to be read

    def all_at_once(self) -> None:
        """Read the first answer."""
        stream = _Stream(self._answer["Body"], self._deadline)
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
                self._left.clear()  # after an error no thread takes another part

    def _from_the_front(self, get_help: Callable[[], None]) -> None:
        """Read part after part from the first answer, until none is left or the answer breaks."""
        with closing(self._answer["Body"]) as body:
            stream = _Stream(body, self._deadline)
            while (start := self._take(self._left.popleft)) is not None:
                try:
                    stream.fill(self._part(start), get_help)
                except STREAM_FAULTS as error:
                    logger.warning("event=stream_broken %s error=%s", self._place, name_of(error))
                    self._left.append(start)
                    get_help()
                    return
            if stream.received == self.size:
                stream.end()

    def _by_ranges(self) -> None:
        while (start := self._take(self._left.pop)) is not None:
            what = f"operation=get_part start={start} {self._place}"
            repeat(partial(self._fetch, start), what, "request", self._deadline)

    def _fetch(self, start: int) -> None:
        length = min(PART_BYTES, self.size - start)
        what = {"Range": f"bytes={start}-{start + length - 1}", "IfMatch": self._answer["ETag"]}
        try:
            answer = self._place.ask("get_object", **what)
        except boto.ClientError as error:
            if name_of(error) in TAKEN + ABSENT:
                raise Replaced from None
            raise
        with closing(answer["Body"]) as body:
            if answer["ContentLength"] != length:
                raise boto.IncompleteReadError(actual_bytes=answer["ContentLength"], expected_bytes=length)
            _Stream(body, self._deadline).fill(self._part(start))

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


class _Meter:
    """Bytes received by all streams of this process; roughly, as no thread takes a lock."""

    num_bytes = 0


class _Stream:
    """An answer's body; raise `TimeoutError` when it is too slow."""

    def __init__(self, body: Any, deadline: float) -> None:
        self._body, self._deadline = body, deadline
        self._started, self._others = time.monotonic(), _Meter.num_bytes
        self._size = FIRST_BYTES  # of one read, which blocks until they are there: follows the speed
        self.received = 0

    def fill(self, views: Iterable[memoryview], when_slow: Callable[[], None] = lambda: None) -> None:
        """Fill the views; call `when_slow` after every read that finds this process's streams slow."""
        for view in views:
            filled = 0
            while filled < len(view):
                num_bytes = self._body.readinto(view[filled : filled + self._size])
                if not num_bytes:
                    raise boto.IncompleteReadError(actual_bytes=filled, expected_bytes=len(view))
                filled += num_bytes
                self.received += num_bytes
                _Meter.num_bytes += num_bytes
                self._follow(when_slow)

    def end(self) -> None:
        """Reach the end, where boto3 compares length and checksum if the server sent them."""
        self._body.read(1)

    def _follow(self, when_slow: Callable[[], None]) -> None:
        now = time.monotonic()
        seconds = now - self._started
        too_slow = seconds > retry.SLOW_SECONDS and self.received < seconds * retry.SLOW_BYTES_PER_SECOND
        if too_slow or now > self._deadline:
            raise TimeoutError(f"{self.received} bytes in {seconds:.0f} s")
        of_all = _Meter.num_bytes - self._others
        if seconds > MOMENT_SECONDS and of_all < seconds * FAST_BYTES_PER_SECOND:
            when_slow()
        keeps_up = seconds < 1 or self.received > seconds * self._size
        self._size = min(2 * self._size, CHUNK_BYTES) if keeps_up else FIRST_BYTES
