"""Sweep journal: the append-only record of one sweep's events (planned, leased, committed, failed, ...).

Every attempt of the driver writes segments of its own, `<started_ms>-<pid>-<random>-<part>.jsonl` under
`sweeps/<key>/journal/`, so attempts never touch each other's bytes and a kill loses at most half a second.
"""

import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from orchestrator.store.blobs import Blobs

logger = logging.getLogger(__name__)
_SEGMENT = re.compile(r"\d{13,}-\d+-[0-9a-f]{8}-\d{4,}\.jsonl")
_FLUSH_SECONDS = 0.5
_PART_BYTES = 1 << 18  # a segment is stored whole at every flush; a long sweep needs several


class Journal:
    """Appends events of this attempt and reads those of all attempts; any thread may append."""

    def __init__(self, blobs: Blobs, sweep_key: str, *, flush_seconds: float = _FLUSH_SECONDS) -> None:
        self._blobs, self.sweep_key = blobs, sweep_key
        self._folder = f"sweeps/{sweep_key}/journal/"
        self.attempt = f"{now_ms():013d}-{os.getpid()}-{secrets.token_hex(4)}"
        """Begins the names of this attempt's segments."""
        self._flush_seconds = flush_seconds
        self._part = 0
        self._lines: list[bytes] = []  # of this part
        self._num_stored = 0  # lines of this part that the store has
        self._lock = threading.Lock()  # guards the fields above
        self._storing = threading.Lock()  # an older segment must not overwrite a newer one
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, event: str, **fields: Any) -> None:
        """Add an event with the time in Unix milliseconds; it is durable after the next flush.

        Raise ValueError after `close`.
        """
        if self._closed.is_set():
            raise ValueError(f"event={event} came after the journal was closed; append before close().")
        line = json.dumps({"event": event, "time_ms": now_ms(), **fields}, separators=(",", ":"))
        with self._lock:
            self._lines.append(line.encode() + b"\n")
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush_often, name="journal", daemon=True)
                self._thread.start()
        self._dirty.set()

    def flush(self) -> None:
        """Make every event appended so far durable; raise what the store raises."""
        with self._storing:
            self._dirty.clear()
            with self._lock:
                name, lines = f"{self._folder}{self.attempt}-{self._part:04d}.jsonl", list(self._lines)
                is_stored = len(lines) == self._num_stored
            if is_stored:
                return
            data = b"".join(lines)
            self._blobs.put(name, data)
            with self._lock:
                self._num_stored = len(lines)
                if len(data) >= _PART_BYTES:
                    self._part, self._num_stored = self._part + 1, 0
                    del self._lines[: len(lines)]

    def events(self) -> list[dict[str, Any]]:
        """Return the events of all attempts, oldest attempt first; lines that are not events are left out."""
        self.flush()
        names = self._blobs.names(self._folder)
        segments = [name for name in names if _SEGMENT.fullmatch(name.removeprefix(self._folder))]
        return [event for name in segments for event in _parse(name, self._blobs.get(name) or b"")]

    def close(self) -> None:
        """Flush and accept no more events; raise what the store raises."""
        self._closed.set()
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush_often(self) -> None:
        while not self._closed.is_set():
            self._dirty.wait()
            self._closed.wait(self._flush_seconds)
            try:
                self.flush()
            except Exception as error:  # of any store: the lines are kept and stored later
                logger.warning("event=journal_flush_failed error=%s", type(error).__name__)
                self._dirty.set()


def _parse(name: str, data: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event
        else:
            logger.warning("event=journal_line_ignored segment=%s line=%d", name, number)


def now_ms() -> int:
    """Return this machine's time in Unix milliseconds."""
    return time.time_ns() // 1_000_000
